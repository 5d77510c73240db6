"""Table 2: vanilla, DFG, ResiliNet while nodes fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.failures.combinations import combination_name
from resilinet_jax.report.class_recall import most_hurt_table, recall_figure
from resilinet_jax.report.figures import Drawn, grouped_bars, new_figure
from resilinet_jax.report.scaled_failures import scaled_figure
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, error_table, percent
from resilinet_jax.results.comparisons import Comparison, while_failing
from resilinet_jax.results.results import Results

from .average_accuracy import METHODS, cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tables(results: Results) -> list[Table]:
    """Every failure combination with its probability; the classes that a failure hurts, or how far numbers are off."""
    setting = results.usual_setting
    probabilities = dict(zip(results.failing_sets, results.combination_probability(setting)))
    rows = [
        [
            _named(results, failing) or ", ".join(failing) or "None",
            _percent_of(probabilities[failing]),
            *(percent(results.under(cell, failing)) for cell in METHODS.values()),
        ]
        for failing in results.shown_sets(setting)
    ]
    title, columns = (
        f"{results.told_by.title} (%) while nodes fail",
        ["Failing nodes", f"Prob. (%), {setting}", *METHODS],
    )
    first = next(iter(METHODS.items()))
    return [Table(title, columns, rows), *most_hurt_table(results, *first), *error_table(results, *first)]


def comparisons(results: Results) -> list[Comparison]:
    """ResiliNet against the other two, wherever a path is left."""
    (first, reference), *others = METHODS.items()
    return [
        Comparison(
            "",
            (first, label),
            while_failing(failing),
            (results.under(reference, failing), results.under(cell, failing)),
            results.units,
            points=results.told_by.points,
        )
        for label, cell in others
        for failing in results.shown_sets(results.usual_setting)
        if results.leaves_path(failing)
    ]


def figure(results: Results) -> Figure:
    """The metric under each failure combination, as bars."""
    drawn, (ax,) = new_figure()
    shown = results.shown_sets(results.usual_setting)
    series = {label: [results.under(cell, failing) for failing in shown] for label, cell in METHODS.items()}
    names = [_named(results, failing) or combination_name(failing).replace("+", "+\n") for failing in shown]
    grouped_bars(ax, names, series, what=results.told_by.name)
    ax.set_xlabel("failing nodes")
    return drawn


def more_figures(results: Results) -> list[Drawn]:
    """What the metric averages to while failures get rarer or more frequent; which classes a failure hurts."""
    names = [_named(results, each) or combination_name(each) for each in results.shown_sets(results.usual_setting)]
    return [*scaled_figure(results, METHODS), *recall_figure(results, METHODS, names)]


def _named(results: Results, failing: tuple[str, ...]) -> str:
    """What the row says that stands for all combinations without a path, where not all are evaluated; else nothing."""
    return "" if results.combinations.complete or results.leaves_path(failing) else "No path left"


def _percent_of(probability: float) -> str:
    return f"{100 * probability:.2f}" if probability >= 0.0001 else f"{100 * probability:.1g}"


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons, more_figures=more_figures)
