"""Which failure combinations are evaluated: all of them, or the most probable ones of a graph with too many.

2^V combinations of V nodes can't be enumerated for long. But few of them weigh anything where failures are rare, and
those that leave no path need no computation: their accuracy is that of guessing, and their probability is known. So
an average accuracy lies in an interval as wide as the probability of what was left out.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float

from resilinet_jax.errors import UserError
from resilinet_jax.failures.model import FailureModel, mask_probabilities
from resilinet_jax.network.graph import Graph
from resilinet_jax.network.senders import senders

MOST_NODES = 14  # that may fail, for all combinations to be evaluated
MOST_COMBINATIONS = 2**20  # looked at for one failure setting, however little they weigh
MOST_STATES = 2**20  # of nodes, alive or failed, in all combinations evaluated for a failure setting: minutes of work


@dataclasses.dataclass(frozen=True)
class Combinations:
    """The failure combinations of a graph that are evaluated.

    Attributes:
      graph: the scenario's.
      survival: a mask per row, in the order of `graph.fallible`.
      complete: whether these are all. If not, the last row stands for all those under which nothing reaches the
        cloud, and each other one leaves a path.
    """

    graph: Graph
    survival: Float[np.ndarray, "combinations fallible"]
    complete: bool

    @property
    def failing_sets(self) -> list[tuple[str, ...]]:
        """The names of the failing nodes of each combination."""
        if self.complete:
            return failing_sets(self.graph.fallible)
        names = np.array(self.graph.fallible)
        return [tuple(names[mask == 0].tolist()) for mask in self.survival]

    def probabilities(self, failure_probability: Float[np.ndarray, " causes"]) -> Float[np.ndarray, " combinations"]:
        """Probability of each combination; they sum to 1 minus the mass of those left out.

        Args:
          failure_probability: of each of `Graph.causes`, which are independent.
        """
        asked = np.asarray(failure_probability, np.float64)
        if asked.tobytes() not in self._probabilities:
            total = FailureModel(self.graph).probabilities(self.survival, asked)
            if not self.complete:
                total[-1] = 1 - information_probability(self.graph, asked[: len(self.graph.fallible)])
            self._probabilities[asked.tobytes()] = total
        return self._probabilities[asked.tobytes()]

    @functools.cached_property
    def _probabilities(self) -> dict[bytes, np.ndarray]:
        """Those that were asked for: a report asks for the same ones hundreds of times."""
        return {}

    def left_out(self, failure_probability: Float[np.ndarray, " causes"]) -> float:
        """Probability that a combination occurs which is not evaluated."""
        return 0.0 if self.complete else max(0.0, 1 - float(self.probabilities(failure_probability).sum()))


def all_combinations(graph: Graph) -> Combinations:
    """All failure combinations of a graph, in the order of `failing_sets`."""
    return Combinations(graph, failure_combinations(graph.fallible), complete=True)


def choose_combinations(
    graph: Graph, failure_probabilities: Collection[Float[np.ndarray, " causes"]], tolerance: float
) -> Combinations:
    """All combinations of up to `MOST_NODES` nodes; else those that matter under any of the failure settings.

    Args:
      graph: of the scenario.
      failure_probabilities: of each failure setting.
      tolerance: how wide the interval of an average accuracy may be, as a fraction.

    Raises:
      UserError: for a graph with groups and too much that may fail.
    """
    if graph.groups and max(len(graph.fallible), len(graph.groups)) > MOST_NODES:
        raise UserError(
            f"where groups fail together, at most {MOST_NODES} nodes and links and as many groups may fail, got "
            f"{len(graph.fallible)} and {len(graph.groups)}; leave out groups or links"
        )
    if len(graph.fallible) <= MOST_NODES:
        return all_combinations(graph)
    likely = [likely_combinations(graph, failure, tolerance) for failure in failure_probabilities]
    rows = dict.fromkeys(mask.tobytes() for masks in likely for mask in masks)  # each once, in order
    survival = np.frombuffer(b"".join(rows), np.float32).reshape(-1, len(graph.fallible))
    silent = np.zeros((1, len(graph.fallible)), np.float32)
    return Combinations(graph, np.concatenate([survival, silent]), complete=False)


def information_probability(graph: Graph, failure_probability: Float[np.ndarray, " fallible"]) -> float:
    """Probability that anything from a source reaches the cloud, with every skip present; exact.

    Goes through the nodes in order and keeps the distribution of who sends among those that a later node hears,
    which takes 2^(width of the graph) steps a node instead of 2^nodes.

    Args:
      graph: of any length.
      failure_probability: of all that may fail, independently of each other.

    Raises:
      UserError: if too many nodes that may fail send side by side.
    """
    failure = dict(zip(graph.fallible, failure_probability))
    order = graph.order
    last_heard = {edge.source: order.index(edge.target) for edge in graph.hyperconnections}
    distribution = {frozenset[str](): 1.0}
    for number, node in enumerate(order):
        after: dict[frozenset[str], float] = collections.defaultdict(float)
        for sending, probability in distribution.items():
            kept = frozenset(sender for sender in sending if last_heard[sender] > number)
            links = [failure.get(edge.name, 0.0) for _, edge in graph.incoming(node) if edge.source in sending]
            unheard = 0.0 if node in graph.sources else math.prod(links)
            silent = 1 - (1 - unheard) * (1 - failure.get(node, 0.0))
            for now, share in ((kept | {node}, 1 - silent), (kept, silent)):
                if share > 0:
                    after[now] += probability * share
        if len(after) > MOST_COMBINATIONS:
            raise UserError(
                f"at {node}, nodes may send in more than {MOST_COMBINATIONS:,} ways; "
                "let fewer nodes that may fail send side by side"
            )
        distribution = after
    return distribution.get(frozenset([graph.cloud]), 0.0)


def likely_combinations(
    graph: Graph, failure_probability: Float[np.ndarray, " fallible"], tolerance: float
) -> Float[np.ndarray, "combinations nodes"]:
    """The most probable masks under which anything reaches the cloud, until those left out weigh `tolerance`.

    Args:
      graph: of any size.
      failure_probability: of all that may fail, independently of each other.
      tolerance: the probability that may be left out; more is if `MOST_COMBINATIONS` and `MOST_STATES` don't allow it.
    """
    failure = np.asarray(failure_probability, np.float64)
    reachable = information_probability(graph, failure)
    usual = failure <= 0.5
    # What a node adds to the negative logarithm of the probability when it is not in its usual state.
    with np.errstate(divide="ignore"):
        cost = np.abs(np.log(failure) - np.log1p(-failure))
    limit, total = 0.0, 2 ** int(np.isfinite(cost).sum())
    while True:
        survival = np.where(_subsets(cost, limit), ~usual, usual).astype(np.float32)
        examined = len(survival)
        survival = survival[senders(graph, survival).sends[graph.cloud]]
        probability = mask_probabilities(survival, failure)
        if reachable - probability.sum() <= tolerance or examined >= min(total, MOST_COMBINATIONS):
            break
        limit += 0.25
    order = np.argsort(-probability, kind="stable")
    enough = np.searchsorted(np.cumsum(probability[order]), reachable - tolerance) + 1
    return survival[order[: min(enough, MOST_COMBINATIONS, MOST_STATES // len(failure))]]


def _subsets(cost: Float[np.ndarray, " nodes"], limit: float) -> Bool[np.ndarray, "subsets nodes"]:
    """All subsets whose costs sum to at most `limit`, or the `MOST_COMBINATIONS` cheapest."""
    subsets, sums = np.zeros((1, len(cost)), bool), np.zeros(1)
    for node, own in enumerate(cost):
        more = np.flatnonzero(sums + own <= limit)
        joined = subsets[more]
        joined[:, node] = True
        subsets, sums = np.concatenate([subsets, joined]), np.concatenate([sums, sums[more] + own])
        if len(sums) > MOST_COMBINATIONS:  # whatever follows adds as much to each
            cheapest = np.sort(np.argpartition(sums, MOST_COMBINATIONS)[:MOST_COMBINATIONS])
            subsets, sums = subsets[cheapest], sums[cheapest]
    return subsets


def failing_sets(nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """Every way in which nodes can fail, in the order of the paper's Table 2: none, each one, each pair, ..., all."""
    return [failing for size in range(len(nodes) + 1) for failing in itertools.combinations(nodes, size)]


def combination_name(failing: Sequence[str]) -> str:
    """`none`, or the failing nodes joined by a plus sign: `n1+n3`."""
    return "+".join(failing) or "none"


def failure_combinations(nodes: Sequence[str]) -> Float[np.ndarray, "combinations nodes"]:
    """The survival masks of `failing_sets(nodes)`, in the same order."""
    return np.array(
        [[float(node not in failing) for node in nodes] for failing in failing_sets(nodes)], np.float32
    ).reshape(2 ** len(nodes), len(nodes))
