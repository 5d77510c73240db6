"""Which stage applications a set of failure combinations needs, each once. No JAX.

What a node computes depends only on what reaches it, and many failure combinations bring it the same. In a chain of
V fallible nodes with skips around each, V = 3 needs 11 applications where one pass per combination takes 32, and
V = 14 needs 2,582 where it takes 245,760.

The plan depends on the graph alone: weights, gates and removed skips stay data, so one plan serves every cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from resilinet_jax.network.graph import Graph

NOTHING = -1  # in place of the number of an application: that node sends nothing


@dataclasses.dataclass(frozen=True)
class Plan:
    """Stage applications by node, numbered from 0 for each.

    Attributes:
      incoming: by node, in data-flow order without the sources, one row per application: for each hyperconnection of
        `Graph.incoming`, the number of its sender's application whose output it brings, or `NOTHING`.
      cloud: the cloud's application for each failure combination, or `NOTHING` where no path is left.
    """

    incoming: Mapping[str, Int[np.ndarray, "applications hyperconnections"]]
    cloud: Int[np.ndarray, " combinations"]

    @property
    def applications(self) -> int:
        """Number of stage applications of all nodes but the sources; a source has one, for all combinations."""
        return sum(map(len, self.incoming.values()))

    @property
    def answers(self) -> int:
        """Number of stage applications of the cloud, the last node."""
        return len(list(self.incoming.values())[-1])


def plan_applications(graph: Graph, survival: Float[np.ndarray, "combinations nodes"]) -> Plan:
    """Numbers the distinct applications that these failure combinations need.

    Two combinations share an application of a node if every hyperconnection brings the node the same application of
    its sender, or nothing, in both. That settles gates as well: a skip stands in for a hyperconnection to the same
    node.

    Args:
      graph: with the skips that any cell may have.
      survival: a mask per row, in the order of `graph.fallible`.
    """
    alive = dict(zip(graph.fallible, np.asarray(survival).T > 0))
    # Of each node in each combination: the number of its application, or NOTHING.
    state = {source: np.where(alive.get(source, np.ones(len(survival), bool)), 0, NOTHING) for source in graph.sources}
    incoming = {}
    for node in graph.order[len(graph.sources) :]:
        received = np.stack(
            [np.where(alive.get(edge.name, True), state[edge.source], NOTHING) for _, edge in graph.incoming(node)], 1
        )
        computes = (received != NOTHING).any(1) & alive.get(node, True)
        state[node] = np.full(len(survival), NOTHING)
        if computes.any():
            incoming[node], numbers = np.unique(received[computes], axis=0, return_inverse=True)
            state[node][computes] = numbers.reshape(-1)
        else:  # an idle application, so that no array of outputs is empty
            incoming[node] = np.full((1, received.shape[1]), NOTHING)
    return Plan(incoming, state[graph.cloud])
