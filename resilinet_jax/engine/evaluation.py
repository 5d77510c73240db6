"""What is right and wrong under every failure combination."""

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
# A CPU core that multiplies layers of up to 100 units one after another takes 4 to 15 % less time with a quarter as
# many examples, which stay in its cache; from 128 units on, 15 to 49 % more (`benchmarks.evaluation --what=batches`).
NARROW_BYTES = 512  # of an example's widest output, below which that holds
LIVE_BYTES = 2**30  # that the outputs of one model's stages may take at a time


class Tally(NamedTuple):
    """What has been counted so far of each answer: an application of the cloud in a `Plan`.

    Attributes:
      correct: examples of each class that were classified correctly.
      predicted: examples that were taken for each class, rightly or not.
      labels: examples of each class.
      informed: whether anything reached the cloud.
      finite: whether every logit was a finite number.
    """

    correct: Int[Numbers, "*stack answers classes"]
    predicted: Int[Numbers, "*stack answers classes"]
    labels: Int[Numbers, "*stack classes"]
    informed: Bool[Numbers, "*stack answers"]
    finite: Bool[Numbers, "*stack answers"]

    def counting(self, said: Sent, y: Int[Numbers, " batch"]) -> Tally:
        """The tally with a batch more.

        Args:
          said: what each answer makes of the batch: logits [answers, batch, classes].
          y: its labels; one of `PADDING` counts for nothing.
        """
        guess, counts = said.value.argmax(-1), (y != PADDING).astype(jnp.int32)
        # Scattered: as fast as sums over one-hot arrays or faster, and XLA would not fuse those on CPU.
        correct, predicted, labels = map(jnp.asarray, self[:3])
        place = jnp.arange(guess.shape[0])[:, None], guess
        return Tally(
            correct.at[place].add((guess == y[None]).astype(jnp.int32)),
            predicted.at[place].add(counts[None]),
            labels.at[y].add(counts),
            *_seen(self, said),
        )


class Errors(NamedTuple):
    """What has been summed up so far of each answer, where numbers are predicted. They are standardised.

    Attributes:
      squared: sums of squared errors of each target.
      absolute: sums of absolute errors.
      of_mean: the same two sums if nothing is predicted but the training mean, which is 0.
      informed: whether anything reached the cloud.
      finite: whether every prediction was a finite number.
    """

    squared: Float[Numbers, "*stack answers targets"]
    absolute: Float[Numbers, "*stack answers targets"]
    of_mean: Float[Numbers, "*stack targets 2"]
    informed: Bool[Numbers, "*stack answers"]
    finite: Bool[Numbers, "*stack answers"]

    def counting(self, said: Sent, y: Float[Numbers, "batch targets"]) -> Errors:
        """The sums with a batch more.

        Args:
          said: what each answer makes of the batch: predictions [answers, batch, targets].
          y: what was to be predicted; NaN counts for nothing.
        """
        there = ~jnp.isnan(y)
        wrong, mean_wrong = jnp.where(there[None], said.value - y[None], 0.0), jnp.where(there, y, 0.0)
        of_mean = jnp.stack([jnp.square(mean_wrong).sum(0), jnp.abs(mean_wrong).sum(0)], -1)
        return Errors(
            self.squared + jnp.square(wrong).sum(1),
            self.absolute + jnp.abs(wrong).sum(1),
            self.of_mean + of_mean,
            *_seen(self, said),
        )


AnyTally = Tally | Errors


def _seen(before: AnyTally, said: Sent) -> tuple[Bool[Numbers, " answers"], Bool[Numbers, " answers"]]:
    """Whether each answer is informed, and finite so far."""
    return said.sends > 0, before.finite & jnp.isfinite(said.value).all((1, 2))


def empty_tally(*shape: int, classes: int, numbers: bool = False) -> AnyTally:
    """Nothing counted yet.

    Args:
      *shape: the last axis is the answers'.
      classes: number of classes, or of targets.
      numbers: whether numbers are predicted.
    """
    seen = np.zeros(shape, bool), np.ones(shape, bool)
    if numbers:
        sums = np.zeros((*shape, classes), np.float32)
        return Errors(sums, sums, np.zeros((*shape[:-1], classes, 2), np.float32), *seen)
    of_classes = np.zeros((*shape, classes), np.int32)
    return Tally(of_classes, of_classes, of_classes[..., 0, :], *seen)


def count_correct(
    network: Network,
    variables: Variables,
    wiring: Wiring | Callable[[Int[Array, ""]], Wiring],
    plan: Plan,
    tally: AnyTally,
    examples: Examples,
    at_once: int | None = None,
    members: Members | None = None,
    most: int = BATCH,
) -> AnyTally:
    """Adds examples to a tally: how many of them each answer of a plan classifies correctly, or how far it is off.

    Args:
      network: what to evaluate.
      variables: its own.
      wiring: the cell's hyperconnections at inference, or of each batch by its number.
      plan: the stage applications that the failure combinations need.
      tally: of the examples before these.
      examples: to choose from; labels of `PADDING` count for nothing.
      at_once: how many applications of a stage run at once, or more where memory makes batches small; None for one
        after another.
      members: those of them that are counted, of one split; None for all.
      most: examples in a batch.
    """
    members = members or Members(np.arange(examples.y.shape[0], dtype=np.int32))
    total = members.rows.shape[0]
    # Where each batch has its own draws, as in validation, their number must not depend on the device.
    one_by_one = jax.default_backend() == "cpu" and at_once in (None, 1) and not callable(wiring)
    wanted, held = _batch_sizes(network, variables, plan, examples, one_by_one)
    batch_size = min(most, total, wanted, held)
    at_once = None if at_once is None else max(at_once, min(wanted, total) // batch_size)

    def count(tally: AnyTally, numbered: tuple[Int[Array, ""], Int[Array, " batch"]]) -> tuple[AnyTally, None]:
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
    at_once: int | None = None,
) -> Sent:
    """What the cloud says in each of its applications: `Network.apply` at inference, for many masks at once.

    Args:
      network: what to evaluate.
      variables: its own.
      wiring: the cell's hyperconnections at inference.
      plan: the stage applications that the failure combinations need.
      x: a batch of inputs.
      at_once: how many applications of a stage run at once, from 1 on; None for one after another.

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
                value=_adapt_each(network, variables, edge, sent[edge.source].value, wiring, at_once)
            )
            for _, edge in graph.incoming(node)
        ]

        def application(row: Int[Array, " hyperconnections"], node: str = node, brought: list = brought) -> Sent:
            incoming = [
                Sent(each.value[number], jnp.where(number == NOTHING, 0, each.sends[number]))
                for number, each in zip(row, brought)
            ]
            return network.node_sends(variables, node, incoming, always, wiring)[0]

        sent[node] = jax.lax.map(application, jnp.asarray(rows), batch_size=at_once)
    return sent[graph.cloud]


def _adapt_each(
    network: Network, variables: Variables, edge: Hyperconnection, values: Array, wiring: Wiring, at_once: int | None
) -> Array:
    if edge.name not in network.adapters:
        return values
    return jax.lax.map(lambda value: network.adapt(variables, edge, value, wiring), values, batch_size=at_once)


def _batch_sizes(
    network: Network, variables: Variables, plan: Plan, examples: Examples, one_by_one: bool
) -> tuple[int, int]:
    """How many examples at a time are fastest, and of how many the outputs yet to be read fit `LIVE_BYTES`.

    Args:
      network: to evaluate.
      variables: its own.
      plan: of the evaluation.
      examples: of which only the shape matters.
      one_by_one: whether a stage is applied by one core, to one batch after another.
    """
    one = jax.ShapeDtypeStruct((1, *examples.x.shape[1:]), examples.x.dtype)
    size = network.output_bytes(variables, one)
    applications = dict.fromkeys(network.graph.sources, 1) | {node: len(rows) for node, rows in plan.incoming.items()}
    order = network.graph.order
    last_reader = {edge.source: order.index(edge.target) for edge in network.graph.hyperconnections}
    peak = max(
        sum(applications[node] * size[node] for node in order[: now + 1] if last_reader.get(node, now) >= now)
        for now in range(len(order))
    )
    narrow = one_by_one and max(size.values()) < NARROW_BYTES
    return max(1, BATCH // 4) if narrow else BATCH, max(1, LIVE_BYTES // peak)


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
    accuracy = np.asarray(tally.correct).sum(-1) / np.asarray(examples)[..., None]
    return _of_combinations(tally, plan, accuracy, np.broadcast_to(chance, accuracy.shape[:-1]))


def class_counts_of(
    tally: Tally, plan: Plan, guessed: Float[np.ndarray, "*stack classes 3"]
) -> Float[np.ndarray, "*stack combinations classes 3"]:
    """True positives, false positives and false negatives of each class under each failure combination of a plan.

    Args:
      tally: of a whole split.
      plan: that it was counted by.
      guessed: the same counts where nothing reaches the cloud (`guessed_counts`).

    Returns:
      NaN where a logit was not finite.
    """
    correct, predicted, labels = (np.asarray(part, np.float32) for part in tally[:3])
    counts = np.stack([correct, predicted - correct, labels[..., None, :] - correct], -1)
    return _of_combinations(tally, plan, counts, np.asarray(guessed, np.float32))


def errors_of(
    errors: Errors, plan: Plan, examples: Int[np.ndarray, "*stack"], scale: Float[np.ndarray, "*stack targets"]
) -> Float[np.ndarray, "*stack combinations targets 4"]:
    """Mean squared and mean absolute error of each target under each failure combination, and those of the mean.

    Args:
      errors: of a whole split.
      plan: that they were summed up by.
      examples: how many the split holds.
      scale: the unit in which errors were summed up, in the target's own.

    Returns:
      In the targets' own units: the two errors, and what they would be if the training mean were predicted, as it is
      where nothing reaches the cloud. NaN where a prediction was not finite.
    """
    of_mean = np.asarray(errors.of_mean, np.float64)
    sums = np.stack([np.asarray(each, np.float64) for each in errors[:2]], -1)
    known = _of_combinations(errors, plan, sums, of_mean)
    both = np.concatenate([known, np.broadcast_to(of_mean[..., None, :, :], known.shape)], -1)
    unit = np.asarray(scale, np.float64)[..., None, :]
    return both * np.stack([unit**2, unit] * 2, -1) / np.asarray(examples)[..., None, None, None]


def _of_combinations(
    tally: AnyTally,
    plan: Plan,
    of_answers: Float[np.ndarray, "..."],
    uninformed: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """A quantity of each answer by failure combination: [*stack, combinations, *quantity].

    Args:
      tally: that it was taken from.
      plan: that the tally was counted by.
      of_answers: the quantity, [*stack, answers, *quantity].
      uninformed: the quantity where nothing reaches the cloud, [*stack, *quantity].
    """
    axis = np.ndim(tally.informed) - 1  # the answers', and then the combinations'
    behind = range(axis + 1, of_answers.ndim)
    uninformed = np.expand_dims(uninformed, axis)
    informed, finite = (np.expand_dims(np.asarray(part), tuple(behind)) for part in tally[3:])
    known = np.where(finite, np.where(informed, of_answers, uninformed), np.float32(np.nan))
    no_path = np.expand_dims(plan.cloud == NOTHING, tuple(each - axis for each in behind))
    return np.where(no_path, uninformed, np.take(known, plan.cloud, axis))
