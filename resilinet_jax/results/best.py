"""Which of several candidates is the best one, and which others may be it as well.

The best mean of a few runs need not belong to the best candidate. So a candidate stays in the running unless some
other beats it clearly, and what stays is a confidence set of the best one:

    {c: for no other d, mean(d - c) > t * deviation(d - c) / sqrt(runs)},    t: Student's, at 0.05 / (candidates - 1)

with differences paired over the runs. The truly best candidate is dropped only if one of the others, none of which is
better, seems to be: each does with a probability of at most 0.05 / (candidates - 1), so all of them together with at
most 5 %, however they depend on each other, and although the data chose whom to compare with.

That is why this and not a bootstrap of the best one: five runs have but 126 different resamples, whose spread is a
fifth too small in variance, and where two candidates are about equal, the bootstrap of a maximum does not converge to
its distribution (Andrews 2000, Econometrica 68). Nor the candidates that can't be told apart from the one that looks
best at 95 % each: a dozen comparisons would drop the truly best one more often than in one case of twenty.

Source: Hsu 1981, Annals of Statistics 9 (comparisons with the best), with Bonferroni's inequality for paired data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from resilinet_jax.results.comparisons import CONFIDENCE
from resilinet_jax.results.results import mean, sample_deviation


class Best(NamedTuple):
    """The best of several candidates.

    Attributes:
      candidate: with the highest mean; None if all runs of all candidates diverged.
      possible: all that may be the best with `CONFIDENCE`, in order.
      known: whether there were runs enough to tell, so whether `possible` says anything.
    """

    candidate: float | None
    possible: tuple[float, ...]
    known: bool

    @property
    def interval(self) -> tuple[float, float]:
        """The least and the greatest of the candidates that may be the best."""
        return min(self.possible), max(self.possible)


def best_of(accuracy: Mapping[float, Float[np.ndarray, " runs"]], left_out: float = 0.0) -> Best:
    """The best candidate by its mean, with the confidence set of this module.

    Args:
      accuracy: of each run, by candidate; NaN where it diverged. Runs of the same number are paired.
      left_out: how far a difference may be off because not all failure combinations were evaluated.
    """
    means = {candidate: mean(values) for candidate, values in accuracy.items()}
    left = sorted(candidate for candidate, value in means.items() if not math.isnan(value))
    if not left:
        return Best(None, (), known=False)
    best = max(left, key=lambda candidate: means[candidate])
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(left) - 1)
    beaten = {
        candidate
        for candidate in left
        for other in left
        if _clearly_better(accuracy[other], accuracy[candidate], confidence, left_out)
    }
    known = any(np.isfinite(values).sum() > 1 for values in accuracy.values())
    return Best(best, tuple(candidate for candidate in left if candidate not in beaten - {best}), known)


def _clearly_better(
    first: Float[np.ndarray, " runs"], second: Float[np.ndarray, " runs"], confidence: float, left_out: float
) -> bool:
    """Whether the first candidate is better, by a one-sided paired t-test; False with fewer than two pairs."""
    from scipy.special import stdtrit  # takes a while, which a mistake in the flags need not wait for

    differences = first - second
    pairs = int(np.isfinite(differences).sum())
    if pairs < 2:
        return False
    doubt = float(stdtrit(pairs - 1, confidence)) * sample_deviation(differences) / math.sqrt(pairs)
    return mean(differences) > doubt + left_out
