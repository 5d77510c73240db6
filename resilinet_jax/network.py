"""Composes stages along a graph. `Network.apply` is the only place where masks meet activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from resilinet_jax.cells import Numbers, Wiring
from resilinet_jax.errors import UserError
from resilinet_jax.graph import Graph

STATISTICS = "batch_stats"  # Flax's name for what batch normalisation keeps


class Variables(NamedTuple):
    """What a network's modules keep, by node and hyperconnection name.

    Attributes:
      params: what training optimises.
      statistics: running statistics of batch normalisation, of the modules that have any.
    """

    params: dict[str, Any]
    statistics: dict[str, Any]


class Output(NamedTuple):
    """What one forward pass leaves.

    Attributes:
      logits: what the cloud says; all zero where nothing arrived.
      informed: 1 if anything from the source arrived at the cloud, else 0.
      statistics: the running statistics after this pass; the given ones at inference.
    """

    logits: Float[Array, "batch classes"]
    informed: Float[Array, ""]
    statistics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A graph with a stage per node and an adapter per hyperconnection.

    Attributes:
      graph: how data flows.
      stages: by node name; called with what the node receives and whether this is training. A node without one
        passes on what it receives.
      adapters: by hyperconnection name; called with what the source sends. A hyperconnection without one carries
        it as it is.
    """

    graph: Graph
    stages: Mapping[str, nn.Module]
    adapters: Mapping[str, nn.Module]

    def init(self, key: Key[Array, ""], x: Num[Numbers, "batch *features"]) -> Variables:
        """Initial variables by node and hyperconnection name.

        Args:
          key: each stage and adapter draws from its own fold of it.
          x: an example input; only its shape matters.

        Raises:
          UserError: if the shapes that meet at a node differ.
        """
        variables = Variables({}, {})
        output: dict[str, Array] = {}

        def run(name: str, module: nn.Module | None, *inputs: Any) -> Array:
            if module is None:
                return inputs[0]
            own = jax.random.fold_in(key, len(variables.params))
            value, made = module.init_with_output(own, *inputs)
            variables.params[name] = made["params"]
            if STATISTICS in made:
                variables.statistics[name] = made[STATISTICS]
            return value

        for node in self.graph.order:
            if node == self.graph.source:
                incoming = jnp.asarray(x)
            else:
                values = {
                    edge.name: run(edge.name, self.adapters.get(edge.name), output[edge.source])
                    for _, edge in self.graph.incoming(node)
                }
                if len({value.shape for value in values.values()}) > 1:
                    told = ", ".join(f"{name} {value.shape}" for name, value in values.items())
                    raise UserError(f"node {node!r} can't sum what it receives: {told}; add an adapter")
                incoming = jnp.stack(list(values.values())).sum(0)
            output[node] = run(node, self.stages.get(node), incoming, False)
        return variables

    def apply(
        self,
        variables: Variables,
        x: Num[Numbers, "batch *features"],
        survival: Float[Array, " nodes"],
        wiring: Wiring,
        training_key: Key[Array, ""] | None = None,
    ) -> Output:
        """One forward pass under a survival mask.

        A node sends if it is alive and receives something from a node that sends; the source always sends. A
        skip stands in for u->t, the last simple hyperconnection of the path it bypasses: its gate is
        max(activity, 1 - sends(u)). What does not send is exactly zero, biases included, and its running
        statistics stay as they were.

        Args:
          variables: from `init`.
          x: a batch of inputs.
          survival: 1 = alive, 0 = failed, in the order of `graph.fallible`.
          wiring: the cell's hyperconnections in this pass.
          training_key: in training, of the step, for dropout; None at inference.

        Source: Yousefpour et al. 2020, section 2; README, "Methods".
        """
        graph = self.graph
        statistics = dict(variables.statistics)

        def adapt(name: str, value: Array) -> Array:
            if name not in self.adapters:
                return value
            return jnp.asarray(self.adapters[name].apply({"params": variables.params[name]}, value))

        def compute(node: str, value: Array) -> Array:
            if node not in self.stages:
                return value
            given = {"params": variables.params[node]}
            if node in statistics:
                given[STATISTICS] = statistics[node]
            if training_key is None:
                return jnp.asarray(self.stages[node].apply(given, value, False))
            key = jax.random.fold_in(training_key, graph.order.index(node))
            result, updated = self.stages[node].apply(given, value, True, rngs={"dropout": key}, mutable=[STATISTICS])
            if node in statistics:
                keep = lambda old, new: jnp.where(sends[node] > 0, new, old)  # noqa: E731
                statistics[node] = jax.tree.map(keep, statistics[node], updated[STATISTICS])
            return result

        alive = {graph.source: jnp.ones(()), graph.cloud: jnp.ones(())} | dict(zip(graph.fallible, survival))
        sends = {graph.source: alive[graph.source]}
        output = {graph.source: compute(graph.source, jnp.asarray(x))}
        for node in graph.order[1:]:
            carries, received = [], []
            for i, edge in graph.incoming(node):
                gate = jnp.maximum(wiring.activity[i], 1 - sends[edge.bypassed[-1]]) if edge.is_skip else 1.0
                carried = wiring.present[i] * gate * sends[edge.source]
                carries.append(carried)
                received.append(wiring.weight[i] * _masked(carried, adapt(edge.name, output[edge.source])))
            sends[node] = alive[node] * jnp.stack(carries).max()
            output[node] = _masked(sends[node], compute(node, sum(received[1:], received[0])))
        return Output(output[graph.cloud], sends[graph.cloud], statistics)


def _masked(factor: Float[Array, ""], value: Array) -> Array:
    """`factor * value`, and exactly zero where the factor is, even if the value overflowed: 0 * inf is NaN."""
    return factor * jnp.where(factor > 0, value, 0.0)
