"""What an inference costs: messages and bytes over each hyperconnection, and what is bought with them.

A message is what a node sends for one example, before any adapter, which belongs to the receiver. It counts where it
arrives: its sender sends, its hyperconnection is there and has not failed, its gate is open, and its receiver is
alive. A receiver that is dead takes no connection, so nothing is carried to it, and nobody there asks a skip to stand
in. What the network does besides (that a node is found silent, that a skip is asked) is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Bool, Float

from resilinet_jax.cells import Cell
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.network.graph import Graph
from resilinet_jax.network.senders import senders

if TYPE_CHECKING:
    from resilinet_jax.network.forward import Network


def messages(
    graph: Graph, cell: Cell, survival: Float[np.ndarray, "combinations fallible"]
) -> Bool[np.ndarray, "combinations hyperconnections"]:
    """Whether a message arrives over each hyperconnection, for one inference under each mask.

    Args:
      graph: of the scenario.
      cell: of which the present hyperconnections count, and the activity of skips at inference.
      survival: a mask per row, in the order of `graph.fallible`.
    """
    return senders(graph, survival, np.asarray(cell.present), bool(cell.inference_activity)).arrives


def expected_messages(
    combinations: Combinations, cell: Cell, failure_probability: Float[np.ndarray, " causes"]
) -> tuple[Float[np.ndarray, " hyperconnections"], Float[np.ndarray, " hyperconnections"]]:
    """Lower and upper bound of the expected messages per inference, over each hyperconnection.

    The sum over survival masks b of P(b) * messages(b). Both are the same where all combinations are there. Else the
    second one counts a message over every present hyperconnection wherever it is not known who sends: under the
    combinations left out, and under those that leave no path, which share one row.

    Args:
      combinations: that are summed over.
      cell: as in `messages`.
      failure_probability: as in `Combinations.probabilities`.
    """
    probability = combinations.probabilities(failure_probability)
    low = probability @ messages(combinations.graph, cell, combinations.survival).astype(float)
    unknown = 0.0 if combinations.complete else max(0.0, 1 - float(probability[:-1].sum()))
    return low, low + unknown * np.asarray(cell.present, float)


def message_bytes(network: Network, examples: jax.ShapeDtypeStruct) -> dict[str, int]:
    """Size of a message, by the name of the node that sends it; the cloud sends none.

    Activations are as wide as the program computes them (float32: four bytes a number). A source that hosts no stage
    sends its raw input as it is stored.

    Args:
      network: of the scenario.
      examples: shape and type of its input; the number of examples does not matter.
    """
    one = jax.ShapeDtypeStruct((1, *examples.shape[1:]), examples.dtype)
    sizes = network.output_bytes(network.shapes(examples), one)
    return {node: size for node, size in sizes.items() if node != network.graph.cloud}


def hyperconnection_bytes(graph: Graph, sizes: Mapping[str, int]) -> Float[np.ndarray, " hyperconnections"]:
    """Size of a message over each hyperconnection, from `message_bytes`."""
    return np.array([sizes[edge.source] for edge in graph.hyperconnections], float)


def pareto_front(
    cost: Float[np.ndarray, " points"], worth: Float[np.ndarray, " points"]
) -> Bool[np.ndarray, " points"]:
    """Whether each point is on the Pareto front: no other one beats it.

    One beats another if it costs at most as much and is worth at least as much, and is better in one of the two. Equal
    points are on the front together; one that is not known (NaN) is not on it, and beats none.
    """
    no_dearer, no_worse = cost[:, None] <= cost[None], worth[:, None] >= worth[None]
    better = (cost[:, None] < cost[None]) | (worth[:, None] > worth[None])
    beaten = (no_dearer & no_worse & better).any(0)
    return np.isfinite(cost) & np.isfinite(worth) & ~beaten
