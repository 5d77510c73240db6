"""Which of several candidates is the best one, and which others may be it as well.

The best mean of a few runs need not belong to the best candidate. So a candidate stays in the running unless some
other beats it clearly, and what stays is a confidence set of the best one:

    {c: for no other d, mean(d - c) > t * error(d - c)},    t: Student's, at 0.05 / (candidates - 1)

with differences paired over the runs, their means and standard errors over the units as in `estimate`. The truly best
candidate is dropped only if one of the others, none of which is better, seems to be: each does with a probability of
at most 0.05 / (candidates - 1), so all of them together with at most 5 %, however they depend on each other, and
although the data chose whom to compare with.

That is why this and not a bootstrap of the best one: five runs have but 126 different resamples, whose spread is a
fifth too small in variance, and where two candidates are about equal, the bootstrap of a maximum does not converge to
its distribution (Andrews 2000, Econometrica 68). Nor the candidates that can't be told apart from the one that looks
best at 95 % each: a dozen comparisons would drop the truly best one more often than in one case of twenty.

Source: Hsu 1981, Annals of Statistics 9 (comparisons with the best), with Bonferroni's inequality for paired data.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

from resilinet_jax.results.comparisons import DOUBT
from resilinet_jax.results.estimate import estimate
from resilinet_jax.results.units import Units

Candidate = TypeVar("Candidate", float, str)


@dataclasses.dataclass(frozen=True)
class Best(Generic[Candidate]):
    """The best of several candidates.

    Attributes:
      candidate: with the highest mean; None if all runs of all candidates diverged.
      possible: all that may be the best with a confidence of 95 %, in order.
      known: whether there were units enough to tell, so whether `possible` says anything.
    """

    candidate: Candidate | None
    possible: tuple[Candidate, ...]
    known: bool

    @property
    def interval(self) -> tuple[Candidate, Candidate]:
        """The least and the greatest of the candidates that may be the best."""
        return min(self.possible), max(self.possible)


def best_of(
    values: Mapping[Candidate, Float[np.ndarray, " runs"]],
    units: Units,
    left_out: float = 0.0,
    questions: int = 1,
) -> Best[Candidate]:
    """The best candidate by its mean, with the confidence set of this module.

    Args:
      values: of each run, by candidate; NaN where it diverged. Runs of the same number are paired.
      units: what the runs are independent of.
      left_out: how far a difference may be off because not all failure combinations were evaluated.
      questions: how many such sets are to be right together with 95 %.
    """
    alone = {candidate: estimate(each, units) for candidate, each in values.items()}
    left = sorted(candidate for candidate, each in alone.items() if not math.isnan(each.mean))
    if not left:
        return Best(None, (), known=False)
    best = max(left, key=lambda candidate: alone[candidate].mean)
    doubt = DOUBT / questions / max(1, len(left) - 1)

    beaten = set()
    for first, second in itertools.combinations(left, 2):
        difference = estimate(values[first] - values[second], units, left_out)
        if abs(difference.mean) > difference.margin(doubt):  # never if it is NaN, with fewer than two units
            beaten.add(second if difference.mean > 0 else first)
    known = any(each.known for each in alone.values())
    return Best(best, tuple(candidate for candidate in left if candidate not in beaten - {best}), known)
