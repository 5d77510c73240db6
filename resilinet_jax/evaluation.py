"""Accuracy under every failure combination, and its average under a failure setting."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from resilinet_jax.cells import Numbers, Wiring
from resilinet_jax.errors import UserError
from resilinet_jax.failout import combination_probabilities
from resilinet_jax.network import Network, Params

PADDING = -1  # a label that no prediction equals


class Examples(NamedTuple):
    """Inputs and their labels 0..C-1."""

    x: Float[Numbers, "examples *features"]
    y: Int[Numbers, " examples"]


def accuracy_under(
    network: Network,
    params: Params,
    examples: Examples,
    survival: Float[Array, "masks nodes"],
    wiring: Wiring,
    chance: Float[Array, ""] | float,
    batch_size: int,
) -> Float[Array, " masks"]:
    """Fraction of `examples` classified correctly under each survival mask; NaN where a logit is not finite.

    All masks share one pass over the examples; batches bound its memory.

    Args:
      network: what to evaluate.
      params: its parameters.
      examples: a whole split.
      survival: one mask per row; 1 = alive.
      wiring: the cell's hyperconnections at inference.
      chance: the accuracy where nothing reaches the cloud (`chance_accuracy`).
      batch_size: examples per step.
    """
    masks, total = survival.shape[0], examples.y.shape[0]

    def count(carry: tuple[Array, Array, Array], batch: Examples) -> tuple[tuple[Array, Array, Array], None]:
        logits, informed = jax.vmap(lambda mask: network.apply(params, batch.x, mask, wiring))(survival)
        correct = (logits.argmax(-1) == batch.y[None, :]).sum(-1)
        finite = jnp.isfinite(logits).all((1, 2))
        return (carry[0] + correct, informed, carry[2] & finite), None

    start = (jnp.zeros(masks, jnp.int32), jnp.zeros(masks), jnp.ones(masks, bool))
    (correct, informed, finite), _ = jax.lax.scan(count, start, _batches(examples, batch_size))
    # What has diverged predicts nothing, though argmax would name a class.
    return jnp.where(finite, jnp.where(informed > 0, correct / total, chance), jnp.nan)


def chance_accuracy(train: Int[Numbers, " train"], test: Int[Numbers, " test"]) -> float:
    """Expected accuracy of guessing by the training class frequencies: sum_c p_train(c) p_test(c)."""
    classes = int(max(train.max(), test.max())) + 1
    frequency = [np.bincount(np.asarray(labels), minlength=classes) / len(labels) for labels in (train, test)]
    return float(frequency[0] @ frequency[1])


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


def _batches(examples: Examples, batch_size: int) -> Examples:
    """Examples with a leading axis of batches, the last one filled up with padding."""
    total = examples.y.shape[0]
    batch_size = min(batch_size, total)
    count = -(-total // batch_size)
    missing = count * batch_size - total
    x = jnp.pad(jnp.asarray(examples.x), [(0, missing)] + [(0, 0)] * (examples.x.ndim - 1))
    y = jnp.pad(jnp.asarray(examples.y), (0, missing), constant_values=PADDING)
    return Examples(x.reshape(count, batch_size, *x.shape[1:]), y.reshape(count, batch_size))
