"""Shapley values: what each of several parts adds, fairly shared where they stand in for each other.

A skip that is the only way around its node adds much to a network without skips and maybe nothing where another one
does the same. Its Shapley value is what it adds to each subset T of the others, averaged over all orders in which the
skips may be put in:

    value(s) = sum_T |T|! (k - |T| - 1)! / k! * (worth(T + s) - worth(T)),    k skips

Source: Shapley 1953, Contributions to the Theory of Games 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from resilinet_jax.errors import UserError


def shapley_values(
    worth: Mapping[frozenset[str], Float[np.ndarray, " runs"]],
) -> dict[str, Float[np.ndarray, " runs"]]:
    """Shapley value of each part, exact and run by run; they sum to what all parts together add to none.

    Takes k * 2^(k-1) differences for k parts: what limits k is measuring 2^k subsets.

    Args:
      worth: of every subset of the parts.

    Raises:
      UserError: if a subset is missing.
    """
    parts = sorted(frozenset().union(*worth))
    if len(worth) != 2 ** len(parts):
        raise UserError(f"Shapley values of {len(parts)} parts need all {2 ** len(parts)} subsets, got {len(worth)}")
    values = {}
    for part in parts:
        added = [
            _share(len(others), len(parts)) * (worth[others | {part}] - without)
            for others, without in worth.items()
            if part not in others
        ]
        values[part] = np.sum(added, axis=0)
    return values


def _share(others: int, parts: int) -> float:
    """Probability that just these others came before, if all orders are equally likely."""
    return math.factorial(others) * math.factorial(parts - others - 1) / math.factorial(parts)
