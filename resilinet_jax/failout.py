"""Survival masks: sampled for failout in training, enumerated with their probabilities for evaluation.

A mask has one entry per fallible node in data-flow order: 1 = alive, 0 = failed.
"""

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Key, Num

from resilinet_jax.errors import UserError


def sample_survival(
    key: Key[Array, ""], failout_rate: Float[Array, " nodes"], steps: int
) -> Float[Array, "steps nodes"]:
    """One survival mask per training step: b_v ~ Bernoulli(1 - f_v), independently.

    The uniform draws depend on the key alone, so that runs which differ only in their rates fail nested sets of
    nodes: whatever fails at 5 % fails at 10 % too.

    Args:
      key: of the run and epoch.
      failout_rate: probability of failing each node in a step, in [0, 1].
      steps: number of masks.

    Source: Yousefpour et al. 2020, section 2.3.
    """
    draws = jax.random.uniform(key, (steps, failout_rate.shape[0]))
    return (draws >= failout_rate[None, :]).astype(failout_rate.dtype)


def failing_sets(nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """Every way in which nodes can fail, in the order of the paper's Table 2: none, each one, each pair, ..., all."""
    return [failing for size in range(len(nodes) + 1) for failing in itertools.combinations(nodes, size)]


def combination_name(failing: Sequence[str]) -> str:
    """`none`, or the failing nodes joined by a plus sign: `n1+n3`."""
    return "+".join(failing) or "none"


def failure_combinations(nodes: Sequence[str]) -> Float[np.ndarray, "combinations nodes"]:
    """The survival masks of `failing_sets(nodes)`, in the same order."""
    return np.array(
        [[float(node not in failing) for node in nodes] for failing in failing_sets(nodes)], np.float32
    ).reshape(2 ** len(nodes), len(nodes))


def combination_probabilities(
    failure_probability: Float[np.ndarray, "*settings nodes"],
) -> Float[np.ndarray, "*settings combinations"]:
    """P(b) = prod_v p_v^(1-b_v) (1-p_v)^b_v for each mask b of `failure_combinations`, when nodes fail independently.

    Raises:
      UserError: if a probability is outside [0, 1].

    Source: Yousefpour et al. 2020, section 3.3.
    """
    probability = np.asarray(failure_probability, np.float64)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise UserError(f"failure probabilities must be in [0, 1], got {probability.tolist()}")
    nodes = probability.shape[-1]
    return mask_probabilities(failure_combinations([str(v) for v in range(nodes)]), probability)


def mask_probabilities(
    survival: Num[np.ndarray, "combinations nodes"], failure_probability: Float[np.ndarray, "*settings nodes"]
) -> Float[np.ndarray, "*settings combinations"]:
    """The same of any masks."""
    failure = np.asarray(failure_probability, np.float64)[..., None, :]
    return np.where(survival > 0, 1 - failure, failure).prod(-1)


def with_failout_at_inference(
    failure_probability: Float[np.ndarray, " nodes"], failout_rate: Float[np.ndarray, " nodes"]
) -> Float[np.ndarray, " nodes"]:
    """Failure probability if failout is left on while testing: p' = 1 - (1 - p)(1 - f)."""
    return 1 - (1 - failure_probability) * (1 - failout_rate)
