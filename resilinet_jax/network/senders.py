"""Who sends while some nodes and links are dead: the rule of gates in plain NumPy, for many survival masks at once.

`Network.node_sends` computes the same inside the compiled program, beside the activations.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from resilinet_jax.network.graph import Graph, Hyperconnection


class Senders(NamedTuple):
    """Who sends under each survival mask.

    Attributes:
      sends: by node, whether it is alive and receives something; a source always receives.
      arrives: whether something arrives over each hyperconnection: carried, and to a node that is alive.
    """

    sends: dict[str, Bool[np.ndarray, " masks"]]
    arrives: Bool[np.ndarray, "masks hyperconnections"]


def senders(
    graph: Graph,
    survival: Shaped[np.ndarray, "masks fallible"],
    present: Shaped[np.ndarray, " hyperconnections"] | None = None,
    always_active: bool = True,
) -> Senders:
    """Follows the nodes in data-flow order.

    Args:
      graph: of any shape.
      survival: a mask per row, in the order of `Graph.fallible`; above 0 is alive.
      present: above 0 where a hyperconnection exists; None for all.
      always_active: whether skips always carry (add), or only where the simple hyperconnection that they stand in for
        brings nothing (select).
    """
    survival = np.asarray(survival)
    always = np.ones(len(survival), bool)
    alive = dict(zip(graph.fallible, survival.T > 0))
    exists = np.ones(len(graph.hyperconnections), bool) if present is None else np.asarray(present) > 0
    sends = {source: alive.get(source, always) for source in graph.sources}
    arrives = np.zeros((len(survival), len(graph.hyperconnections)), bool)
    for node in graph.order[len(graph.sources) :]:
        brings: dict[str, np.ndarray] = {}  # by its sender, what each simple hyperconnection to this node does
        received = ~always
        for index, edge in graph.incoming(node):
            carries = sends[edge.source] & alive.get(edge.name, always) & exists[index]
            if not edge.is_skip:
                brings[edge.source] = carries
            elif not always_active:
                carries = carries & ~brings[edge.bypassed[-1]]
            received = received | carries
            arrives[:, index] = carries & alive.get(node, always)
        sends[node] = received & alive.get(node, always)
    return Senders(sends, arrives)


def has_path(graph: Graph, failed: Collection[str], skips: Collection[Hyperconnection] | None = None) -> bool:
    """Whether anything from a source still reaches the cloud.

    Args:
      graph: of any shape.
      failed: the nodes and links that are dead.
      skips: the skips that are present; None for all.
    """
    survival = np.array([[name not in failed for name in graph.fallible]], bool)
    present = [not edge.is_skip or skips is None or edge in skips for edge in graph.hyperconnections]
    return bool(senders(graph, survival, np.array(present, bool)).sends[graph.cloud][0])
