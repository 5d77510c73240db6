"""Section 2.3: scaling by survival at inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.report.figures import averages, lines, new_figure, shared_legend
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = (0.05, 0.1, 0.3, 0.5)
READINGS = {"as trained": "failout_{}", "scaled": "failout_{}_scaled"}


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Each failout rate with and without scaling; one training serves both."""
    return {
        name.format(rate): build("resilinet", failout_rate=rate, survival_scaling=reading == "scaled")
        for rate in RATES
        for reading, name in READINGS.items()
    }


def tables(results: Results) -> list[Table]:
    """A row per rate and reading."""
    rows = [
        [f"{rate:.0%}, {reading}"]
        + [percent(results.average(name.format(rate), setting)) for setting in results.failure_settings]
        for rate in RATES
        for reading, name in READINGS.items()
    ]
    columns = ["Failout rate", *(setting.capitalize() for setting in results.failure_settings)]
    title = f"Average {results.told_by.name} (%) with and without survival scaling at inference"
    return [Table(title, columns, rows)]


def comparisons(results: Results) -> list[Comparison]:
    """Both readings of each rate."""
    pairs = [(rate, [(reading, name.format(rate)) for reading, name in READINGS.items()]) for rate in RATES]
    return [
        comparison
        for rate, (first, second) in pairs
        for comparison in against(results, f"failout {100 * rate:.0f} %,", first, dict([second]))
    ]


def figure(results: Results) -> Figure:
    """Lines over the rate, beside each other."""
    drawn, axes = new_figure(panels=2)
    for ax, (reading, name) in zip(axes, READINGS.items()):
        series = averages(results, [name.format(rate) for rate in RATES])
        lines(ax, [100 * rate for rate in RATES], series, "failout rate (%)", results.told_by.name)
        ax.set_title(reading, fontsize="medium")
    shared_legend(drawn, axes[0])
    return drawn


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons)
