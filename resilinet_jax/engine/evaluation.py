"""Accuracy under every failure combination, and its average under a failure setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from resilinet_jax.datasets.splits import PADDING, Examples, Members
from resilinet_jax.engine.plan import NOTHING, Plan
from resilinet_jax.network.forward import Network, Numbers, Sent, Variables, Wiring
from resilinet_jax.network.graph import Hyperconnection

BATCH = 1024  # examples per step, where memory allows: enough to fill the matrix units
LIVE_BYTES = 2**30  # that the outputs of one model's stages may take at a time


class Tally(NamedTuple):
    """What has been counted so far of each answer: an application of the cloud in a `Plan`.

    Attributes:
      correct: examples classified correctly.
      informed: whether anything reached the cloud.
      finite: whether every logit was a finite number.
    """

    correct: Int[Numbers, "*stack answers"]
    informed: Bool[Numbers, "*stack answers"]
    finite: Bool[Numbers, "*stack answers"]

    def counting(self, said: Sent, y: Int[Numbers, " batch"]) -> Tally:
        """The tally with a batch more.

        Args:
          said: what each answer makes of the batch: logits [answers, batch, classes].
          y: its labels; one of `PADDING` counts for nothing.
        """
        correct = (said.value.argmax(-1) == y[None]).sum(-1)
        finite = jnp.isfinite(said.value).all((1, 2))
        return Tally(self.correct + correct, said.sends > 0, self.finite & finite)


def empty_tally(*shape: int) -> Tally:
    """Nothing counted yet; the last axis is the answers'."""
    return Tally(np.zeros(shape, np.int32), np.zeros(shape, bool), np.ones(shape, bool))


def count_correct(
    network: Network,
    variables: Variables,
    wiring: Wiring | Callable[[Int[Array, ""]], Wiring],
    plan: Plan,
    tally: Tally,
    examples: Examples,
    stack: int | None = None,
    members: Members | None = None,
    most: int = BATCH,
) -> Tally:
    """Adds examples to a tally: how many of them each answer of a plan classifies correctly.

    Args:
      network: what to evaluate.
      variables: its own.
      wiring: the cell's hyperconnections at inference, or of each batch by its number.
      plan: the stage applications that the failure combinations need.
      tally: of the examples before these.
      examples: to choose from; labels of `PADDING` count for nothing.
      stack: how many applications of a stage at once, or more where memory makes batches small; None for one after
        another.
      members: those of them that are counted, of one split; None for all.
      most: examples in a batch.
    """
    members = members or Members(np.arange(examples.y.shape[0], dtype=np.int32))
    total = members.rows.shape[0]
    batch_size = min(most, total, _batch_size(network, variables, plan, examples))
    at_once = None if stack is None else max(stack, min(BATCH, total) // batch_size)

    def count(tally: Tally, numbered: tuple[Int[Array, ""], Int[Array, " batch"]]) -> tuple[Tally, None]:
        number, rows = numbered
        batch = members.take(examples, rows)
        own = wiring(number) if callable(wiring) else wiring
        return tally.counting(apply_plan(network, variables, own, plan, batch.x, at_once), batch.y), None

    examples = Examples(*map(jnp.asarray, examples))
    rows = jnp.pad(jnp.asarray(members.rows), (0, -total % batch_size), constant_values=PADDING)
    batches = rows.reshape(-1, batch_size)
    return jax.lax.scan(count, jax.tree.map(jnp.asarray, tally), (jnp.arange(len(batches)), batches))[0]


def apply_plan(
    network: Network,
    variables: Variables,
    wiring: Wiring,
    plan: Plan,
    x: Num[Numbers, "batch *features"],
    stack: int | None = None,
) -> Sent:
    """What the cloud says in each of its applications: `Network.apply` at inference, for many masks at once.

    Args:
      network: what to evaluate.
      variables: its own.
      wiring: the cell's hyperconnections at inference.
      plan: the stage applications that the failure combinations need.
      x: a batch of inputs.
      stack: how many applications of a stage at once, from 1 on; None for one after another.

    Returns:
      Logits [answers, batch, classes], all zero where nothing arrived; and for each answer 1 if anything arrived,
      else 0.
    """
    graph = network.graph
    always = jnp.ones(())
    sources = {source: network.source_sends(variables, source, x, always)[0] for source in graph.sources}
    sent = jax.tree.map(lambda leaf: leaf[None], sources)
    for node, rows in plan.incoming.items():
        brought = [
            sent[edge.source]._replace(
                value=_adapt_each(network, variables, edge, sent[edge.source].value, wiring, stack)
            )
            for _, edge in graph.incoming(node)
        ]

        def application(row: Int[Array, " hyperconnections"], node: str = node, brought: list = brought) -> Sent:
            incoming = [
                Sent(each.value[number], jnp.where(number == NOTHING, 0, each.sends[number]))
                for number, each in zip(row, brought)
            ]
            return network.node_sends(variables, node, incoming, always, wiring)[0]

        sent[node] = jax.lax.map(application, jnp.asarray(rows), batch_size=stack)
    return sent[graph.cloud]


def _adapt_each(
    network: Network, variables: Variables, edge: Hyperconnection, values: Array, wiring: Wiring, stack: int | None
) -> Array:
    if edge.name not in network.adapters:
        return values
    return jax.lax.map(lambda value: network.adapt(variables, edge, value, wiring), values, batch_size=stack)


def _batch_size(network: Network, variables: Variables, plan: Plan, examples: Examples) -> int:
    """Examples at a time, so that the outputs that some node has yet to read fit `LIVE_BYTES`."""
    one = jax.ShapeDtypeStruct((1, *examples.x.shape[1:]), examples.x.dtype)
    size = network.output_bytes(variables, one)
    applications = dict.fromkeys(network.graph.sources, 1) | {node: len(rows) for node, rows in plan.incoming.items()}
    order = network.graph.order
    last_reader = {edge.source: order.index(edge.target) for edge in network.graph.hyperconnections}
    peak = max(
        sum(applications[node] * size[node] for node in order[: now + 1] if last_reader.get(node, now) >= now)
        for now in range(len(order))
    )
    return min(BATCH, max(1, LIVE_BYTES // peak))


def accuracy_of(
    tally: Tally, plan: Plan, examples: int | Int[np.ndarray, "*stack"], chance: float | Float[np.ndarray, "*stack"]
) -> Float[np.ndarray, "*stack combinations"]:
    """Fraction of examples classified correctly under each failure combination of a plan.

    Args:
      tally: of a whole split.
      plan: that it was counted by.
      examples: how many the split holds.
      chance: the accuracy where nothing reaches the cloud (`chance_accuracy`).

    Returns:
      NaN where a logit was not finite: what has diverged predicts nothing, though argmax would name a class.
    """
    correct, informed, finite = (np.asarray(part) for part in tally)
    examples, chance = np.asarray(examples)[..., None], np.asarray(chance)[..., None]
    of_answers = np.where(finite, np.where(informed, correct / examples, chance), np.nan)
    return np.where(plan.cloud == NOTHING, chance, of_answers[..., plan.cloud])
