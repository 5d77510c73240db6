"""Fig. 4: vanilla, DFG, ResiliNet by failure setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.report.figures import Drawn, setting_bars
from resilinet_jax.report.scaled_failures import scaled_figure
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, setting_table
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {"ResiliNet": "resilinet", "DFG": "dfg", "Vanilla": "vanilla"}


def cells(build: CellBuilder) -> dict[str, Cell]:
    """The three methods."""
    return {method: build(method) for method in METHODS.values()}


def tables(results: Results) -> list[Table]:
    """The figure's numbers."""
    return [setting_table(f"Average {results.told_by.name} (%)", results, METHODS)]


def comparisons(results: Results) -> list[Comparison]:
    """ResiliNet against the other two."""
    (first, reference), *others = METHODS.items()
    return against(results, "", (first, reference), dict(others))


def figure(results: Results) -> Figure:
    """Grouped bars, as in the paper."""
    return setting_bars(results, METHODS)


def more_figures(results: Results) -> list[Drawn]:
    """The average while the failures get rarer or more frequent."""
    return scaled_figure(results, METHODS)


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons, more_figures=more_figures)
