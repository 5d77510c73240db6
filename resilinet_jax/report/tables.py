"""Tables of what was measured, for people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from resilinet_jax.errors import UserError
from resilinet_jax.report.markup import markdown
from resilinet_jax.results.comparisons import Family
from resilinet_jax.results.estimate import CONFIDENCE
from resilinet_jax.results.results import Column, Results, cell_of, finite, mean, sample_deviation

GAP = 2  # blanks between two columns


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for people: text in a title, columns and rows.

    Attributes:
      title: what it shows, in a line.
      columns: their headings.
      rows: an entry for each column.
      names: how many columns, from the first one on, say what a row is about.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1

    def __post_init__(self) -> None:
        """Refuses what could not be printed.

        Raises:
          UserError: naming the table and the row.
        """
        for row in (self.columns, *self.rows):
            if len(row) != len(self.columns) or not all(isinstance(entry, str) for entry in row):
                what = f"table {self.title!r}: expected {len(self.columns)} texts in each row"
                raise UserError(f"{what}, one for each column, got {list(row)}")

    def parts(self, widths: Sequence[int], room: int) -> list[list[int]]:
        """The columns of each of the parts in which the table fits a screen, by number; all parts name the rows.

        Args:
          widths: of the columns, in characters.
          room: that a line has, in characters. A part of one column may need more.
        """
        names = list(range(self.names))
        parts = [names]
        for column in range(self.names, len(self.columns)):
            wider = [*parts[-1], column]
            if parts[-1] != names and sum(widths[each] + GAP for each in wider) - GAP > room:
                wider = [*names, column]
                parts.append(wider)
            parts[-1] = wider
        return parts

    def markdown(self) -> str:
        """The table as GitHub-flavoured Markdown; the first column is the rows' names."""
        heading, *rows = [list(map(markdown, row)) for row in (self.columns, *self.rows)]
        lines = [heading, ["---", *["---:"] * (len(self.columns) - 1)], *rows]
        return f"**{markdown(self.title)}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(values: Float[np.ndarray, " runs"], digits: int = 2) -> str:
    """Fractions as mean ± sample deviation in percent, as people read it.

    The mean alone for a single run; with the number of runs where some diverged (NaN), `97.10 ± 0.20 (9/10 runs)`;
    `failed (0/10 runs)` where all did; `n/a` of no runs at all.
    """
    kept, runs = len(finite(values)), len(values)
    if not runs:
        return "n/a"
    if not kept:
        return f"failed (0/{runs} runs)"
    told = f"{100 * mean(values):.{digits}f}"
    if kept > 1:
        told += f" ± {100 * sample_deviation(values):.{digits}f}"
    return told if kept == runs else f"{told} ({kept}/{runs} runs)"


def error_table(results: Results, label: str, cell: str) -> list[Table]:
    """How far predicted numbers are off while nodes fail, in their own units.

    Args:
      results: of a sweep.
      label: what the cell is called.
      cell: its name.

    Returns:
      One table, of means over the runs that did not diverge; none where there were classes.
    """
    if not results.target_names:
        return []
    outcomes = results.measured[cell].outcomes
    errors = outcomes[np.isfinite(outcomes).all((1, 2, 3))]
    off = np.stack([np.sqrt(errors[..., 0]), errors[..., 1]], -1)  # [runs, combinations, targets, 2]
    rows = []
    for failing in results.shown_sets(results.usual_setting):
        of_runs = off[:, results.failing_sets.index(failing)].reshape(len(off), 2 * len(results.target_names))
        entries = [f"{value:.4g}" for value in of_runs.mean(0)] if len(off) else ["failed"] * of_runs.shape[1]
        rows.append([", ".join(failing) or "None", *entries])
    columns = [f"{name}, {error}" for name in results.target_names for error in ("RMSE", "MAE")]
    return [Table(f"Errors while nodes fail, in own units, {label}", ["Failing nodes", *columns], rows)]


def setting_table(title: str, results: Results, columns: Mapping[str, Column], digits: int = 2) -> Table:
    """Averages of the metric with a row per failure setting, as most tables of the paper have it.

    Args:
      title: of the table.
      results: of the sweep.
      columns: by heading; n/a where there is no cell.
      digits: after the point.
    """

    def entry(column: Column, setting: str) -> str:
        cell = cell_of(column, setting)
        return "n/a" if cell is None else percent(results.average(cell, setting), digits)

    rows = [
        [setting.capitalize(), *(entry(column, setting) for column in columns.values())]
        for setting in results.failure_settings
    ]
    return Table(title, ["Failures", *columns], rows)


def interval_table(results: Results) -> Table:
    """How wide the intervals are in which the averages lie, where not all combinations were evaluated."""
    rows = [
        [setting.capitalize(), f"{100 * results.left_out(setting):.2g}", f"± {50 * results.left_out(setting):.2g}"]
        for setting in results.failure_settings
    ]
    title = f"Intervals (points) around the average {results.told_by.plural}, which hold the exact ones"
    return Table(title, ["Failures", "Width", "Around the middle"], rows)


def p_value(p: float) -> str:
    """`0.012`, or `<0.001`; `n/a` for NaN."""
    return "n/a" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def comparison_table(family: Family) -> Table:
    """Differences with a row for each pair and a column for each setting or failure combination."""
    places = list(dict.fromkeys(each.where for each in family.comparisons))
    by_pair: dict[str, dict[str, str]] = {}
    for claim in family.claims:
        each = claim.comparison
        p = "" if math.isnan(claim.p) else f" (p {p_value(claim.p)})"
        by_pair.setdefault(each.pair, {})[each.where] = each.difference.points() + p
    rows = [[pair, *(told.get(place, "n/a") for place in places)] for pair, told in by_pair.items()]
    headings = [place.removeprefix("under ").removeprefix("while ") for place in places]
    intervals = f"{CONFIDENCE:.0%} intervals, p corrected for {family.tested} comparisons (Holm)"
    title = f"Paired differences ({family.points}), {intervals}"
    return Table(title, ["Difference", *headings], rows)
