"""Survival masks: sampled for failout in training, enumerated with their probabilities for evaluation.

A mask has one entry for each of `Graph.fallible`, nodes and then links: 1 = alive, 0 = failed.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from resilinet_jax.errors import UserError
from resilinet_jax.graph import Graph


def sample_survival(
    key: Key[Array, ""], failout_rate: Float[Array, " causes"], steps: int, graph: Graph
) -> Float[Array, "steps fallible"]:
    """One survival mask per training step: each cause occurs with probability f, independently of the others.

    Without groups a node is its own only cause, so its survival is b_v ~ Bernoulli(1 - f_v). The uniform draws depend
    on the key alone, so that runs which differ only in their rates fail nested sets of nodes: whatever fails at 5 %
    fails at 10 % too.

    Args:
      key: of the run and epoch.
      failout_rate: probability in a step of each of `Graph.causes`, in [0, 1].
      steps: number of masks.
      graph: whose nodes and links fail.

    Source: Yousefpour et al. 2020, section 2.3.
    """
    draws = jax.random.uniform(key, (steps, failout_rate.shape[0]))
    spared = draws >= failout_rate[None, :]
    causes = list(graph.causes.values())
    survival = [
        functools.reduce(jnp.logical_and, [spared[:, c] for c, failing in enumerate(causes) if name in failing])
        for name in graph.fallible
    ]
    return jnp.stack(survival, 1).astype(failout_rate.dtype) if survival else jnp.zeros((steps, 0))


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
    failure_probability: Float[np.ndarray, " causes"], failout_rate: Float[np.ndarray, " causes"]
) -> Float[np.ndarray, " causes"]:
    """Failure probability if failout is left on while testing: p' = 1 - (1 - p)(1 - f)."""
    return 1 - (1 - failure_probability) * (1 - failout_rate)
