"""What a trial of running nodes has measured, and what of it is not as predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from resilinet_jax.deploy.artefact import Manifest, Predicted
from resilinet_jax.network.senders import has_path

TOLERANCE = 1e-5  # of logits, for their size
BOUND = 1.0  # seconds after a change in which there may be no information: twice the suspicion


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
      answered: requests that were answered.
      lost: requests without an answer.
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
    answered: int
    lost: int
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
      wrong: answers that are not the simulator's under their own witness.
    """

    seconds: float
    kills: int
    stops: int
    answered: int
    uninformed: int
    unjust: int
    lost: int
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
      twice: requests that were answered more than once.
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

    def failed(self) -> list[str]:
        """Every expectation that was not met, in a line each."""
        lines = []
        for each in self.held:
            name = "+".join(each.predicted.failing) or "nothing"
            wanted, count = each.predicted.accuracy, len(each.seconds)
            if each.lost:
                lines.append(f"{name} dead: {each.lost} requests were lost")
            if each.answered != (expected_answers := count if each.predicted.informed else 0):
                lines.append(f"{name} dead: {each.answered} of {count} requests answered, expected {expected_answers}")
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
