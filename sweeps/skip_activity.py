"""Beyond the paper: how active skips are in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resilinet_jax.cells import METHODS, Cell, CellBuilder
from resilinet_jax.failures.combinations import combination_name
from resilinet_jax.report.figures import averages, lines, new_figure, shared_legend
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACTIVITIES = (0.0, 0.2, 0.5, 0.8, 1.0)
AT_INFERENCE = {"select": 0, "add": 1}


def cell_name(activity: float, inference: str) -> str:
    """`activity_0.8_select`, ..."""
    return f"activity_{activity:g}_{inference}"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Each activity in training, with both at inference; one training serves both."""
    return {
        cell_name(training, inference): build("resilinet", training_activity=training, inference_activity=activity)
        for training in ACTIVITIES
        for inference, activity in AT_INFERENCE.items()
    }


def tables(results: Results) -> list[Table]:
    """Averages, and the metric under each combination that leaves a path."""
    pairs = [(training, inference) for inference in AT_INFERENCE for training in ACTIVITIES]
    settings = list(results.failure_settings)
    informed = [failing for failing in results.shown_sets(results.usual_setting) if results.leaves_path(failing)]
    average_rows = [
        [f"{training:g} → {inference}"]
        + [percent(results.average(cell_name(training, inference), setting)) for setting in settings]
        for training, inference in pairs
    ]
    return [
        Table(
            f"Average {results.told_by.name} (%) by skip activity in training → at inference",
            ["Activity", *(setting.capitalize() for setting in settings)],
            average_rows,
        ),
        *(_while_failing(results, informed, inference) for inference in AT_INFERENCE),
    ]


def _while_failing(results: Results, failing_sets: Sequence[tuple[str, ...]], inference: str) -> Table:
    rows = [
        [combination_name(failing)]
        + [percent(results.under(cell_name(training, inference), failing), digits=1) for training in ACTIVITIES]
        for failing in failing_sets
    ]
    title = f"{results.told_by.title} (%) while nodes fail, {inference} at inference, by skip activity in training"
    return Table(title, ["Failing nodes", *(f"{training:g}" for training in ACTIVITIES)], rows)


def comparisons(results: Results) -> list[Comparison]:
    """The project's default against other activities in training, and against always adding, as their ResiliNet+."""
    column = {f"{training:g} → select": cell_name(training, "select") for training in ACTIVITIES}
    default = f"{METHODS['resilinet']['training_activity']:g} → select"
    others = {name: cell for name, cell in column.items() if name != default}
    return against(results, "activity", (default, column[default]), others | {"1 → add": cell_name(1.0, "add")})


def figure(results: Results) -> Figure:
    """Lines over the activity in training, a panel for select and one for add."""
    drawn, axes = new_figure(panels=2)
    for ax, inference in zip(axes, AT_INFERENCE):
        names = [cell_name(training, inference) for training in ACTIVITIES]
        lines(ax, ACTIVITIES, averages(results, names), "skip activity in training", results.told_by.name)
        ax.set_title(f"{inference} at inference", fontsize="medium")
    shared_legend(drawn, axes[0])
    return drawn


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons)
