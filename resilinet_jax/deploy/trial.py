"""Runs every node of an artefact as a process on this machine, kills them for real, and compares with predictions.

Every failure combination is first brought about while requests stream, so that each answer has to be the simulator's
under the hyperconnections that its witness names. Then it is held while the whole test split is answered, so that
accuracy, messages and bytes have to be the predicted ones. Where this machine gives network namespaces, nodes are also
cut off without a word.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import math
import pathlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from jaxtyping import Num

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.artefact import Artefact, Predicted
from resilinet_jax.deploy.client import ANSWERED, DEADLINE, NO_INFORMATION, Answer, Client
from resilinet_jax.deploy.dialling import dial
from resilinet_jax.deploy.measured import (
    BACK,
    CUT,
    KILLED,
    STOPPED,
    Chaos,
    Event,
    Held,
    Struck,
    Trial,
    unjust,
)
from resilinet_jax.deploy.model import Model
from resilinet_jax.deploy.namespaces import Namespaces
from resilinet_jax.deploy.processes import Processes, loopback
from resilinet_jax.deploy.wire import COUNTERS
from resilinet_jax.errors import UserError

SETTLED = 20.0  # seconds that the network may take to be as predicted after a change
CHANGE = (0.05, 0.85)  # seconds between two changes under chaos


async def run_trial(
    artefact: Artefact,
    model: Model,
    x: Num[np.ndarray, "examples *features"],
    y: Num[np.ndarray, "examples *targets"],
    tell: Callable[[str], None],
    requests: int = 60,
    pace: float = 0.005,
    seed: int = 0,
    chaos_seconds: float = 0.0,
    strikes: int = 1,
    engine: str | None = None,
) -> Trial:
    """Brings about every failure combination that the manifest predicts.

    Args:
      artefact: to try.
      model: the same network in the simulator.
      x: the test split, standardised.
      y: its labels, or its numbers to predict as the network is trained on.
      tell: what is being done, in a line.
      requests: into which the test split is divided.
      pace: seconds between requests while nodes are killed.
      seed: of the moments at which nodes are killed.
      chaos_seconds: how long nodes and hyperconnections fail and come back at random afterwards.
      strikes: how often each node is killed, stopped and cut off by itself.
      engine: what computes all nodes; None for NumPy where it can, and JAX elsewhere.

    Raises:
      UserError: if nodes do not start, or the network does not become what the graph says.
    """
    rows = max(1, len(x) // requests)
    trial, random_moments = Trial(numbers=model.targets is not None), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="resilinet_jax.") as folder, contextlib.ExitStack() as stack:
        namespaces = None
        try:
            namespaces = stack.enter_context(Namespaces(artefact.graph))
        except UserError as error:
            trial.skipped.append(f"silent cuts: {error}")
        placement = loopback(artefact, rows, pathlib.Path(folder) / "certificates", namespaces, engine)
        trial.engines = {name: host.engine for name, host in placement.nodes.items()}
        async with Processes(artefact, placement, pathlib.Path(folder), namespaces) as processes:
            tell(f"starting {len(placement.nodes)} nodes")
            times = await asyncio.gather(*(processes.start(name) for name in placement.nodes))
            trial.started = dict(zip(placement.nodes, times))
            async with Client(artefact, placement, deadline=SETTLED) as client:
                await client.ready()
                run = _Run(artefact, model, x, y, rows, trial, processes, namespaces, client, random_moments, pace)
                await run.everything(tell)
                await run.one_by_one(strikes, tell)
                trial.idle = await run.idle()
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
    namespaces: Namespaces | None
    client: Client
    moments: random.Random
    pace: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._logits: dict[frozenset[str], np.ndarray] = {}
        # How each failure comes and goes.
        self.failures: dict[str, tuple[Callable[[str], Awaitable[object]], Callable[[str], Awaitable[object]]]] = {
            KILLED: (self.processes.kill, self.processes.start),
            STOPPED: (self.processes.stop, self.processes.go_on),
        }
        if self.namespaces is not None:
            self.failures[CUT] = self.namespaces.cut, self.namespaces.mend

    async def everything(self, tell: Callable[[str], None]) -> None:
        """Every failure combination, by SIGKILL; links are cut."""
        predictions = self.artefact.manifest.predicted
        for number, predicted in enumerate(predictions, 1):
            name = "+".join(predicted.failing) or "nothing"
            ways = {each: KILLED if each in self.artefact.graph.order else CUT for each in predicted.failing}
            if not set(ways.values()) <= self.failures.keys():
                self.trial.skipped.append(f"{name}: links can't be cut")
                continue
            tell(f"{number}/{len(predictions)}: {name} dead")
            async with self.failing(predicted, ways):
                await self.hold(predicted)

    async def one_by_one(self, strikes: int, tell: Callable[[str], None]) -> None:
        """Each node by itself, killed, stopped and cut off so many times."""
        alone = [each for each in self.artefact.manifest.predicted if len(each.failing) == 1]
        for way in self.failures:
            for predicted in [each for each in alone if each.failing[0] in self.artefact.graph.order]:
                for _ in range(strikes - (way == KILLED)):  # one has been
                    tell(f"{predicted.failing[0]} {way}")
                    async with self.failing(predicted, {predicted.failing[0]: way}):
                        pass

    @contextlib.asynccontextmanager
    async def failing(self, predicted: Predicted, ways: Mapping[str, str]) -> AsyncIterator[None]:
        """What fails so while requests stream, until the network has found its way, and comes back afterwards."""
        if ways:
            await self.strike(ways)
        await self.settle(predicted)
        yield
        await asyncio.gather(*(self.recover(name, way) for name, way in ways.items()))
        await self.settle(self.artefact.manifest.predicted[0])

    async def fail(self, name: str, way: str) -> None:
        """Has a node or hyperconnection fail."""
        self.event(name, way)
        await self.failures[way][0](name)

    async def recover(self, name: str, way: str) -> None:
        """Undoes `fail`."""
        await self.failures[way][1](name)
        self.event(name, BACK)

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

    async def strike(self, ways: Mapping[str, str]) -> None:
        """Has nodes and hyperconnections fail at random moments while requests stream."""
        answers: list[tuple[int, Answer]] = []
        count = 40
        moments = {name: self.moments.randint(15, 25) for name in ways}
        before = await self.counters(())

        async def paced() -> AsyncIterator[np.ndarray]:
            for request in range(count):
                for name, moment in moments.items():
                    if moment == request:
                        await self.fail(name, ways[name])
                yield self.x[request % len(self.x)][None]
                await asyncio.sleep(self.pace)

        async for answer in self.client.stream(paced(), standardised=True):
            answers.append((len(answers) % len(self.x), answer))
            self.note(answer)
        first = min(moments.values())
        usual = [answer.seconds for _, answer in answers[: max(1, first - 5)]]
        good = [(n, answer) for n, answer in answers if answer.status == ANSWERED]
        after = await self.counters(tuple(ways))
        self.trial.struck.append(
            Struck(
                ways,
                len(good),
                sum(answer.status == NO_INFORMATION for _, answer in answers),
                count - len(answers) + sum(answer.status == DEADLINE for _, answer in answers),
                sum(self.furthest(n, answer) > self.trial.tolerance for n, answer in good),
                sum(after[name] - before[name] for name in after if name.endswith(" replayed")),
                np.array(usual),
                max(answer.seconds for _, answer in answers[max(1, first - 5) :]),
            )
        )

    async def wire(self) -> float:
        """Bytes that have been sent so far, with all headers; NaN where nobody counts them."""
        return math.nan if self.namespaces is None else await self.namespaces.sent()

    async def idle(self) -> float:
        """Bytes a second that are sent, with all headers, while nobody asks."""
        wire, began = await self.wire(), time.monotonic()
        await asyncio.sleep(20 * self.processes.placement.heartbeat)
        return (await self.wire() - wire) / (time.monotonic() - began)

    async def hold(self, predicted: Predicted) -> None:
        """Answers the test split while nothing changes."""
        before = await self.counters(predicted.failing)
        wire, began = await self.wire(), time.monotonic()
        answers = []
        async for answer in self.client.stream(self.batches(), standardised=True):
            answers.append(answer)
            self.note(answer)
        took, wire = time.monotonic() - began, await self.wire() - wire
        sent = await self.counters(predicted.failing)
        while True:  # the cloud may have said that it has no information while values are still under way
            await asyncio.sleep(2 * self.processes.placement.heartbeat)
            later = await self.counters(predicted.failing)
            moved = [name for name in later if name.endswith(("messages", "silent")) and later[name] != sent[name]]
            sent = later
            if not moved:
                break
        sent.subtract(before)
        counts = {edge.name: sent[f"{edge.name} messages"] for edge in self.artefact.graph.hyperconnections}
        alive = {edge.name for edge in self.artefact.graph.hyperconnections if edge.target not in predicted.failing}
        size = sum(sent[f"{name} bytes"] for name in alive)
        score, apart, furthest, others = None, 0.0, 0.0, 0
        if all(answer.status == ANSWERED for answer in answers):
            said = np.concatenate([answer.logits for answer in answers if answer.logits is not None])[: len(self.y)]
            wanted = self.simulated(answers[0].witness)
            score = self.model.score(said, self.y)
            apart = abs(score - self.model.score(wanted, self.y))
            furthest = max(self.furthest(n * self.rows, answer) for n, answer in enumerate(answers))
            others = 0 if self.trial.numbers else int((said.argmax(1) != wanted.argmax(1)).sum())
        self.trial.held.append(
            Held(
                predicted,
                score,
                apart,
                {name: count / len(answers) for name, count in counts.items() if count},
                size / (len(answers) * self.rows),
                sum(count for name, count in sent.items() if name.endswith(("heartbeats", "silent"))) / len(answers),
                sum(count for name, count in sent.items() if name.endswith("framing")) / (len(answers) * self.rows),
                wire / (len(answers) * self.rows),
                sum(answer.status == ANSWERED for answer in answers) * self.rows / took,
                np.array([answer.seconds for answer in answers]),
                sum(answer.status == ANSWERED for answer in answers),
                sum(answer.status == DEADLINE for answer in answers),
                furthest,
                others,
            )
        )

    async def chaos(self, seconds: float) -> None:
        """Has nodes fail and come back at random while requests stream, and hyperconnections where they can be cut."""
        failures = _Failures(self)
        answers: list[tuple[int, float, Answer]] = []

        async def paced() -> AsyncIterator[np.ndarray]:
            number = 0
            while not failing.done():
                yield self.x[number % len(self.x)][None]
                number += 1
                await asyncio.sleep(self.pace)

        late = 0.0

        async def watch() -> None:
            nonlocal late
            while True:
                due = time.monotonic() + self.pace
                await asyncio.sleep(self.pace)
                late = max(late, time.monotonic() - due)

        watching = asyncio.create_task(watch())
        failing = asyncio.create_task(failures.until(time.monotonic() + seconds))
        async for answer in self.client.stream(paced(), standardised=True):
            answers.append((len(answers) % len(self.x), self.now(), answer))
            self.note(answer)
        await failing
        watching.cancel()
        good = [(n, answer) for n, _, answer in answers if answer.status == ANSWERED]
        silent = [(when, answer) for _, when, answer in answers if answer.status == NO_INFORMATION]
        manifest = self.artefact.manifest
        self.trial.chaos = Chaos(
            seconds,
            failures.counts[KILLED],
            failures.counts[STOPPED],
            failures.counts[CUT],
            len(good),
            len(silent),
            sum(unjust(manifest, when - answer.seconds, when, failures.changes) for when, answer in silent),
            sum(answer.status == DEADLINE for _, _, answer in answers),
            sum(self.furthest(n, answer) > self.trial.tolerance for n, answer in good),
            round(late, 3),
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
    """Nodes that are killed, stopped and brought back at random, and hyperconnections that are cut.

    Attributes:
      changes: when something changed, and what did not work from then on.
      counts: of failures, by how.
    """

    def __init__(self, run: _Run):
        graph, present = run.artefact.graph, run.artefact.manifest.present
        self._run = run
        nodes = [name for name in graph.fallible if name in graph.order]
        edges = [edge.name for edge, there in zip(graph.hyperconnections, present) if there]
        # Half of all failures are kills where there are three ways.
        self._ways = [(way, edges if way == CUT else nodes) for way in [*run.failures, KILLED]]
        self._down: dict[str, str] = {}  # by what does not work, how it failed
        self._returning: dict[str, asyncio.Task[None]] = {}
        self.changes = [(run.now(), frozenset[str]())]
        self.counts: collections.Counter[str] = collections.Counter()

    async def until(self, end: float) -> None:
        """Has things fail and come back until then, and all of them come back at last."""
        choice = self._run.moments.choice
        while time.monotonic() < end:
            await asyncio.sleep(self._run.moments.uniform(*CHANGE))
            waiting = [name for name in self._down if name not in self._returning]
            if waiting and self._run.moments.random() < 2 / 3:  # or nearly everything would be down nearly always
                self._return(choice(waiting))
                continue
            way, names = choice(self._ways)
            if working := [name for name in names if name not in self._down]:
                await self._fail(choice(working), way)
        for name in set(self._down) - set(self._returning):
            self._return(name)
        await asyncio.gather(*self._returning.values())

    async def _fail(self, name: str, way: str) -> None:
        self._down[name] = way
        self._changed()  # before: the answers to come may feel it already
        self.counts[way] += 1
        await self._run.fail(name, way)

    def _return(self, name: str) -> None:
        self._returning[name] = asyncio.create_task(self._bring_back(name))

    async def _bring_back(self, name: str) -> None:
        await self._run.recover(name, self._down[name])
        del self._down[name], self._returning[name]
        self._changed()

    def _changed(self) -> None:
        self.changes.append((self._run.now(), frozenset(self._down)))
