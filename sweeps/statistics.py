"""Beyond the paper: statistics of batch normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from resilinet_jax.cells import METHODS, STATISTICS, Cell, CellBuilder
from resilinet_jax.errors import listed
from resilinet_jax.report.figures import Drawn, grouped_bars, new_figure
from resilinet_jax.report.scaled_failures import scaled_figure
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.comparisons import Comparison, against, under_setting, while_failing
from resilinet_jax.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNNING, SHARED, RECALIBRATED = STATISTICS
PAIRS = ((RECALIBRATED, RUNNING), (RUNNING, SHARED))


def cell_name(method: str, kind: str) -> str:
    """`dfg_recalibrated`, ..."""
    return f"{method}_{kind}"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Every method with each kind of statistics; recalibrated ones need no training of their own."""
    return {cell_name(method, kind): build(method, statistics=kind) for method in METHODS for kind in STATISTICS}


def tables(results: Results) -> list[Table]:
    """Under each failure setting, and under each combination that leaves a path, what each kind brings each method."""
    informed = [failing for failing in results.shown_sets(results.usual_setting) if results.leaves_path(failing)]
    return [
        *(
            _table(f"Average {results.told_by.name} (%) {under_setting(results, setting)}", results.average, setting)
            for setting in results.failure_settings
        ),
        *(
            _table(f"{results.told_by.title} (%) {while_failing(failing)}", results.under, failing)
            for failing in informed
        ),
    ]


def _table(title: str, values: Callable[[str, Any], np.ndarray], where: Any) -> Table:
    rows = [[method, *(percent(values(cell_name(method, kind), where)) for kind in STATISTICS)] for method in METHODS]
    return Table(title, ["Method", *(kind.capitalize() for kind in STATISTICS)], rows)


def comparisons(results: Results) -> list[Comparison]:
    """ResiliNet against DFG where both have all that statistics can give; and what each kind adds to each method."""
    reference, other = (cell_name(method, RECALIBRATED) for method in ("resilinet", "dfg"))
    made = against(results, RECALIBRATED, ("resilinet", reference), {"dfg": other})
    for method in METHODS:
        for first, second in PAIRS:
            if not _same(results, method, first, second):
                made += against(results, method, (first, cell_name(method, first)), {second: cell_name(method, second)})
    return made


def _same(results: Results, method: str, first: str, second: str) -> bool:
    one, other = (results.cells[cell_name(method, kind)] for kind in (first, second))
    return one.key() == other.key()


def sentences(results: Results) -> list[str]:
    """Where kinds of statistics can't differ, and why."""
    if all(_same(results, method, *pair) for method in METHODS for pair in PAIRS):
        return ["Without batch normalisation running, shared and recalibrated statistics are the same"]
    one = [method for method in METHODS if _same(results, method, RUNNING, SHARED)]
    if not one:
        return []
    why = "training shows each node but one arrival"
    return [f"Running and shared statistics are the same for {listed(one)}: {why}"]


def figure(results: Results) -> Figure:
    """Each method with each kind of statistics, where most fails."""
    drawn, (ax,) = new_figure()
    setting = results.harshest_setting
    series = {kind: [results.average(cell_name(method, kind), setting) for method in METHODS] for kind in STATISTICS}
    grouped_bars(ax, [method.replace("_", "_\n") for method in METHODS], series)
    ax.set_ylabel(f"average {results.told_by.name} (%)")
    ax.set_xlabel(under_setting(results, setting))
    return drawn


def more_figures(results: Results) -> list[Drawn]:
    """ResiliNet and its honest opponent while the failures get rarer or more frequent."""
    methods = {"ResiliNet": "resilinet", "DFG": "dfg"}
    return scaled_figure(
        results, {f"{label}, {RECALIBRATED}": cell_name(method, RECALIBRATED) for label, method in methods.items()}
    )


SWEEP = Sweep(
    cells=cells,
    tables=tables,
    figure=figure,
    comparisons=comparisons,
    sentences=sentences,
    more_figures=more_figures,
)
