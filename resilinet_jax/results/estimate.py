"""A mean over units with its interval and tests: Student's t, corrected where units share examples.

With m_j the mean of unit j's runs, s their sample deviation, J their number and a the share that re-splits have in
common (`Units.overlap`; 0 for people and for runs on one split), the standard error of the mean over the units is

    s * sqrt(1 / J + a)

with J - 1 degrees of freedom. Runs within a unit count through their mean alone, however few of them are left: means
of unequal precision make the test at 5 % a little cautious, not bold (Ibragimov and Müller 2010).

For people, a is 0: each is tested once, so their means vary independently given what they were trained on. That
training sets overlap shifts all of them together, by as much as other people to train on would change the outcome;
no estimate from these data can see that (Bengio and Grandvalet 2004), so the interval covers other people to be tested,
not others to be trained on.

Sources: Nadeau and Bengio 2003, Machine Learning 52; Ibragimov and Müller 2010, Journal of Business & Economic
Statistics 28; Bayle et al. 2020, NeurIPS 33 (intervals of cross-validation, for the training sets at hand); Schuirmann
1987, Journal of Pharmacokinetics and Biopharmaceutics 15 (two one-sided tests).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from resilinet_jax.results.units import Units

CONFIDENCE = 0.95
POWER = 0.8  # with which as many units as are said to be needed settle a comparison
NEGLIGIBLE = 0.01  # a difference of less than this is not worth telling from none
MOST_UNITS = 1000  # more than these are not counted


class Estimate(NamedTuple):
    """A mean over units, as a fraction, and what is known of its error.

    Attributes:
      mean: over the units' means; NaN if there is none.
      deviation: sample deviation of the units' means; NaN for fewer than two.
      units: number of them.
      runs: number of runs that they are made of.
      noise: the part of `deviation` squared that comes from the runs within units; NaN where no unit has two.
      overlap: `Units.overlap`.
      left_out: how far the mean may be off besides, because not all failure combinations were evaluated.
    """

    mean: float
    deviation: float
    units: int
    runs: int
    noise: float = math.nan
    overlap: float = 0.0
    left_out: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there is an interval: for two units or more."""
        return self.units > 1

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation * math.sqrt(1 / self.units + self.overlap) if self.known else math.nan

    @property
    def half_width(self) -> float:
        """Of the interval that covers with `CONFIDENCE`, by itself; NaN for fewer than two units."""
        return self.margin((1 - CONFIDENCE) / 2)

    def margin(self, doubt: float) -> float:
        """How far above the true mean the estimate lies with a probability of at most `doubt`; NaN if not known."""
        if not self.known:
            return math.nan
        return float(_quantile(self.units - 1, 1 - doubt)) * self.error + self.left_out

    @property
    def p(self) -> float:
        """Probability of a mean at least this far from zero if the true one is zero, two-sided; NaN if not known."""
        if not self.known:
            return math.nan
        beyond = abs(self.mean) - self.left_out
        if beyond <= 0 or not self.error:
            return float(beyond <= 0)
        from scipy.special import stdtr

        return 2 * float(stdtr(self.units - 1, -beyond / self.error))

    def largest(self, doubt: float) -> float:
        """The smallest margin in which two one-sided tests, at `doubt` each, show the true mean to lie; or NaN."""
        return abs(self.mean) + self.margin(doubt)

    def units_needed(self, doubt: float) -> int | None:
        """How many units would settle whether the mean is zero, if it and its deviation are as estimated.

        With `POWER` either a two-sided test at `doubt` finds it not zero, or two one-sided tests at `doubt` find it
        less than `NEGLIGIBLE`.

        Returns:
          None if `MOST_UNITS` are too few.
        """
        if not self.deviation:
            return None
        from scipy.special import stdtr

        units = np.arange(2, MOST_UNITS + 1)
        error = self.deviation * np.sqrt(1 / units + self.overlap)
        size, room = abs(self.mean) - self.left_out, NEGLIGIBLE - self.left_out
        two_sided, one_sided = (_quantile(units - 1, 1 - each) for each in (doubt / 2, doubt))
        found = stdtr(units - 1, size / error - two_sided)
        ends = [(room + sign * abs(self.mean)) / error - one_sided for sign in (-1, 1)]
        equal = stdtr(units - 1, ends[0]) - stdtr(units - 1, -ends[1])
        enough = np.flatnonzero((found >= POWER) | (equal >= POWER))
        return int(units[enough[0]]) if len(enough) else None

    def points(self) -> str:
        """`+2.10 ± 0.40`, in percentage points; without an interval for a single unit."""
        if not self.units:
            return "n/a"
        return f"{100 * self.mean:+.2f}" + (f" ± {100 * self.half_width:.2f}" if self.known else "")

    def interval(self) -> str:
        """`+1.70 to +2.50`, in percentage points; `n/a` for a single unit."""
        ends = (f"{100 * (self.mean + sign * self.half_width):+.2f}" for sign in (-1, 1))
        return " to ".join(ends) if self.known else "n/a"

    @property
    def helped_by_runs(self) -> bool | None:
        """Whether more runs of each unit would make the deviation much smaller; None where that is not known."""
        return None if math.isnan(self.noise) else self.noise > self.deviation**2 / 2


def estimate(values: Float[np.ndarray, " runs"], units: Units, left_out: float = 0.0) -> Estimate:
    """Mean over the units, each the mean of its runs; runs that diverged (NaN) are left out.

    Args:
      values: of each run, as differences of pairs.
      units: what the runs are independent of.
      left_out: as in `Estimate`.
    """
    groups = units.groups(values)
    means, sizes = np.array([group.mean() for group in groups]), np.array([len(group) for group in groups])
    repeats = int(sizes.sum()) - len(groups)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / repeats if repeats else math.nan
    return Estimate(
        float(means.mean()) if groups else math.nan,
        float(means.std(ddof=1)) if len(groups) > 1 else math.nan,
        len(groups),
        int(sizes.sum()),
        within * float((1 / sizes).mean()) if groups else math.nan,
        units.overlap,
        left_out,
    )


def _quantile(freedom: int | np.ndarray, probability: float) -> np.ndarray:
    """Of Student's distribution."""
    from scipy.special import stdtrit  # takes a while, which a mistake in the flags need not wait for

    return np.asarray(stdtrit(freedom, probability))
