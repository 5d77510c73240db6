"""Comparisons of two cells, paired over the runs: difference, confidence interval, and a sentence to quote.

Runs of the same number share initialisation, batch order and random draws in every cell, so what differs within a pair
is the cells' own doing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from resilinet_jax.results.results import Column, Results, cell_of, mean, sample_deviation

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """A mean difference, as a fraction.

    Attributes:
      mean: over the pairs; NaN if there is none.
      half_width: of its confidence interval; NaN for fewer than two pairs.
      pairs: of runs, neither of which diverged.
    """

    mean: float
    half_width: float
    pairs: int

    @property
    def clear(self) -> bool:
        """Whether the confidence interval leaves out zero."""
        return abs(self.mean) > self.half_width

    def points(self) -> str:
        """`+2.10 ± 0.40`, in percentage points; without an interval for a single pair."""
        if not self.pairs:
            return "n/a"
        return f"{100 * self.mean:+.2f}" + ("" if self.pairs < 2 else f" ± {100 * self.half_width:.2f}")


def paired_difference(first: Float[np.ndarray, " runs"], second: Float[np.ndarray, " runs"]) -> Difference:
    """Mean difference of two measurements of the same runs, with Student's interval; pairs with a NaN are left out."""
    differences = first - second
    pairs = int(np.isfinite(differences).sum())
    if pairs < 2:
        return Difference(mean(differences), math.nan, pairs)
    from scipy.special import stdtrit  # takes a while, which a mistake in the flags need not wait for

    quantile = float(stdtrit(pairs - 1, (1 + CONFIDENCE) / 2))
    return Difference(mean(differences), quantile * sample_deviation(differences) / math.sqrt(pairs), pairs)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two cells where the same nodes may fail.

    Attributes:
      subject: what both are, in front of their names; may be empty.
      names: of the two, as in a sentence: with the subject `failout`, `5 %` and `10 %`.
      where: `under hazardous failures`, `while n1 fails`.
      accuracy: of each run, for each of the two; NaN where it diverged.
      left_out: how far a difference may be off because not all failure combinations were evaluated.
    """

    subject: str
    names: tuple[str, str]
    where: str
    accuracy: tuple[Float[np.ndarray, " runs"], Float[np.ndarray, " runs"]]
    left_out: float = 0.0

    @functools.cached_property
    def difference(self) -> Difference:
        """The first minus the second."""
        exact = paired_difference(*self.accuracy)
        return exact._replace(half_width=exact.half_width + self.left_out)

    @property
    def pair(self) -> str:
        """Both names: `failout 5 % − 10 %`."""
        return f"{self.subject} {self.names[0]} − {self.names[1]}".strip()

    def sentence(self) -> str:
        """What may be claimed: that one beats the other only if the interval leaves out zero."""
        difference = self.difference
        both = f"{self.subject} {self.names[0]} and {self.names[1]}".strip()
        if not difference.pairs:
            return f"{both} can't be compared {self.where}: no run in which neither diverged"
        if difference.pairs < 2:
            return (
                f"{both} differ by {100 * difference.mean:+.1f} points {self.where} in a single run, "
                "which gives no interval"
            )
        size, half_width = _rounded(difference)
        if not difference.clear:
            return f"{both} can't be told apart {self.where} (difference {size} ± {half_width} points)"
        winner, loser = self.names if difference.mean > 0 else self.names[::-1]
        beats = f"{self.subject} {winner} beats {loser}".strip()
        return f"{beats} {self.where} by {size.lstrip('+-')} ± {half_width} points"


def against(
    results: Results, subject: str, reference: tuple[str, Column], others: Mapping[str, Column]
) -> list[Comparison]:
    """A reference against others, by their average accuracies under each failure setting.

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
            results.left_out(setting),
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


def _rounded(difference: Difference) -> tuple[str, str]:
    """Mean and half width in points, with as few digits as tell the same story as all of them."""
    size, half_width = 100 * difference.mean, 100 * difference.half_width
    for digits in range(1, 5):
        told = round(abs(size), digits) > round(half_width, digits)
        if told == difference.clear and (round(half_width, digits) or not half_width):
            break
    return f"{size:+.{digits}f}", f"{half_width:.{digits}f}"
