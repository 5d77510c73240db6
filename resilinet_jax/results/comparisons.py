"""Comparisons of two cells, paired over the runs: difference, interval, corrected test, and a sentence to quote.

Runs of the same number on the same split share initialisation, batch order and random draws in every cell, so what
differs within a pair is the cells' own doing.

The comparisons of one table are a `Family`, and what is claimed of them is corrected together. That one beats another
is claimed where its p-value, adjusted after Holm, is at most 0.05: in 95 % of families none of these claims is false.
That there is no difference larger than x is claimed where two one-sided tests show it at 0.05 / comparisons each. No
single claim of either kind is then false with more than 0.05 / comparisons while none was claimed before it.

Sources: Holm 1979, Scandinavian Journal of Statistics 6; Schuirmann 1987, Journal of Pharmacokinetics and
Biopharmaceutics 15.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from resilinet_jax.results.estimate import CONFIDENCE, MOST_UNITS, NEGLIGIBLE, POWER, Estimate, estimate
from resilinet_jax.results.metric_names import ACCURACY, METRIC_NAMES
from resilinet_jax.results.results import Column, Results, cell_of
from resilinet_jax.results.units import Units

DOUBT = 1 - CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two cells where the same nodes may fail.

    Attributes:
      subject: what both are, in front of their names; may be empty.
      names: of the two, as in a sentence: with the subject `failout`, `5 %` and `10 %`.
      where: `under hazardous failures`, `while n1 fails`.
      values: of the metric, of each run, for each of the two; NaN where it diverged.
      units: what the runs are independent of.
      left_out: how far a difference may be off because not all failure combinations were evaluated.
      points: what a difference of 0.01 is, in the plural (`MetricName.points`).
    """

    subject: str
    names: tuple[str, str]
    where: str
    values: tuple[Float[np.ndarray, " runs"], Float[np.ndarray, " runs"]]
    units: Units
    left_out: float = 0.0
    points: str = METRIC_NAMES[ACCURACY].points

    @functools.cached_property
    def difference(self) -> Estimate:
        """The first minus the second."""
        return estimate(self.values[0] - self.values[1], self.units, self.left_out)

    @property
    def pair(self) -> str:
        """Both names: `failout 5 % − 10 %`."""
        return f"{self.subject} {self.names[0]} − {self.names[1]}".strip()

    @property
    def both(self) -> str:
        """Both names: `failout 5 % and 10 %`."""
        return f"{self.subject} {self.names[0]} and {self.names[1]}".strip()


@dataclasses.dataclass(frozen=True)
class Claim:
    """What may be said of a comparison, given those in the same family.

    Attributes:
      comparison: that it is about.
      p: of the difference, adjusted after Holm; NaN where there is no test.
      doubt: what each comparison of the family has, if all share 0.05.
    """

    comparison: Comparison
    p: float
    doubt: float

    @property
    def beats(self) -> bool:
        """Whether one beats the other."""
        return self.p <= DOUBT

    @property
    def largest(self) -> float | None:
        """Smallest margin in which the difference was shown to lie; None where that is too large to matter."""
        largest = self.comparison.difference.largest(self.doubt)
        return largest if largest <= NEGLIGIBLE else None

    def sentence(self) -> str:
        """The claim in words, without a full stop."""
        each, difference = self.comparison, self.comparison.difference
        if not difference.units:
            return f"{each.both} can't be compared {each.where}: no run in which neither diverged"
        if not difference.known:
            size = f"{100 * difference.mean:+.1f} {each.points}"
            return f"{each.both} differ by {size} {each.where} in a single {each.units.noun}, which gives no interval"
        size, half_width = _rounded(difference)
        if self.beats:
            winner, loser = each.names if difference.mean > 0 else each.names[::-1]
            beats = f"{each.subject} {winner} beats {loser}".strip()
            return f"{beats} {each.where} by {size.lstrip('+-')} ± {half_width} {each.points}"
        if self.largest == 0:
            return f"{each.both} are equal {each.where}, in every run"
        if self.largest is not None:
            return f"{each.both} show no difference larger than {_rounded_up(self.largest)} {each.points} {each.where}"
        return f"{each.both} are not settled {each.where} ({size} ± {half_width} {each.points}): {self._needed}"

    @functools.cached_property
    def _needed(self) -> str:
        """How many units would settle it, and whether more runs of each would help."""
        units, difference = self.comparison.units, self.comparison.difference
        number = difference.units_needed(self.doubt)
        if number is None:
            return f"{units.named(MOST_UNITS)} would not do"
        needed = f"needs about {units.named(_two_digits(number))}"
        if not units.several or difference.helped_by_runs is None:
            return needed
        return f"{needed}; more runs of each {'help as well' if difference.helped_by_runs else 'hardly help'}"


@dataclasses.dataclass(frozen=True)
class Family:
    """Comparisons of one table, of which no more is claimed than holds for all of them together.

    Attributes:
      comparisons: in the order of the table.
    """

    comparisons: Sequence[Comparison]

    @functools.cached_property
    def claims(self) -> list[Claim]:
        """What may be said of each comparison."""
        adjusted = holm([each.difference.p for each in self.comparisons])
        doubt = DOUBT / max(1, self.tested)
        return [Claim(each, p, doubt) for each, p in zip(self.comparisons, adjusted)]

    @property
    def points(self) -> str:
        """What a difference of 0.01 is, in the plural."""
        return self.comparisons[0].points

    @property
    def tested(self) -> int:
        """How many comparisons there is a test for."""
        return sum(each.difference.known for each in self.comparisons)

    def notes(self) -> list[str]:
        """What a reader must know of the intervals, p-values and sentences, in sentences."""
        units = self.comparisons[0].units
        shared = ", corrected after Nadeau and Bengio because splits share examples" if units.overlap else ""
        over = f"the means of {units.named(len(set(units.split)))}" if units.several else "the runs"
        return [
            "Runs of the same number share split, initialisation and batches, so differences are taken run by run.",
            f"Each interval holds by itself with {CONFIDENCE:.0%} confidence (Student's t over {over}{shared}). "
            f"It covers {units.covers}.",
            f"p is corrected for the {self.tested} comparisons of this table (Holm). 'Beats' is said if p is at most "
            f"{DOUBT:.2f}, so that in {CONFIDENCE:.0%} of such tables it is never said falsely.",
            f"'No difference larger than' is two one-sided tests at {DOUBT:.2f} / {self.tested}, said up to "
            f"{100 * NEGLIGIBLE:g} point. 'Not settled' says how many {units.plural} would settle it with a power of "
            f"{POWER:.0%} if difference and deviation are as measured.",
        ]


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that rejecting those of at most 0.05 rejects a true hypothesis in 5 % of families at most.

    The k-th smallest of m is multiplied by m - k + 1, and is never less than the one before it. A NaN is no
    hypothesis: it stays, and doesn't count.

    Source: Holm 1979.
    """
    order = np.argsort(p)  # NaN comes last
    tested = np.isfinite(p).sum()
    adjusted = np.full(len(p), math.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((tested - np.arange(len(p))) * np.asarray(p)[order]))
    return adjusted.tolist()


def against(
    results: Results, subject: str, reference: tuple[str, Column], others: Mapping[str, Column]
) -> list[Comparison]:
    """A reference against others, by their averages under each failure setting.

    Args:
      results: of the sweep.
      subject: as in `Comparison`.
      reference: its name and its cell.
      others: cells by name; a failure setting for which there is none is left out.
    """
    name, column = reference
    return [
        Comparison(
            subject,
            (name, other_name),
            under_setting(results, setting),
            (results.average(first, setting), results.average(second, setting)),
            results.units,
            results.left_out(setting),
            results.told_by.points,
        )
        for other_name, other in others.items()
        for setting in results.failure_settings
        for first, second in ((cell_of(column, setting), cell_of(other, setting)),)
        if first is not None and second is not None
    ]


def under_setting(results: Results, setting: str) -> str:
    """A failure setting as part of a sentence."""
    return f"under {setting} failures" if any(results.failure_settings[setting].values()) else "without failures"


def while_failing(failing: Sequence[str]) -> str:
    """A failure combination as part of a sentence."""
    if not failing:
        return "while nothing fails"
    return f"while {' and '.join(failing)} fail{'s' if len(failing) == 1 else ''}"


def _rounded(difference: Estimate) -> tuple[str, str]:
    """Mean and half width in points, with as few digits as tell the same story as all of them."""
    size, half_width = 100 * difference.mean, 100 * difference.half_width
    clear = abs(size) > half_width
    for digits in range(1, 5):
        told = round(abs(size), digits) > round(half_width, digits)
        if told == clear and (round(half_width, digits) or not half_width):
            break
    return f"{size:+.{digits}f}", f"{half_width:.{digits}f}"


def _two_digits(number: int) -> int:
    """A number rounded up to two digits: what is estimated from few units is no more exact."""
    step = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def _rounded_up(largest: float) -> str:
    """A margin in points that is not less than this one."""
    return f"{math.ceil(1000 * largest) / 10:.1f}"
