"""Beyond the paper: skips that stand in for their nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.failures.combinations import combination_name
from resilinet_jax.report.figures import averages, lines, new_figure, shared_legend
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent, setting_table
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (0, 4, 16, 64)
COLUMNS = {f"{size} units" if size else "Plain": f"skip_layer_{size}" for size in SIZES}


def cells(build: CellBuilder) -> dict[str, Cell]:
    """A skip layer around each node, of each size; 0 is the paper's skip."""
    return {f"skip_layer_{size}": build("resilinet", skip_units=size) for size in SIZES}


def tables(results: Results) -> list[Table]:
    """Averages, and the metric under each combination that leaves a path."""
    informed = [failing for failing in results.shown_sets(results.usual_setting) if results.leaves_path(failing)]
    rows = [
        [combination_name(failing), *(percent(results.under(cell, failing)) for cell in COLUMNS.values())]
        for failing in informed
    ]
    return [
        setting_table(f"Average {results.told_by.name} (%) by the hidden units of skip layers", results, COLUMNS),
        Table(f"{results.told_by.title} (%) while nodes fail", ["Failing nodes", *COLUMNS], rows),
    ]


def comparisons(results: Results) -> list[Comparison]:
    """The paper's skips against skip layers."""
    (_, reference), *others = COLUMNS.items()
    return against(results, "skips", ("that are plain", reference), {f"with {name}": cell for name, cell in others})


def figure(results: Results) -> Figure:
    """Lines over the size."""
    drawn, (ax,) = new_figure()
    series = averages(results, list(COLUMNS.values()))
    lines(ax, range(len(SIZES)), series, "hidden units of each skip layer", results.told_by.name)
    ax.set_xticks(range(len(SIZES)), list(COLUMNS))
    shared_legend(drawn, ax)
    return drawn


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons, network={"skip_units": max(SIZES)})
