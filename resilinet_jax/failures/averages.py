"""Average accuracy under a failure setting: an expectation over failure combinations, or its bounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import Combinations, failure_combinations
from resilinet_jax.failures.model import mask_probabilities


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
    failure = np.asarray(failure_probability, np.float64)
    if not np.all((failure >= 0) & (failure <= 1)):
        raise UserError(f"failure probabilities must be in [0, 1], got {failure.tolist()}")
    probability = mask_probabilities(failure_combinations([str(v) for v in range(len(failure))]), failure)
    if np.shape(accuracy)[-1:] != probability.shape:
        raise UserError(f"accuracy must end in {len(probability)} failure combinations, got shape {accuracy.shape}")
    return _expectation(accuracy, probability)


def average_accuracy_bounds(
    accuracy: Float[np.ndarray, "*cells combinations"],
    combinations: Combinations,
    failure_probability: Float[np.ndarray, " causes"],
) -> tuple[Float[np.ndarray, "*cells"], Float[np.ndarray, "*cells"]]:
    """Lower and upper bound of the average accuracy, whatever the accuracy under combinations left out.

    Args:
      accuracy: fraction correct in [0, 1], last axis in the order of `combinations`.
      combinations: those that were evaluated.
      failure_probability: of each of `Graph.causes`, in [0, 1].
    """
    low = _expectation(accuracy, combinations.probabilities(failure_probability))
    return low, np.asarray(low + combinations.left_out(failure_probability))


def _expectation(
    accuracy: Float[np.ndarray, "*cells combinations"], probability: Float[np.ndarray, " combinations"]
) -> Float[np.ndarray, "*cells"]:
    # A combination that cannot happen must not spread its NaN.
    return np.asarray(np.where(probability > 0, np.asarray(accuracy, np.float64) * probability, 0.0).sum(-1))


def usual_setting(failure_settings: Mapping[str, Mapping[str, float]]) -> str:
    """The first failure setting in which anything fails, or the first of all."""
    failing = [name for name, probability in failure_settings.items() if any(probability.values())]
    return next(iter(failing or failure_settings))
