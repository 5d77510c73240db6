"""Shares of a sweep's models on the workers of a Ray cluster, begun again where a worker or its machine dies.

A worker is an actor that owns an accelerator, or the cores of its machine; it cuts its share into passes that its
memory holds. Machines may come and go. The driver alone decides who trains what, and takes nobody's results before
that one has said what they rest on.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from resilinet_jax.datasets.feed import Resident
from resilinet_jax.engine.run_cells import Model, Trained, label
from resilinet_jax.errors import UserError, first_line, one_line
from resilinet_jax.files import digest
from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.checkpoints import MODELS, Checkpoints
from resilinet_jax.runtime.identity import told_differences
from resilinet_jax.runtime.progress import CrewProgress

BEAT = 1.0  # seconds between two signs of life of a worker that has nothing else to say
PATIENCE = 5  # times the longest that its epochs or beats took: without a sign for so long, a worker is taken for dead
MOST_AT_FIRST = 100  # models of a share, before it is known how many a worker holds at once
DEATHS_TO_HALVE = 2  # of workers one after another that did not come further than others with the same share
MOST_DEATHS = 4  # of workers one after another with the same run, or on a machine before they had begun
SAY_WAITING_AFTER = 30.0  # seconds in which nobody was ready to train
LOOK_EVERY = 2.0  # seconds between two looks at which machines there are


class Told(NamedTuple):
    """A worker's sign of life.

    Attributes:
      line: what it is doing; None for nothing new.
      epoch: number of the epoch that has just ended; 0 if none has.
    """

    line: str | None = None
    epoch: int = 0


@dataclasses.dataclass(eq=False)
class Share:
    """Models that one worker trains.

    Attributes:
      models: those that are not finished.
      folder: of its checkpoints, where workers see it.
      furthest: epoch that any worker has reached, of the pass under way.
      deaths: how many workers in a row have died before they came further.
    """

    models: list[Model]
    folder: pathlib.Path
    furthest: int = 0
    deaths: int = 0


@dataclasses.dataclass(eq=False)
class Worker:
    """The driver's view of a worker.

    Attributes:
      machine: how people call it.
      node: Ray's name of it.
      actor: Ray's handle.
      pending: what it is asked, as Ray's reference or stream.
      kind: of its device; None until it has said that.
      process: its number there.
      ready: whether it has the data of the job.
      share: that it trains.
      holds: how many models it trains at once.
      heard: when it last gave a sign of life.
      slowest: the longest time from one epoch's end, or the share's start, to the next epoch's end; at least two beats.
      last_line: when it last said more than that it lives: that an epoch had ended, or that another phase began.
      in_epochs: whether that was an epoch, so that the next one is under way.
    """

    machine: str
    node: str
    actor: Any
    pending: Any
    kind: str | None = None
    process: int = 0
    ready: bool = False
    share: Share | None = None
    holds: int = MOST_AT_FIRST
    heard: float = dataclasses.field(default_factory=time.monotonic)
    slowest: float = 2 * BEAT
    last_line: float = 0.0
    in_epochs: bool = False


class Crew:
    """The workers of a cluster, for one job after another."""

    def __init__(
        self,
        ray: Any,
        hire: Callable[[Mapping[str, Any]], Sequence[Callable[[], Any]]],
        expected: Mapping[str, str],
        mix_devices: bool,
        progress: CrewProgress,
    ):
        """Nobody is hired yet.

        Args:
          ray: the library, connected.
          hire: for a machine, which Ray describes, a function for each of its workers that makes it.
          expected: versions, of code and libraries, that every worker must have.
          mix_devices: whether workers on devices of several kinds may train side by side.
          progress: told what happens.
        """
        self._ray, self._hire, self._expected, self._mix = ray, hire, expected, mix_devices
        self.progress = progress
        self._workers: list[Worker] = []
        self._refused: set[str] = set()
        self._deaths = collections.Counter[str]()  # of workers one after another that had not begun, on each machine
        self._names: dict[str, str] = {}  # of machines, by Ray's
        self._looked, self._worked = -math.inf, time.monotonic()  # when somebody was last ready to train
        self._job: tuple[Mapping[str, Any], Any, Mapping[str, Any]] | None = None
        self.kind, self.rests_on = "", {}

    kind: str
    """Of the devices that train: that of the first worker."""
    rests_on: dict[str, str]
    """What a worker's numbers rest on beside versions, by name; known after `meet`."""

    def meet(self) -> None:
        """Waits for a first worker that may train."""
        while not self.rests_on:
            self._turn()

    def hold(self, data: Any) -> tuple[Any, Any]:
        """Puts a scenario's data where every worker of a machine finds them, once on each.

        Returns:
          The data as they lie there, and Ray's reference; None for those that are read while training, which every
          worker does itself.
        """
        if not isinstance(data.feed, Resident):
            return data, None
        reference = self._ray.put(data)
        return self._ray.get(reference), reference

    def train(
        self,
        models: Sequence[Model],
        job: Mapping[str, Any],
        data: Any,
        identity: Mapping[str, Any],
        under_way: pathlib.Path,
        stamp: str,
    ) -> Generator[Trained]:
        """Trains models, whoever does it.

        Args:
          models: at least one.
          job: what a worker needs to know, as its `prepare` takes it.
          data: Ray's reference to the data.
          identity: what every run rests on, which each worker must find as well.
          under_way: where checkpoints of shares go.
          stamp: of the identity.

        Yields:
          Each pass as soon as it is finished.

        Raises:
          UserError: if a run can't be trained by anybody.
        """
        self._job = job, data, identity
        for worker in self._workers:
            worker.ready = False
            self._prepare(worker)
        waiting = _left_behind(models, under_way, stamp)
        begun = {id(model) for share in waiting for model in share.models}
        # Longest first: learned weights cost more.
        loose = [model for model in models if id(model) not in begun]
        loose.sort(key=lambda model: not model.learns_weights)
        self._models = len(models)
        self.progress.begin(len(models))
        try:
            while waiting or loose or any(worker.share for worker in self._workers):
                for worker in self._workers:
                    if worker.pending is None and worker.ready and (waiting or loose):
                        self._begin(worker, waiting.popleft() if waiting else self._cut(worker, loose, under_way))
                for worker, share in self._turn():
                    if isinstance(share, Trained):
                        yield share
                        self._finished(worker, share)
                    elif share.models:
                        waiting.extend(_again(share))
            _discard_shares(under_way.glob("share_*"))
        finally:
            self.progress.finish()
            if any(worker.share for worker in self._workers):  # interrupted
                for worker in list(self._workers):
                    self._dismiss(worker)

    def _cut(self, worker: Worker, loose: list[Model], under_way: pathlib.Path) -> Share:
        """As many of the models that nobody has begun as this worker holds, or as are its part of all.

        Where there are several shares for each worker the last ones are smaller, so that all end together.
        """
        among = len(self._workers)
        part = -(-self._models // among)
        if part > worker.holds:
            part = max(-(-len(loose) // among), worker.holds // 4, 1)
        same = [model for model in loose[: min(worker.holds, part)] if model.learns_weights == loose[0].learns_weights]
        del loose[: len(same)]
        return Share(same, under_way / f"share_{digest(' '.join(map(label, same)).encode())[:16]}")

    def _begin(self, worker: Worker, share: Share) -> None:
        worker.share, worker.in_epochs = share, False
        worker.heard = worker.last_line = time.monotonic()
        stream = worker.actor.train.options(num_returns="streaming")
        worker.pending = stream.remote(share.models, share.folder)

    def _turn(self) -> list[tuple[Worker, Share | Trained]]:
        """Waits for a moment; returns passes that are finished, and shares that have lost their worker."""
        interruption.check()
        self._look_for_machines()
        pending = [worker for worker in self._workers if worker.pending is not None]
        if any(worker.ready for worker in self._workers):
            self._worked = time.monotonic()
        elif time.monotonic() - self._worked > SAY_WAITING_AFTER:
            self._worked = time.monotonic()
            self.progress.note(f"Nobody trains: waiting for machines ({len(pending)} of them starting).")
        if not pending:
            time.sleep(0.1)
            return []
        ready, _ = self._ray.wait([worker.pending for worker in pending], timeout=0.5)
        also, _ = self._ray.wait([worker.pending for worker in pending], num_returns=len(pending), timeout=0)
        came = []
        for worker in pending:
            if any(worker.pending is each for each in [*ready, *also]):
                came += self._hear(worker)
            elif self._overdue(worker):
                self.progress.again(worker.machine, "it gave no sign of life")
                came += self._lose(worker)
        return came

    def _hear(self, worker: Worker) -> list[tuple[Worker, Share | Trained]]:
        """Takes what a worker has said."""
        errors = self._ray.exceptions
        try:
            said = self._ray.get(next(worker.pending) if worker.share else worker.pending)
        except StopIteration:  # its share is finished
            if worker.share is not None:
                _discard_shares([worker.share.folder])
            worker.pending = worker.share = None
            return []
        except errors.RayTaskError as error:
            cause = error.cause
            if worker.share is None:
                self._refuse(worker, first_line(cause) if isinstance(cause, UserError) else repr(cause)[:200])
                return []
            if isinstance(cause, UserError):
                raise UserError(f"on {worker.machine}: {cause}") from None
            raise
        except errors.RayError as error:
            if "creation task" in str(error):  # why, comes below Ray's own line and a traceback
                why = str(error).splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
                self._refuse(worker, one_line(why.rstrip(".")))
                return []
            if worker.share is not None:
                full = isinstance(error, errors.OutOfMemoryError) or "low on memory" in str(error)
                worker.share.deaths += full * DEATHS_TO_HALVE
                self.progress.again(worker.machine, "memory ran out" if full else "its worker died")
                return self._lose(worker)
            self._deaths[worker.node] += 1
            if self._deaths[worker.node] < MOST_DEATHS:
                return self._lose(worker)
            self._refuse(worker, f"its workers die one after another ({first_line(error)})")
            return []
        now = time.monotonic()
        worker.heard = now
        if worker.share is None:
            worker.pending = None
            self._stated(worker, said)
            return []
        if isinstance(said, Trained):
            return [(worker, said._replace(machine=worker.kind))]
        if said.epoch > worker.share.furthest:
            worker.share.furthest, worker.share.deaths = said.epoch, 0
        if said.epoch:
            worker.slowest = max(worker.slowest, now - worker.last_line)
        if said.line is not None:
            worker.last_line, worker.in_epochs = now, bool(said.epoch)
        self.progress.told(worker.machine, said.line)
        return []

    def _stated(self, worker: Worker, said: Mapping[str, Any]) -> None:
        """A worker has said what it is, or what it found that its job rests on; whoever differs goes."""
        self._deaths[worker.node] = 0
        if worker.kind is None:
            worker.kind, worker.process = said["machine"], said["process"]
            differences = told_differences(said["versions"], self._expected)
            if differences:
                self._refuse(worker, f"has {differences}; install there what is here")
                return
            self.kind = self.kind or worker.kind
            if worker.kind != self.kind and not self._mix:
                what = f"computes on {worker.kind}, not {self.kind}: single accuracies may differ"
                self._refuse(worker, f"{what}; add --mix_devices to have it train as well")
                return
            self.rests_on = self.rests_on or said["rests_on"]
        else:
            assert self._job is not None
            differences = told_differences(said, self._job[2])
            if differences:
                self._refuse(worker, f"would train with {differences}")
                return
            worker.ready = True
        self._prepare(worker)

    def _prepare(self, worker: Worker) -> None:
        if self._job is not None and not worker.ready and worker.pending is None:
            worker.pending = worker.actor.prepare.remote(self._job[0], [self._job[1]])

    def _finished(self, worker: Worker, done: Trained) -> None:
        """A pass is kept."""
        self.progress.finished(worker.machine, len(done.models))
        if worker.share is not None and len(done.models) < len(worker.share.models):
            worker.holds = len(done.models)  # it had to be split
        names = {label(model) for model in done.models}
        if worker.share is not None:
            worker.share.furthest = worker.share.deaths = 0
            worker.share.models = [model for model in worker.share.models if label(model) not in names]

    def _overdue(self, worker: Worker) -> bool:
        """Whether a worker has been silent for so long that it is hung or stopped."""
        since = worker.last_line if worker.in_epochs else worker.heard
        return worker.share is not None and time.monotonic() - since > PATIENCE * worker.slowest

    def _lose(self, worker: Worker) -> list[tuple[Worker, Share | Trained]]:
        share = worker.share
        self._dismiss(worker)
        if share is None:
            return []
        share.deaths += 1
        return [(worker, share)]

    def _dismiss(self, worker: Worker) -> None:
        """Ends a worker, even one that is stopped."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        if worker.process and worker.node in self._alive():
            end = self._ray.remote(_end).options(num_cpus=0, scheduling_strategy=self.on(worker.node))
            end.remote(worker.process)

    def _refuse(self, worker: Worker, why: str) -> None:
        """A machine does not train; the others go on."""
        self._refused.add(worker.node)
        self.progress.note(f"{worker.machine} is left out: {why}.")
        self._dismiss(worker)

    def on(self, node: str) -> Any:
        """Ray's strategy to place something on this node and nowhere else."""
        return self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def _alive(self) -> dict[str, Mapping[str, Any]]:
        return {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}

    def _look_for_machines(self) -> None:
        """Hires on machines that have come, and again where a worker died; looks now and then."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        able = {node: told for node, told in self._alive().items() if self._hire(told)}
        for node, told in able.items():
            if node in self._refused:
                continue
            have = sum(worker.node == node for worker in self._workers)
            for make in self._hire(told)[have:]:
                actor = make()
                self._workers.append(Worker(self._name(node, told), node, actor, actor.state.remote()))
        if able and able.keys() <= self._refused and not self._workers:
            raise UserError("no machine of the cluster may train; see above")

    def _name(self, node: str, told: Mapping[str, Any]) -> str:
        if node not in self._names:
            host = told["NodeManagerHostname"]
            same = sum(name.split(" (")[0] == host for name in self._names.values())
            self._names[node] = f"{host} ({same + 1})" if same else host
        return self._names[node]


def _end(process: int) -> None:
    """Kills a process of this machine, if it still is a worker."""
    with contextlib.suppress(OSError):
        if pathlib.Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(process, signal.SIGKILL)


def _left_behind(models: Sequence[Model], under_way: pathlib.Path, stamp: str) -> collections.deque[Share]:
    """The shares whose checkpoints an earlier command has left, if all their models are wanted; others are removed."""
    wanted = {label(model): model for model in models}
    shares = collections.deque[Share]()
    for path in sorted(under_way.glob(f"share_*/{MODELS}")):
        own = Checkpoints(path.parent, stamp=stamp).models()
        if own and wanted.keys() >= set(own):
            shares.append(Share([wanted.pop(each) for each in own], path.parent))
        else:
            _discard_shares([path.parent])
    return shares


def _discard_shares(paths: Iterable[pathlib.Path]) -> None:
    """Removes checkpoints of shares, and the locks beside them; whoever still writes there is taken for dead."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(f"{path.name.removesuffix('.lock')}.lock").unlink(missing_ok=True)


def _again(share: Share) -> list[Share]:
    """A share whose worker has died; in two halves if that may be because memory does not hold it.

    Raises:
      UserError: if it is a single run that nobody can train.
    """
    if share.deaths < DEATHS_TO_HALVE:
        return [share]
    if len(share.models) > 1:
        half = -(-len(share.models) // 2)
        _discard_shares([share.folder])  # or a command that goes on would take it for whole
        return [
            Share(part, share.folder.with_name(f"{share.folder.name}_{number}"))
            for number, part in enumerate((share.models[:half], share.models[half:]))
        ]
    if share.deaths >= MOST_DEATHS:
        raise UserError(
            f"{share.deaths} workers died one after another with the same run, though it was alone; if memory ran out, "
            "take a smaller network or --batch_size"
        )
    return [share]
