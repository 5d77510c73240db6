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
import pathlib
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from jaxtyping import Int, Num

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.artefact import Artefact, Predicted
from resilinet_jax.deploy.client import ANSWERED, DEADLINE, NO_INFORMATION, Answer, Client
from resilinet_jax.deploy.measured import TOLERANCE, Chaos, Event, Held, Struck, Trial, unjust
from resilinet_jax.deploy.model import Model
from resilinet_jax.deploy.node import dial
from resilinet_jax.deploy.processes import Processes, loopback
from resilinet_jax.deploy.wire import COUNTERS
from resilinet_jax.errors import UserError

SETTLED = 20.0  # seconds that the network may take to be as predicted after a change
CHANGE = (0.05, 2.0)  # seconds between two changes under chaos


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
        placement = loopback(artefact, rows, pathlib.Path(folder) / "certificates")
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
                trial.memory, trial.twice = processes.memory(), client.repeated
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

    def now(self) -> float:
        """Seconds since the trial has begun."""
        return time.monotonic() - self._began

    def event(self, node: str, what: str) -> None:
        """Notes what happens to a node."""
        self.trial.events.append(Event(self.now(), node, what))

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
        self.trial.answers.append((self.now(), answer.seconds, answer.status))

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
        answers: list[tuple[int, Answer]] = []
        count = 40
        moments = {node: self.moments.randint(15, 25) for node in failing}

        async def paced() -> AsyncIterator[np.ndarray]:
            for request in range(count):
                for node, moment in moments.items():
                    if moment == request:
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
                sum(answer.status == ANSWERED for answer in answers),
                sum(answer.status == DEADLINE for answer in answers),
                furthest,
                others,
                len(self.y),
            )
        )

    async def chaos(self, seconds: float) -> None:
        """Kills, stops and starts nodes at random while requests stream."""
        failures = _Failures(self)
        answers: list[tuple[int, float, Answer]] = []

        async def paced() -> AsyncIterator[np.ndarray]:
            number = 0
            while not failing.done():
                yield self.x[number % len(self.x)][None]
                number += 1
                await asyncio.sleep(self.pace)

        failing = asyncio.create_task(failures.until(time.monotonic() + seconds))
        async for answer in self.client.stream(paced(), standardised=True):
            answers.append((len(answers) % len(self.x), self.now(), answer))
            self.note(answer)
        await failing
        good = [(n, answer) for n, _, answer in answers if answer.status == ANSWERED]
        silent = [(when, answer) for _, when, answer in answers if answer.status == NO_INFORMATION]
        manifest = self.artefact.manifest
        self.trial.chaos = Chaos(
            seconds,
            failures.counts["kill"],
            failures.counts["stop"],
            len(good),
            len(silent),
            sum(unjust(manifest, when - answer.seconds, when, failures.changes) for when, answer in silent),
            sum(answer.status == DEADLINE for _, _, answer in answers),
            sum(self.furthest(n, answer) > TOLERANCE for n, answer in good),
        )

    async def counters(self, failing: Sequence[str]) -> collections.Counter[str]:
        """What all living nodes have sent so far."""
        total: collections.Counter[str] = collections.Counter()
        for name, host in self.processes.placement.nodes.items():
            if name not in failing:
                channel = dial(host.address, name, self.client.certificates)
                read: Any = channel.unary_unary(
                    COUNTERS,
                    request_serializer=pb.CountersQuestion.SerializeToString,
                    response_deserializer=pb.CountersAnswer.FromString,
                )
                with contextlib.suppress(grpc.aio.AioRpcError):
                    total.update((await read(pb.CountersQuestion())).counts)
                await channel.close(None)
        return total


class _Failures:
    """Nodes that are killed, stopped and started at random.

    Attributes:
      changes: when something changed, and which nodes did not work from then on.
      counts: of kills and stops.
    """

    def __init__(self, run: _Run):
        graph = run.artefact.graph
        self._run, self._fallible = run, [name for name in graph.fallible if name in graph.order]
        self._down: dict[str, str] = {}  # by node that does not work, why
        self.changes = [(run.now(), frozenset[str]())]
        self.counts: collections.Counter[str] = collections.Counter()

    async def until(self, end: float) -> None:
        """Has nodes fail and come back until then, and all of them come back at last."""
        while time.monotonic() < end:
            await asyncio.sleep(self._run.moments.uniform(*CHANGE))
            await self._change(self._run.moments.choice(self._fallible))
        for name in list(self._down):
            await self._change(name)

    async def _change(self, name: str) -> None:
        run = self._run
        if name not in self._down:
            how = self._down[name] = run.moments.choice(("kill", "kill", "stop"))
            self._changed()  # before: the answers to come may feel it already
            self.counts[how] += 1
            run.event(name, "killed")
            if how == "kill":
                await run.processes.kill(name)
            else:
                run.processes.signal(name, signal.SIGSTOP)
        else:
            if self._down[name] == "kill":
                await run.processes.start(name)
            else:
                run.processes.signal(name, signal.SIGCONT)
            run.event(name, "started")
            del self._down[name]
            self._changed()

    def _changed(self) -> None:
        self.changes.append((self._run.now(), frozenset(self._down)))
