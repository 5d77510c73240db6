"""Runs every node of an artefact as a process on this machine, kills them for real, and compares with predictions.

Every failure combination is first brought about while requests stream, so that each answer has to be the simulator's
under the hyperconnections that its witness names. Then it is held while the whole test split is answered, so that
accuracy, messages and bytes have to be the predicted ones.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from jaxtyping import Float, Int, Num

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.artefact import Artefact, Manifest, Predicted
from resilinet_jax.deploy.client import ANSWERED, DEADLINE, NO_INFORMATION, Answer, Client
from resilinet_jax.deploy.model import Model
from resilinet_jax.deploy.node import dial
from resilinet_jax.deploy.placement import Host, Placement
from resilinet_jax.deploy.wire import COUNTERS
from resilinet_jax.errors import UserError
from resilinet_jax.network.senders import has_path

STARTED = 60.0  # seconds that a node may take to start
SETTLED = 20.0  # seconds that the network may take to be as predicted after a change
TOLERANCE = 1e-5  # of logits, for their size
# Nodes share the cores of this machine: each has one.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1")
BOUND = 1.0  # seconds after a change in which there may be no information: twice the suspicion
CHANGE = (0.05, 2.0)  # seconds between two changes under chaos


@dataclasses.dataclass(frozen=True)
class Held:
    """What was measured while a failure combination was held.

    Attributes:
      predicted: what the simulation says of it.
      accuracy: on the test split; None where nothing reached the cloud, and the simulation guesses.
      messages: values that were sent over each hyperconnection, for each request.
      bytes: of values, for one example.
      overhead: bytes of nothing but heartbeats and other messages without values, as messages for each request.
      seconds: each request's latency.
      furthest: the largest difference of a logit from the simulator's, for the size of the logits.
      others: test examples whose class differs from the simulator's.
      examples: test examples in all.
    """

    predicted: Predicted
    accuracy: float | None
    messages: dict[str, float]
    bytes: float
    overhead: float
    seconds: Float[np.ndarray, " requests"]
    furthest: float
    others: int
    examples: int


@dataclasses.dataclass(frozen=True)
class Struck:
    """What was measured while nodes died.

    Attributes:
      failing: the nodes that were killed.
      answered: requests that were answered.
      uninformed: requests that were answered with "no information".
      lost: requests without an answer.
      wrong: answers that are not the simulator's under their own witness.
      usual: latency of the requests before the kill, in seconds.
      longest: the longest latency after it.
    """

    failing: Sequence[str]
    answered: int
    uninformed: int
    lost: int
    wrong: int
    usual: Float[np.ndarray, " requests"]
    longest: float


@dataclasses.dataclass(frozen=True)
class Chaos:
    """What was measured while nodes were killed, stopped and started at random.

    Attributes:
      seconds: how long.
      kills: nodes killed, by SIGKILL.
      stops: nodes stopped for a while, by SIGSTOP.
      answered: requests that were answered.
      uninformed: requests that were answered with "no information".
      unjust: those of them where nothing had changed for `BOUND`, and what lived had left a path.
      lost: requests without an answer.
      twice: requests that were answered more than once.
      wrong: answers that are not the simulator's under their own witness.
    """

    seconds: float
    kills: int
    stops: int
    answered: int
    uninformed: int
    unjust: int
    lost: int
    twice: int
    wrong: int


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened in a trial, for its timeline: when, in seconds; to which node; what."""

    seconds: float
    node: str
    what: str


@dataclasses.dataclass
class Trial:
    """All that a trial has measured.

    Attributes:
      held: by failure combination.
      struck: by failure combination.
      events: kills and starts.
      answers: when each request was answered in seconds, its latency, and its status.
      started: seconds from a process' start to its being ready, by node.
      memory: resident bytes of each node's process.
      engines: what computes each node.
      skipped: what a trial on this machine can't bring about, and why.
      chaos: what was measured under random failures; None if that was not asked for.
    """

    held: list[Held] = dataclasses.field(default_factory=list)
    struck: list[Struck] = dataclasses.field(default_factory=list)
    events: list[Event] = dataclasses.field(default_factory=list)
    answers: list[tuple[float, float, str]] = dataclasses.field(default_factory=list)
    started: dict[str, float] = dataclasses.field(default_factory=dict)
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    engines: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: list[str] = dataclasses.field(default_factory=list)
    chaos: Chaos | None = None

    def failed(self) -> list[str]:
        """Every expectation that was not met, in a line each."""
        lines = []
        for each in self.held:
            name = "+".join(each.predicted.failing) or "nothing"
            wanted = each.predicted.accuracy
            # Rounded when it was stored; an example whose two best classes are equal to rounding may fall either way.
            if each.accuracy is not None and abs(each.accuracy - wanted) > 1e-6 + each.others / each.examples:
                lines.append(f"{name} dead: accuracy {each.accuracy:.4%}, predicted {wanted:.4%}")
            if each.furthest > TOLERANCE:
                lines.append(f"{name} dead: a logit differs by {each.furthest:.1g} from the simulator's")
            expected = dict.fromkeys(each.predicted.messages, 1.0)
            if each.messages != expected:
                lines.append(f"{name} dead: messages {each.messages}, predicted {expected}")
            if each.bytes != each.predicted.bytes:
                lines.append(f"{name} dead: {each.bytes:g} bytes an example, predicted {each.predicted.bytes}")
        for hit in self.struck:
            name = "+".join(hit.failing)
            if hit.lost:
                lines.append(f"{name} killed: {hit.lost} requests were lost")
            if hit.wrong:
                lines.append(f"{name} killed: {hit.wrong} answers are not the simulator's under their witness")
        for what in ("unjust", "lost", "twice", "wrong") if self.chaos is not None else ():
            if count := getattr(self.chaos, what):
                lines.append(f"chaos: {count} requests {_CHAOS[what]}")
        return lines


_CHAOS = {
    "unjust": 'were answered with "no information" although a path was there',
    "lost": "were lost",
    "twice": "were answered twice",
    "wrong": "have answers that are not the simulator's under their witness",
}


class Processes:
    """The nodes' processes; `with Processes(...)` ends them all, whatever happens."""

    def __init__(self, artefact: Artefact, placement: Placement, folder: pathlib.Path):
        """Prepares a folder for what they share and say; nothing is started yet.

        Args:
          artefact: that they run.
          placement: of all of them, on this machine.
          folder: for the placement and what they say.
        """
        self._artefact, self._folder = artefact, folder
        self.placement = placement
        self._file = folder / "placement.toml"
        self._file.write_text(placement.to_toml(), encoding="utf-8")
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> float:
        """Starts a node and waits until others can connect; returns the seconds that it took.

        Raises:
          UserError: with the last line that it has said, if it ends.
        """
        began, said = time.monotonic(), self._folder / f"{self._artefact.graph.order.index(name)}.log"
        with said.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "resilinet_jax.deploy.run_node", str(self._artefact.folder), f"--node={name}",
                f"--placement={self._file}", stdout=asyncio.subprocess.PIPE, stderr=log,
                env={**os.environ, **ONE_THREAD},
            )  # fmt: skip
        self._running[name] = process
        assert process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED):
                if await process.stdout.readline():
                    return time.monotonic() - began
        last = (said.read_text(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(f"node {name!r} did not start: {last}")

    async def kill(self, name: str) -> None:
        """Ends a node at once, by SIGKILL."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a node, as SIGSTOP and SIGCONT."""
        self._running[name].send_signal(number)

    def memory(self) -> dict[str, int]:
        """Resident bytes of each node, where the system tells."""
        sizes = {}
        for name, process in self._running.items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]
                sizes[name] = int(pages) * 4096
        return sizes

    async def __aenter__(self) -> Processes:
        """Starts every node."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kills those that run."""
        for name in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                await self.kill(name)


def loopback(artefact: Artefact, rows: int) -> Placement:
    """A placement of all nodes on this machine, dense ones on NumPy.

    Args:
      artefact: whose nodes they are.
      rows: of a request.
    """
    with contextlib.ExitStack() as sockets:
        ports = []
        for _ in artefact.graph.order:
            free = sockets.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    nodes = artefact.manifest.nodes
    hosts = {
        name: Host(f"127.0.0.1:{port}", "jax" if nodes[name].dense is None else "numpy")
        for name, port in zip(artefact.graph.order, ports)
    }
    return Placement(hosts, rows=rows, window=32)


async def run_trial(
    artefact: Artefact,
    model: Model,
    x: Num[np.ndarray, "examples *features"],
    y: Int[np.ndarray, " examples"],
    tell: Callable[[str], None],
    requests: int = 60,
    pace: float = 0.005,
    seed: int = 0,
    chaos_seconds: float = 0.0,
) -> Trial:
    """Brings about every failure combination that the manifest predicts.

    Args:
      artefact: to try.
      model: the same network in the simulator.
      x: the test split, standardised.
      y: its labels.
      tell: what is being done, in a line.
      requests: into which the test split is divided.
      pace: seconds between requests while nodes are killed.
      seed: of the moments at which nodes are killed.
      chaos_seconds: how long nodes are killed, stopped and started at random afterwards.

    Raises:
      UserError: if nodes do not start, or the network does not become what the graph says.
    """
    rows = max(1, len(x) // requests)
    trial, random_moments = Trial(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="resilinet_jax.") as folder:
        placement = loopback(artefact, rows)
        trial.engines = {name: host.engine for name, host in placement.nodes.items()}
        async with Processes(artefact, placement, pathlib.Path(folder)) as processes:
            tell(f"starting {len(placement.nodes)} nodes")
            times = await asyncio.gather(*(processes.start(name) for name in placement.nodes))
            trial.started = dict(zip(placement.nodes, times))
            async with Client(artefact, placement, deadline=SETTLED) as client:
                await client.ready()
                run = _Run(artefact, model, x, y, rows, trial, processes, client, random_moments, pace)
                await run.everything(tell)
                if chaos_seconds:
                    tell(f"chaos for {chaos_seconds:.0f} s")
                    await run.chaos(chaos_seconds)
                trial.memory = processes.memory()
    return trial


@dataclasses.dataclass
class _Run:
    """A trial under way."""

    artefact: Artefact
    model: Model
    x: np.ndarray
    y: np.ndarray
    rows: int
    trial: Trial
    processes: Processes
    client: Client
    moments: random.Random
    pace: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._logits: dict[frozenset[str], np.ndarray] = {}

    async def everything(self, tell: Callable[[str], None]) -> None:
        nodes = set(self.artefact.graph.order)
        for number, predicted in enumerate(self.artefact.manifest.predicted, 1):
            name, failing = "+".join(predicted.failing) or "nothing", predicted.failing
            if not set(failing) <= nodes:
                self.trial.skipped.append(f"{name}: a link of this machine is not cut")
                continue
            tell(f"{number}/{len(self.artefact.manifest.predicted)}: {name} dead")
            if failing:
                await self.strike(failing)
            await self.settle(predicted)
            await self.hold(predicted)
            for node in failing:
                self.event(node, "started")
            await asyncio.gather(*(self.processes.start(node) for node in failing))
            await self.settle(self.artefact.manifest.predicted[0])

    def event(self, node: str, what: str) -> None:
        self.trial.events.append(Event(time.monotonic() - self._began, node, what))

    def batches(self) -> Iterator[np.ndarray]:
        """The test split in requests of the same size, for which programs are compiled; the last is filled up."""
        firsts = range(0, len(self.x), self.rows)
        return (np.resize(self.x[first : first + self.rows], (self.rows, *self.x.shape[1:])) for first in firsts)

    def simulated(self, witness: frozenset[str]) -> np.ndarray:
        """The simulator's logits for the test split where just these hyperconnections carry."""
        if witness not in self._logits:
            self._logits[witness] = self.model.carried(self.x, witness)
        return self._logits[witness]

    def furthest(self, first: int, answer: Answer) -> float:
        """Largest difference of an answer's logits from the simulator's, for their size.

        Args:
          first: of the test examples that were asked for.
          answer: to them.
        """
        assert answer.logits is not None
        wanted = self.simulated(answer.witness)[first : first + len(answer.logits)]
        got = answer.logits[: len(wanted)]
        return float(np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max()))

    def note(self, answer: Answer) -> None:
        self.trial.answers.append((time.monotonic() - self._began, answer.seconds, answer.status))

    async def settle(self, predicted: Predicted) -> None:
        """Waits until answers come the way that the graph says, several times in a row."""
        end, right, seen = time.monotonic() + SETTLED, 0, "nothing"
        expected = self.expected(predicted)
        while right < 3:
            answer = await self.client.ask_standardised(self.x[:1])
            seen = "+".join(sorted(answer.witness)) or answer.status
            right = right + 1 if answer.witness == expected and answer.status != DEADLINE else 0
            if time.monotonic() > end:
                raise UserError(
                    f"{'+'.join(predicted.failing) or 'nothing'} dead: after {SETTLED:.0f} s answers come over {seen}, "
                    f"expected {'+'.join(sorted(expected)) or NO_INFORMATION}"
                )
            await asyncio.sleep(0.02)
        await asyncio.sleep(3 * self.processes.placement.heartbeat)

    def expected(self, predicted: Predicted) -> frozenset[str]:
        """The hyperconnections that carry to the answer: those on the way of a message to the cloud."""
        graph = self.artefact.graph
        reached, carried = {graph.cloud}, set()
        for edge in reversed(graph.hyperconnections):
            if edge.name in predicted.messages and edge.target in reached:
                carried.add(edge.name)
                reached.add(edge.source)
        return frozenset(carried)

    async def strike(self, failing: Sequence[str]) -> None:
        """Kills nodes at random moments while requests stream."""
        usual: list[float] = []
        answers: list[tuple[int, Answer]] = []
        kills: list[float] = []
        count = 40
        moments = {node: self.moments.randint(15, 25) for node in failing}

        async def paced() -> AsyncIterator[np.ndarray]:
            for request in range(count):
                for node, moment in moments.items():
                    if moment == request:
                        kills.append(time.monotonic())
                        self.event(node, "killed")
                        await self.processes.kill(node)
                yield self.x[request % len(self.x)][None]
                await asyncio.sleep(self.pace)

        async for answer in self.client.stream(paced(), standardised=True):
            answers.append((len(answers) % len(self.x), answer))
            self.note(answer)
        first = min(moments.values())
        usual = [answer.seconds for _, answer in answers[: max(1, first - 5)]]
        good = [(n, answer) for n, answer in answers if answer.status == ANSWERED]
        self.trial.struck.append(
            Struck(
                failing,
                len(good),
                sum(answer.status == NO_INFORMATION for _, answer in answers),
                count - len(answers) + sum(answer.status == DEADLINE for _, answer in answers),
                sum(self.furthest(n, answer) > TOLERANCE for n, answer in good),
                np.array(usual),
                max(answer.seconds for _, answer in answers[max(1, first - 5) :]),
            )
        )

    async def hold(self, predicted: Predicted) -> None:
        """Answers the test split while nothing changes."""
        before = await self.counters(predicted.failing)
        answers = []
        async for answer in self.client.stream(self.batches(), standardised=True):
            answers.append(answer)
            self.note(answer)
        sent = await self.counters(predicted.failing)
        while True:  # the cloud may have said that it has no information while values are still under way
            await asyncio.sleep(2 * self.processes.placement.heartbeat)
            later = await self.counters(predicted.failing)
            moved = [name for name in later if not name.endswith("heartbeats") and later[name] != sent[name]]
            sent = later
            if not moved:
                break
        sent.subtract(before)
        counts = {edge.name: sent[f"{edge.name} messages"] for edge in self.artefact.graph.hyperconnections}
        alive = {edge.name for edge in self.artefact.graph.hyperconnections if edge.target not in predicted.failing}
        size = sum(sent[f"{name} bytes"] for name in alive)
        accuracy, furthest, others = None, 0.0, 0
        if all(answer.status == ANSWERED for answer in answers):
            chosen = np.concatenate([answer.logits.argmax(1) for answer in answers if answer.logits is not None])
            chosen = chosen[: len(self.y)]
            accuracy = float((chosen == self.y).mean())
            furthest = max(self.furthest(n * self.rows, answer) for n, answer in enumerate(answers))
            others = int((chosen != self.simulated(answers[0].witness).argmax(1)).sum())
        self.trial.held.append(
            Held(
                predicted,
                accuracy,
                {name: count / len(answers) for name, count in counts.items() if count},
                size / (len(answers) * self.rows),
                sum(count for name, count in sent.items() if name.endswith(("heartbeats", "silent"))) / len(answers),
                np.array([answer.seconds for answer in answers]),
                furthest,
                others,
                len(self.y),
            )
        )

    async def chaos(self, seconds: float) -> None:
        """Kills, stops and starts nodes at random while requests stream."""
        graph, end = self.artefact.graph, time.monotonic() + seconds
        fallible = [name for name in graph.fallible if name in graph.order]
        down: dict[str, str] = {}  # by node that does not work, why
        changes = [(time.monotonic() - self._began, frozenset[str]())]
        counts: collections.Counter[str] = collections.Counter()
        answers: list[tuple[int, float, Answer]] = []

        def changed() -> None:
            changes.append((time.monotonic() - self._began, frozenset(down)))

        async def change(name: str) -> None:
            if name not in down:
                down[name] = self.moments.choice(("kill", "kill", "stop"))
                changed()  # before: the answers to come may feel it already
                counts[down[name]] += 1
                self.event(name, "killed")
                if down[name] == "kill":
                    await self.processes.kill(name)
                else:
                    self.processes.signal(name, signal.SIGSTOP)
            else:
                if down[name] == "kill":
                    await self.processes.start(name)
                else:
                    self.processes.signal(name, signal.SIGCONT)
                self.event(name, "started")
                del down[name]
                changed()

        async def fail() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(self.moments.uniform(*CHANGE))
                await change(self.moments.choice(fallible))
            for name in list(down):
                await change(name)

        async def paced() -> AsyncIterator[np.ndarray]:
            number = 0
            while not failing.done():
                yield self.x[number % len(self.x)][None]
                number += 1
                await asyncio.sleep(self.pace)

        failing = asyncio.create_task(fail())
        async for answer in self.client.stream(paced(), standardised=True):
            answers.append((len(answers) % len(self.x), time.monotonic() - self._began, answer))
            self.note(answer)
        await failing
        good = [(n, answer) for n, _, answer in answers if answer.status == ANSWERED]
        silent = [(when, answer) for _, when, answer in answers if answer.status == NO_INFORMATION]
        self.trial.chaos = Chaos(
            seconds,
            counts["kill"],
            counts["stop"],
            len(good),
            len(silent),
            sum(unjust(self.artefact.manifest, when - answer.seconds, when, changes) for when, answer in silent),
            sum(answer.status == DEADLINE for _, _, answer in answers),
            self.client.repeated,
            sum(self.furthest(n, answer) > TOLERANCE for n, answer in good),
        )

    async def counters(self, failing: Sequence[str]) -> collections.Counter[str]:
        """What all living nodes have sent so far."""
        total: collections.Counter[str] = collections.Counter()
        for name, host in self.processes.placement.nodes.items():
            if name not in failing:
                channel = dial(host.address, name, None)
                read: Any = channel.unary_unary(
                    COUNTERS,
                    request_serializer=pb.CountersQuestion.SerializeToString,
                    response_deserializer=pb.CountersAnswer.FromString,
                )
                with contextlib.suppress(grpc.aio.AioRpcError):
                    total.update((await read(pb.CountersQuestion())).counts)
                await channel.close(None)
        return total


def unjust(manifest: Manifest, asked: float, answered: float, changes: Sequence[tuple[float, frozenset[str]]]) -> bool:
    """Whether nothing had changed for long enough when a request had no information, and a path was there.

    Args:
      manifest: of the network.
      asked: when the request was made, in seconds.
      answered: when it was answered.
      changes: when something changed, and which nodes did not work from then on; the first is before all requests.
    """
    edges = zip(manifest.graph.hyperconnections, manifest.present)
    skips = [edge for edge, there in edges if there and edge.is_skip]
    if any(asked - BOUND < when <= answered for when, _ in changes):
        return False
    down = next(nodes for when, nodes in reversed(changes) if when <= asked)
    return has_path(manifest.graph, down, skips)
