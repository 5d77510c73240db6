"""Composes stages along a graph. `Network.apply` is the only place where masks meet activations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from resilinet_jax.errors import UserError, suggest
from resilinet_jax.network.graph import Graph, Hyperconnection
from resilinet_jax.network.stages import SETTING, SKIP_UNITS, as_module

Numbers = Array | np.ndarray


STATISTICS = "batch_stats"  # Flax's name for what batch normalisation keeps
MOST_ARRIVALS = 2**12  # sets of hyperconnections that a stage keeps statistics for
# The parameter that training adds to the hyperconnections' weights, where they are learned; no node's name.
ADDED_WEIGHT = "hyperconnection weights"


class Statistics(NamedTuple):
    """A stage's running statistics, apart for each arrival: the set of hyperconnections that carry to its node.

    Which of them carry is all that a node can observe of failures elsewhere. What comes over a skip alone has another
    mean and variance than what comes without it or with both, and an average over them fits none (docs/findings.md).
    Where a cell shares statistics, all training steps count for arrival 0, which means that nothing carries.

    Attributes:
      seen: in how many training steps each arrival occurred; its number has bit k set if the k-th of
        `Graph.incoming` carries.
      values: what the stage keeps for each.
    """

    seen: Float[Array, "*stack arrivals"]
    values: Any  # leaves [*stack, arrivals, ...]

    def row(self, arrival: Int[Array, ""]) -> Any:
        """Statistics to use at inference: an arrival's, or the most frequent one's if training never showed it."""
        known = jnp.where(self.seen[arrival] > 0, arrival, self.seen.argmax())
        return jax.tree.map(lambda leaf: leaf[known], self.values)

    def updated(self, arrival: Int[Array, ""], values: Any, sends: Float[Array, ""]) -> Statistics:
        """Statistics after a training step; unchanged if the node did not send in it.

        Args:
          arrival: number of the arrival that occurred, in 0..arrivals-1, as in `seen`.
          values: what the stage keeps after the step: a tree as `self.values`, without the axis of arrivals.
          sends: 1 if the node sent in this step, else 0.
        """

        def put(old: Array, new: Array) -> Array:
            return old.at[arrival].set(jnp.where(sends > 0, new, old[arrival]))

        return Statistics(put(self.seen, self.seen[arrival] + 1), jax.tree.map(put, self.values, values))


class Variables(NamedTuple):
    """What a network's modules keep, by node and hyperconnection name.

    Attributes:
      params: what training optimises.
      statistics: of batch normalisation, for the nodes whose stages have any.
    """

    params: dict[str, Any]
    statistics: dict[str, Statistics]


class Wiring(NamedTuple):
    """What one forward pass sees of a cell's hyperconnections; simple ones ignore `activity`.

    A hyperconnection's weight is `weight`, and `learned` times what training has added to it; `skip_units` is for
    adapters that are skip layers. In training, `shared_statistics` is 1 where a node has one set of running statistics
    for all arrivals.
    """

    present: Float[Array, " hyperconnections"]
    weight: Float[Array, " hyperconnections"]
    activity: Float[Array, " hyperconnections"]
    learned: Float[Array, "*hyperconnections"] | float = 0.0
    skip_units: Float[Numbers, ""] | float = 0.0
    shared_statistics: Float[Numbers, ""] | float = 0.0


class Sent(NamedTuple):
    """What a node sends, or what of it a hyperconnection brings.

    Attributes:
      value: its output; exactly zero if it does not send.
      sends: 1 if it is alive and received something, else 0.
    """

    value: Array
    sends: Float[Array, "*applications"]


class Output(NamedTuple):
    """What one forward pass leaves.

    Attributes:
      logits: what the cloud says; all zero where nothing arrived.
      informed: 1 if anything from the source arrived at the cloud, else 0.
      statistics: the running statistics after this pass; the given ones at inference.
    """

    logits: Float[Array, "batch classes"]
    informed: Float[Array, ""]
    statistics: dict[str, Statistics]


@dataclasses.dataclass(frozen=True)
class Network:
    """A graph with a stage per node and an adapter per hyperconnection.

    Attributes:
      graph: how data flows.
      stages: by node name, Flax modules or functions; called with what the node receives (a source: the input, of
        which it may take its own part) and, if they take it, whether this is training. A node without one passes on
        what it receives.
      adapters: by hyperconnection name, Flax modules or functions; called with what the source sends. A
        hyperconnection without one carries it as it is.
      learns_weights: whether training adjusts the hyperconnections' weights, of the cells that ask for it.
    """

    graph: Graph
    stages: Mapping[str, Any]
    adapters: Mapping[str, Any]
    learns_weights: bool = True

    def __post_init__(self) -> None:
        """Makes modules of functions, and of modules that are not called with (x, training) themselves.

        Raises:
          UserError: naming a stage or an adapter that is neither, or that is for what is not in the graph.
        """
        if ADDED_WEIGHT in self.graph.order:
            raise UserError(f"node {ADDED_WEIGHT!r} has the name of what training adds to weights; choose another")
        edges = [edge.name for edge in self.graph.hyperconnections]
        for kind, modules, place, known in (
            ("stage", self.stages, "node", self.graph.order),
            ("adapter", self.adapters, "hyperconnection", edges),
        ):
            made = {}
            for name, module in modules.items():
                if name not in known:
                    raise UserError(f"{kind} for an unknown {place} {name!r}{suggest(str(name), known)}")
                made[name] = as_module(f"the {kind} of {place} {name!r}", module, told=kind == "stage")
            object.__setattr__(self, f"{kind}s", made)

    def init(self, key: Key[Array, ""], x: Num[Numbers, "batch *features"]) -> Variables:
        """Initial variables by node and hyperconnection name.

        Args:
          key: each stage and adapter draws from its own fold of it.
          x: an example input; only its shape matters.

        Raises:
          UserError: if the shapes that meet at a node differ, or a module keeps what it can't keep.
        """
        variables = Variables({}, {})
        output: dict[str, Array] = {}

        def run(name: str, module: nn.Module | None, *inputs: Any) -> Array:
            if module is None:
                return inputs[0]
            own = jax.random.fold_in(key, len(variables.params))
            with _named(name):
                value, made = module.init_with_output(own, *inputs)
            # An adapter also works on what a node would not take in, so its statistics would be of nothing.
            allowed = {"params", STATISTICS if name in self.stages else SETTING}
            if set(made) - allowed and (kept := _needed(module, made, set(made) - allowed, inputs)):
                raise UserError(
                    f"the module of {name!r} keeps {', '.join(kept)}; only "
                    + (
                        f"params and {STATISTICS} can be kept here: keep it in {STATISTICS}"
                        if name in self.stages
                        else "params can be kept here: keep the rest in a node's stage"
                    )
                )
            variables.params[name] = made.get("params", {})  # pooling, for one, has none
            if STATISTICS in made:
                arrivals = 2 ** len(list(self.graph.incoming(name)))
                if arrivals > MOST_ARRIVALS:
                    raise UserError(
                        f"the stage of {name!r} keeps statistics for every set of hyperconnections that may carry; "
                        f"expected at most {MOST_ARRIVALS:,} sets, got {arrivals:,}: let fewer meet there"
                    )
                values = jax.tree.map(lambda leaf: jnp.stack([leaf] * arrivals), made[STATISTICS])
                variables.statistics[name] = Statistics(jnp.zeros(arrivals), values)
            return value

        for node in self.graph.order:
            if node in self.graph.sources:
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
        variables.params[ADDED_WEIGHT] = jnp.zeros(len(self.graph.hyperconnections))
        return variables

    def apply(
        self,
        variables: Variables,
        x: Num[Numbers, "batch *features"],
        survival: Float[Array, " fallible"],
        wiring: Wiring,
        training_key: Key[Array, ""] | None = None,
    ) -> Output:
        """One forward pass under a survival mask.

        A node sends if it is alive and receives something; a source that is alive always sends. A skip stands in
        for u->t, the last simple hyperconnection of the path it bypasses: its gate is max(activity, 1 - brings(u->t)),
        and u->t brings something if u sends and the link between them has not failed. What does not send is exactly
        zero, biases included, and its running statistics stay as they were.

        Args:
          variables: from `init`.
          x: a batch of inputs.
          survival: 1 = alive, 0 = failed, of nodes and links in the order of `graph.fallible`.
          wiring: the cell's hyperconnections in this pass.
          training_key: in training, of the step, for dropout; None at inference.

        Source: Yousefpour et al. 2020, section 2; docs/methods.md.
        """
        sent, statistics = self.outputs(variables, x, survival, wiring, training_key)
        return Output(sent[self.graph.cloud].value, sent[self.graph.cloud].sends, statistics)

    def outputs(
        self,
        variables: Variables,
        x: Num[Numbers, "batch *features"],
        survival: Float[Array, " fallible"],
        wiring: Wiring,
        training_key: Key[Array, ""] | None = None,
    ) -> tuple[dict[str, Sent], dict[str, Statistics]]:
        """One forward pass under a survival mask, with the output of every node.

        Args:
          variables: from `init`.
          x: a batch of inputs.
          survival: 1 = alive, 0 = failed, of nodes and links in the order of `graph.fallible`.
          wiring: the cell's hyperconnections in this pass.
          training_key: in training, of the step, for dropout; None at inference.

        Returns:
          What every node sends, by its name; and the running statistics after the pass, by node name.
        """
        graph = self.graph
        statistics = dict(variables.statistics)
        always = jnp.ones(())
        # Not by iteration, by which JAX fails while it traces: for arrays at hand of a hundred entries or more.
        alive = dict(zip(graph.fallible, jnp.unstack(survival)))
        sent: dict[str, Sent] = {}
        for node in graph.order:
            lives = alive.get(node, always)
            if node in graph.sources:
                sent[node], own = self.source_sends(variables, node, x, lives, training_key)
            else:
                incoming = [
                    Sent(
                        self.adapt(variables, edge, sent[edge.source].value, wiring),
                        sent[edge.source].sends * alive.get(edge.name, always),
                    )
                    for _, edge in graph.incoming(node)
                ]
                sent[node], own = self.node_sends(variables, node, incoming, lives, wiring, training_key)
            statistics |= own
        return sent, statistics

    # JAX remembers what these trace to: who asks for the same shapes again runs no stage.
    @functools.cached_property
    def _init(self) -> Any:
        return jax.jit(self.init)

    @functools.cached_property
    def _outputs(self) -> Any:
        return jax.jit(self.outputs)

    def shapes(self, x: jax.ShapeDtypeStruct | Num[Numbers, "batch *features"]) -> Variables:
        """Shapes and types of the variables, by those of examples, however many; computes nothing."""
        return self._init.eval_shape(jax.random.key(0), jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))

    def output_bytes(self, variables: Variables, x: jax.ShapeDtypeStruct) -> dict[str, int]:
        """Size of what every node sends for a batch of this shape and type, by node; computes nothing."""
        wiring = Wiring(*[jnp.ones(len(self.graph.hyperconnections))] * 3)
        sent, _ = self._outputs.eval_shape(variables, x, jnp.ones(len(self.graph.fallible)), wiring)
        return {node: math.prod(each.value.shape) * each.value.dtype.itemsize for node, each in sent.items()}

    def adapt(self, variables: Variables, edge: Hyperconnection, value: Array, wiring: Wiring) -> Array:
        """What a hyperconnection makes of its sender's output, before its weight.

        Args:
          variables: from `init`.
          edge: the hyperconnection; one without an adapter changes nothing.
          value: the sender's output for a batch, in the layout of its stage.
          wiring: the cell's hyperconnections in this pass; of it, adapters use `skip_units` alone.

        Returns:
          What reaches the receiving node, of the same shape as all else that it receives.
        """
        if edge.name not in self.adapters:
            return value
        given = {"params": variables.params[edge.name], SETTING: {SKIP_UNITS: jnp.asarray(wiring.skip_units)}}
        with _named(edge.name):
            return jnp.asarray(self.adapters[edge.name].apply(given, value))

    def source_sends(
        self,
        variables: Variables,
        source: str,
        x: Num[Numbers, "batch *features"],
        alive: Float[Array, ""],
        training_key: Key[Array, ""] | None = None,
    ) -> tuple[Sent, dict[str, Statistics]]:
        """What a source sends for a batch.

        Args:
          variables: from `init`.
          source: its name.
          x: a batch of inputs; every source gets all of it.
          alive: 1 = alive, 0 = failed; 1 for an only source, which never fails.
          training_key: in training, of the step, for dropout; None at inference.

        Returns:
          What it sends, exactly zero if it has failed. In training, by its name, also its running statistics after the
          batch, if it keeps any; else an empty dict.
        """
        value, statistics = self._compute(variables, source, jnp.asarray(x), (), alive, training_key, 0.0)
        return Sent(value if source not in self.graph.fallible else _masked(alive, value), alive), statistics

    def node_sends(
        self,
        variables: Variables,
        node: str,
        incoming: Sequence[Sent],
        alive: Float[Array, ""],
        wiring: Wiring,
        training_key: Key[Array, ""] | None = None,
    ) -> tuple[Sent, dict[str, Statistics]]:
        """What a node sends for a batch, given what its hyperconnections bring.

        Sums what arrives: gates and weights are applied here. A node that receives nothing does not send.

        Args:
          variables: from `init`.
          node: its name; not that of a source.
          incoming: what each hyperconnection brings, already adapted, in the order of `Graph.incoming(node)`; its
            `sends` is 0 where the sender does not send or the link has failed.
          alive: 1 = alive, 0 = failed.
          wiring: the cell's hyperconnections in this pass, over all of the graph's.
          training_key: in training, of the step, for dropout; None at inference.

        Returns:
          What it sends, exactly zero if it does not send. In training, by its name, also its running statistics after
          the batch, if it keeps any; else an empty dict.
        """
        edges = list(self.graph.incoming(node))
        simple = {edge.source: k for k, (_, edge) in enumerate(edges) if not edge.is_skip}
        carries = []
        for (i, edge), sent in zip(edges, incoming):
            carried = wiring.present[i] * sent.sends
            if edge.is_skip:
                stands_for = incoming[simple[edge.bypassed[-1]]]
                carried *= jnp.maximum(wiring.activity[i], 1 - stands_for.sends)
            carries.append(carried)
        sends = alive * jnp.stack(carries).max()
        weight = self.weight(variables, wiring)
        weights = [weight[i] for i, _ in edges]
        values = [sent.value for sent in incoming]
        shared = wiring.shared_statistics
        value, statistics = self.compute(variables, node, values, carries, weights, sends, training_key, shared)
        return Sent(_masked(sends, value), sends), statistics

    def weight(self, variables: Variables, wiring: Wiring) -> Float[Array, " hyperconnections"]:
        """Every hyperconnection's weight, with what training has added to it."""
        added = variables.params[ADDED_WEIGHT]
        return wiring.weight + wiring.learned * (added if self.learns_weights else jax.lax.stop_gradient(added))

    def compute(
        self,
        variables: Variables,
        node: str,
        values: Sequence[Array],
        carries: Sequence[Float[Array, ""]],
        weights: Sequence[Float[Array, ""]],
        sends: Float[Array, ""] | float = 1.0,
        training_key: Key[Array, ""] | None = None,
        shared_statistics: Float[Numbers, ""] | float = 0.0,
    ) -> tuple[Array, dict[str, Statistics]]:
        """What a node's stage makes of the weighted sum of what is carried to it.

        Args:
          variables: from `init`; of it, the node's own.
          node: its name; not that of a source.
          values: what each hyperconnection brings, already adapted, in the order of `Graph.incoming(node)`.
          carries: 1 where it is carried: it is there, its sender sends and its gate is open; else 0.
          weights: factor on each.
          sends: 1 if the node sends, else 0; only training asks.
          training_key: in training, of the step, for dropout; None at inference.
          shared_statistics: as in `Wiring`; only training asks.

        Returns:
          The stage's output for a batch. In training, by its name, also its running statistics after the batch, if it
          keeps any; else an empty dict.
        """
        received = [weight * _masked(carried, value) for weight, carried, value in zip(weights, carries, values)]
        total = sum(received[1:], received[0])
        return self._compute(variables, node, total, carries, jnp.asarray(sends), training_key, shared_statistics)

    def _compute(
        self,
        variables: Variables,
        node: str,
        value: Array,
        carries: Sequence[Array],
        sends: Float[Array, ""],
        training_key: Key[Array, ""] | None,
        shared_statistics: Float[Numbers, ""] | float,
    ) -> tuple[Array, dict[str, Statistics]]:
        """Output of a node's stage; in training, also the running statistics that it leaves, by node name."""
        if node not in self.stages:
            return value, {}
        stage, given = self.stages[node], {"params": variables.params[node]}
        known, arrival = variables.statistics.get(node), jnp.zeros((), int)
        if known is not None:
            arrival = sum((jnp.where(carried > 0, 2**k, 0) for k, carried in enumerate(carries)), arrival)
        if training_key is None:
            if known is not None:
                given[STATISTICS] = known.row(arrival)
            with _named(node):
                return jnp.asarray(stage.apply(given, value, False)), {}
        if known is not None:
            arrival = jnp.where(jnp.asarray(shared_statistics) > 0, 0, arrival)
            given[STATISTICS] = jax.tree.map(lambda leaf: leaf[arrival], known.values)
        key = jax.random.fold_in(training_key, self.graph.order.index(node))
        with _named(node):
            # Flax draws from "params" what has no key of its own.
            keys = {"dropout": key, "params": jax.random.fold_in(key, 1)}
            result, after = stage.apply(given, value, True, rngs=keys, mutable=[STATISTICS])
        return result, {} if known is None else {node: known.updated(arrival, after[STATISTICS], sends)}


def _needed(module: nn.Module, made: Mapping[str, Any], extra: Collection[str], inputs: Sequence[Any]) -> list[str]:
    """The collections that a module reads again; what it sows is for others to look at, and is not kept."""
    needed = []
    for collection in sorted(extra):
        without = {name: values for name, values in made.items() if name != collection}
        try:
            jax.eval_shape(lambda values: module.apply(values, *inputs), without)
        except flax.errors.FlaxError:
            needed.append(collection)
    return needed


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Adds to whatever is raised meanwhile the name of the node or hyperconnection whose module runs."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the {'adapter of hyperconnection' if '->' in name else 'stage of node'} {name!r}")
        raise


def _masked(factor: Float[Array, ""], value: Array) -> Array:
    """`factor * value`, and exactly zero where the factor is, even if the value overflowed: 0 * inf is NaN."""
    return factor * jnp.where(factor > 0, value, 0.0)
