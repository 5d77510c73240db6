"""Composes stages along a graph. `Network.apply` is the only place where masks meet activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from resilinet_jax.cells import Numbers, Wiring
from resilinet_jax.errors import UserError
from resilinet_jax.graph import Graph

Params = dict[str, Any]


class Output(NamedTuple):
    """What arrives at the cloud.

    Attributes:
      logits: all zero where nothing arrived.
      informed: 1 if anything from the source arrived, else 0.
    """

    logits: Float[Array, "batch classes"]
    informed: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Network:
    """A graph with a stage per node and an adapter per hyperconnection.

    Attributes:
      graph: how data flows.
      stages: by node name; a node without one passes on what it receives.
      adapters: by hyperconnection name; one without passes on what its source sends.
    """

    graph: Graph
    stages: Mapping[str, nn.Module]
    adapters: Mapping[str, nn.Module]

    def init(self, key: Key[Array, ""], x: Float[Numbers, "batch *features"]) -> Params:
        """Initial parameters by node and hyperconnection name.

        Args:
          key: each stage and adapter draws from its own fold of it.
          x: an example input; only its shape matters.

        Raises:
          UserError: if the shapes that meet at a node differ.
        """
        params: Params = {}
        output: dict[str, Array] = {}

        def run(name: str, module: nn.Module | None, inputs: Array) -> Array:
            if module is None:
                return inputs
            value, params[name] = module.init_with_output(jax.random.fold_in(key, len(params)), inputs)
            return value

        for node in self.graph.order:
            if node == self.graph.source:
                incoming = jnp.asarray(x)
            else:
                values = {
                    edge.name: run(edge.name, self.adapters.get(edge.name), output[edge.source])
                    for _, edge in self.graph.incoming(node)
                }
                shapes = {name: value.shape[1:] for name, value in values.items()}
                if len(set(shapes.values())) > 1:
                    told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
                    raise UserError(f"node {node!r} can't sum what it receives: {told}; add an adapter")
                incoming = jnp.stack(list(values.values())).sum(0)
            output[node] = run(node, self.stages.get(node), incoming)
        return params

    def apply(
        self, params: Params, x: Float[Numbers, "batch *features"], survival: Float[Array, " nodes"], wiring: Wiring
    ) -> Output:
        """One forward pass under a survival mask.

        A node sends if it is alive and receives something from a node that sends; the source always sends. A
        skip stands in for u->t, the last simple hyperconnection of the path it bypasses: its gate is
        max(activity, 1 - sends(u)). What does not send is exactly zero, biases included.

        Args:
          params: from `init`.
          x: a batch of inputs.
          survival: 1 = alive, 0 = failed, in the order of `graph.fallible`.
          wiring: the cell's hyperconnections in this pass.

        Source: Yousefpour et al. 2020, section 2; README, "Skip activity".
        """
        graph = self.graph
        alive = {graph.source: jnp.ones(()), graph.cloud: jnp.ones(())} | dict(zip(graph.fallible, survival))
        sends = {graph.source: alive[graph.source]}
        output = {graph.source: self._run(params, graph.source, self.stages, jnp.asarray(x))}
        for node in graph.order[1:]:
            carries, received = [], []
            for i, edge in graph.incoming(node):
                gate = jnp.maximum(wiring.activity[i], 1 - sends[edge.bypassed[-1]]) if edge.is_skip else 1.0
                carried = wiring.present[i] * gate * sends[edge.source]
                adapted = self._run(params, edge.name, self.adapters, output[edge.source])
                carries.append(carried)
                received.append(wiring.weight[i] * _masked(carried, adapted))
            sends[node] = alive[node] * jnp.stack(carries).max()
            computed = self._run(params, node, self.stages, sum(received[1:], received[0]))
            output[node] = _masked(sends[node], computed)
        return Output(output[graph.cloud], sends[graph.cloud])

    @staticmethod
    def _run(params: Params, name: str, modules: Mapping[str, nn.Module], inputs: Array) -> Array:
        return jnp.asarray(modules[name].apply(params[name], inputs)) if name in modules else inputs


def _masked(factor: Float[Array, ""], value: Array) -> Array:
    """`factor * value`, and exactly zero where the factor is, even if the value overflowed: 0 * inf is NaN."""
    return factor * jnp.where(factor > 0, value, 0.0)
