"""Accuracy under every failure combination, and its average under a failure setting."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from resilinet_jax.cells import Numbers, Wiring
from resilinet_jax.datasets.splits import PADDING, Examples
from resilinet_jax.errors import UserError
from resilinet_jax.failout import combination_probabilities
from resilinet_jax.network import Network, Variables

BATCH = 1024  # examples per step: enough to fill the matrix units


class Tally(NamedTuple):
    """What has been counted so far under each survival mask.

    Attributes:
      correct: examples classified correctly.
      informed: whether anything reaches the cloud.
      finite: whether every logit was a finite number.
    """

    correct: Int[Numbers, "*stack masks"]
    informed: Bool[Numbers, "*stack masks"]
    finite: Bool[Numbers, "*stack masks"]


def empty_tally(*shape: int) -> Tally:
    """Nothing counted yet; the last axis is the masks'."""
    return Tally(np.zeros(shape, np.int32), np.zeros(shape, bool), np.ones(shape, bool))


def count_correct(
    network: Network,
    variables: Variables,
    wiring: Wiring,
    survival: Float[Array, "masks nodes"],
    tally: Tally,
    examples: Examples,
    stack: int | None = None,
) -> Tally:
    """Adds examples to a tally: which of them are classified correctly under each survival mask.

    Args:
      network: what to evaluate.
      variables: its own.
      wiring: the cell's hyperconnections at inference.
      survival: one mask per row; 1 = alive.
      tally: of the examples before these.
      examples: a split or a part of one; labels of `PADDING` count for nothing.
      stack: how many masks at once; None for all.
    """

    def under(mask: Float[Array, " nodes"], batch: Examples) -> tuple[Array, Array, Array]:
        logits, informed, _ = network.apply(variables, batch.x, mask, wiring)
        return (logits.argmax(-1) == batch.y).sum(), informed > 0, jnp.isfinite(logits).all()

    def count(tally: Tally, batch: Examples) -> tuple[Tally, None]:
        correct, informed, finite = jax.lax.map(lambda mask: under(mask, batch), survival, batch_size=stack)
        return Tally(tally.correct + correct, informed, tally.finite & finite), None

    return jax.lax.scan(count, jax.tree.map(jnp.asarray, tally), _batches(examples))[0]


def accuracy_of(tally: Tally, examples: int, chance: float) -> Float[np.ndarray, "*stack masks"]:
    """Fraction of examples classified correctly under each mask.

    Args:
      tally: of a whole split.
      examples: how many it holds.
      chance: the accuracy where nothing reaches the cloud (`chance_accuracy`).

    Returns:
      NaN where a logit was not finite: what has diverged predicts nothing, though argmax would name a class.
    """
    correct, informed, finite = (np.asarray(part) for part in tally)
    return np.where(finite, np.where(informed, correct / examples, chance), np.nan)


def average_accuracy(
    accuracy: Float[np.ndarray, "*cells combinations"], failure_probability: Float[np.ndarray, " nodes"]
) -> Float[np.ndarray, "*cells"]:
    """Expected accuracy when each node fails independently.

    The sum over survival masks b of accuracy[b] * prod_v p_v^(1-b_v) (1-p_v)^b_v.

    Args:
      accuracy: fraction correct in [0, 1], last axis in the order of `failure_combinations(nodes)`.
      failure_probability: in [0, 1], in the graph's node order.

    Raises:
      UserError: if the last axis does not hold 2**nodes entries, or a probability is outside [0, 1].

    Source: Yousefpour et al. 2020, section 3.3.
    """
    probability = combination_probabilities(np.asarray(failure_probability))
    accuracy = np.asarray(accuracy, np.float64)
    if accuracy.shape[-1:] != probability.shape:
        raise UserError(f"accuracy must end in {len(probability)} failure combinations, got shape {accuracy.shape}")
    # A combination that cannot happen must not spread its NaN.
    return np.asarray(np.where(probability > 0, accuracy * probability, 0.0).sum(-1))


def _batches(examples: Examples) -> Examples:
    """Examples with a leading axis of batches, the last one filled up with padding."""
    total = examples.y.shape[0]
    batch_size = min(BATCH, total)
    count = -(-total // batch_size)
    missing = count * batch_size - total
    x = jnp.pad(jnp.asarray(examples.x), [(0, missing)] + [(0, 0)] * (examples.x.ndim - 1))
    y = jnp.pad(jnp.asarray(examples.y), (0, missing), constant_values=PADDING)
    return Examples(x.reshape(count, batch_size, *x.shape[1:]), y.reshape(count, batch_size))
