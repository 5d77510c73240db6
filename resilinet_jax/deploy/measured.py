"""What a trial of running nodes has measured, and what of it is not as predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from resilinet_jax.deploy.artefact import Manifest, Predicted
from resilinet_jax.deploy.engines import TOLERANCES
from resilinet_jax.network.senders import senders
from resilinet_jax.results.metric_names import ACCURACY, METRIC_NAMES, R2, MetricName

ROUNDING = 1e-6  # of a score when it was stored
OF_SUMS = 1e-5  # of squared errors that the simulation sums up in float32
BOUND = 2.0  # seconds that a path must have been whole before an answer can rely on it: to dial, and to be believed
KILLED, STOPPED, CUT, BACK = "killed", "stopped", "cut off", "back"  # what happens to nodes and hyperconnections


@dataclasses.dataclass(frozen=True)
class Held:
    """What was measured while a failure combination was held.

    Attributes:
      predicted: what the simulation says of it.
      score: on the test split, as predicted; None where nothing reached the cloud, and the simulation guesses.
      apart: by how much it differs from the simulator's score over the same hyperconnections.
      messages: values that were sent over each hyperconnection, for each request.
      bytes: of values, for one example.
      overhead: heartbeats and other messages without values, for each request.
      framing: bytes of messages that are no values, for one example.
      wire: bytes that nodes and client sent with all headers, heartbeats, questions and answers, for one example; NaN
        where nobody counted them.
      rate: examples answered in a second.
      seconds: each request's latency.
      answered: requests that were answered.
      lost: requests without an answer.
      furthest: the largest difference of a logit from the simulator's, for the size of the logits.
      others: test examples whose class differs from the simulator's; 0 where numbers are predicted.
    """

    predicted: Predicted
    score: float | None
    apart: float
    messages: dict[str, float]
    bytes: float
    overhead: float
    framing: float
    wire: float
    rate: float
    seconds: Float[np.ndarray, " requests"]
    answered: int
    lost: int
    furthest: float
    others: int


@dataclasses.dataclass(frozen=True)
class Struck:
    """What was measured while something failed.

    Attributes:
      ways: what failed, and how.
      answered: requests that were answered.
      uninformed: requests that were answered with "no information".
      lost: requests without an answer.
      wrong: answers that are not the simulator's under their own witness.
      replayed: outputs that living nodes had kept and sent again.
      usual: latency of the requests before, in seconds.
      longest: the longest latency after it.
    """

    ways: Mapping[str, str]
    answered: int
    uninformed: int
    lost: int
    wrong: int
    replayed: int
    usual: Float[np.ndarray, " requests"]
    longest: float

    @property
    def name(self) -> str:
        """What failed, and how."""
        ways = sorted(set(self.ways.values()))
        return "; ".join(f"{', '.join(n for n in self.ways if self.ways[n] == way)} {way}" for way in ways)


@dataclasses.dataclass(frozen=True)
class Chaos:
    """What was measured while nodes were killed, stopped, cut off and brought back at random.

    Attributes:
      seconds: how long.
      kills: nodes killed, by SIGKILL.
      stops: nodes stopped for a while, by SIGSTOP.
      cuts: hyperconnections that were cut for a while without a word.
      answered: requests that were answered.
      uninformed: requests that were answered with "no information".
      unjust: those of them for which a path had been whole all the time, and for `BOUND` before.
      lost: requests without an answer.
      wrong: answers that are not the simulator's under their own witness.
      late: the most seconds by which a timer of this process was late: so long the machine has let one wait. From
        `suspicion` on, living nodes are taken for dead; what comes of that counts all the same.
    """

    seconds: float
    kills: int
    stops: int
    cuts: int
    answered: int
    uninformed: int
    unjust: int
    lost: int
    wrong: int
    late: float


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened in a trial, for its timeline: when, in seconds; to what; what."""

    seconds: float
    name: str
    what: str


@dataclasses.dataclass
class Trial:
    """All that a trial has measured.

    Attributes:
      held: by failure combination.
      struck: by failure, in the order in which they came.
      events: what failed and came back.
      answers: when each request was answered in seconds, its latency, and its status.
      started: seconds from a process' start to its being ready, by node.
      memory: resident bytes of each node's process.
      engines: what computes each node.
      skipped: what a trial on this machine can't bring about, and why.
      chaos: what was measured under random failures; None if that was not asked for.
      twice: requests that were answered more than once.
      idle: bytes a second that were sent with all headers while nobody asked; NaN where nobody counted them.
      numbers: whether numbers are predicted, and not classes.
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
    twice: int = 0
    idle: float = float("nan")
    numbers: bool = False

    @property
    def metric(self) -> MetricName:
        """By which scores are told."""
        return R2 if self.numbers else METRIC_NAMES[ACCURACY]

    @property
    def tolerance(self) -> float:
        """How far logits may be from the simulator's, for their size, by what computes them."""
        return max(TOLERANCES[engine] for engine in self.engines.values())

    def failed(self) -> list[str]:
        """Every expectation that was not met, in a line each."""
        lines = []
        for each in self.held:
            name = "+".join(each.predicted.failing) or "nothing"
            wanted, count = each.predicted.score, len(each.seconds)
            if each.lost:
                lines.append(f"{name} dead: {each.lost} requests were lost")
            if each.answered != (expected_answers := count if each.predicted.informed else 0):
                lines.append(f"{name} dead: {each.answered} of {count} requests answered, expected {expected_answers}")
            # An example whose two best classes are equal to rounding may fall either way.
            allowed = (OF_SUMS if self.numbers else ROUNDING) + each.apart
            if each.score is not None and abs(each.score - wanted) > allowed:
                lines.append(f"{name} dead: {self.metric.name} {each.score:.4%}, predicted {wanted:.4%}")
            if each.furthest > self.tolerance:
                lines.append(f"{name} dead: a logit differs by {each.furthest:.1g} from the simulator's")
            expected = dict.fromkeys(each.predicted.messages, 1.0)
            if each.messages != expected:
                lines.append(f"{name} dead: messages {each.messages}, predicted {expected}")
            if each.bytes != each.predicted.bytes:
                lines.append(f"{name} dead: {each.bytes:g} bytes an example, predicted {each.predicted.bytes}")
        for hit in self.struck:
            if hit.lost:
                lines.append(f"{hit.name}: {hit.lost} requests were lost")
            if hit.wrong:
                lines.append(f"{hit.name}: {hit.wrong} answers are not the simulator's under their witness")
        if self.twice:
            lines.append(f"{self.twice} requests were answered more than once")
        for what in ("unjust", "lost", "wrong") if self.chaos is not None else ():
            if count := getattr(self.chaos, what):
                lines.append(f"chaos: {count} requests {_CHAOS[what]}")
        return lines


_CHAOS = {
    "unjust": 'were answered with "no information" although a path was there',
    "lost": "were lost",
    "wrong": "have answers that are not the simulator's under their witness",
}


def unjust(manifest: Manifest, asked: float, answered: float, changes: Sequence[tuple[float, frozenset[str]]]) -> bool:
    """Whether a request had no information although a path was whole all the time.

    Args:
      manifest: of the network.
      asked: when the request was made, in seconds.
      answered: when it was answered.
      changes: when something changed, and which nodes and hyperconnections did not work from then on; the first is
        before all requests.
    """
    graph = manifest.graph
    ends = [when for when, _ in changes[1:]] + [float("inf")]
    down = frozenset().union(
        *(broken for (since, broken), end in zip(changes, ends) if since <= answered and end >= asked - BOUND)
    )
    edges = zip(graph.hyperconnections, manifest.present)
    whole = np.array([there and edge.name not in down for edge, there in edges])
    survival = np.array([[name not in down for name in graph.fallible]])
    return bool(senders(graph, survival, whole).sends[graph.cloud][0])
