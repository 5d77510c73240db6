"""Table 3: the rate of failout in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.report.figures import Drawn, averages, lines, new_figure, shared_legend
from resilinet_jax.report.scaled_failures import scaled_figure
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent, setting_table
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Column, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = (0.05, 0.1, 0.3, 0.5)
AT_RATE = {f"{rate:.0%}": f"failout_{rate}" for rate in RATES}


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Fixed rates, and `failure`: each node's rate is its failure probability, so it trains once per setting."""
    fixed = {f"failout_{rate}": build("resilinet", failout_rate=rate) for rate in RATES}
    failure = {
        f"failout_failure_{setting}": build("resilinet", failout_rate=probability)
        for setting, probability in build.failure_settings.items()
        if any(probability.values())
    }
    return fixed | failure


def tables(results: Results) -> list[Table]:
    """Table 3, and what it would read if failout had been left on while testing."""
    failure = _at_failure_probability(results)
    left_on = [
        [setting.capitalize()]
        + [percent(results.average_with_failout(failure[setting], setting)) if setting in failure else "n/a"]
        + [percent(results.average_with_failout(cell, setting)) for cell in AT_RATE.values()]
        for setting in results.failure_settings
    ]
    average = f"Average {results.told_by.name} (%)"
    honest = setting_table(f"{average} by failout rate", results, {"Failure": failure, **AT_RATE})
    return [honest, Table(f"{average} if failout is left on while testing", honest.columns, left_on)]


def comparisons(results: Results) -> list[Comparison]:
    """The paper's best rate against the others."""
    (first, reference), *rest = ((label.replace("%", " %"), cell) for label, cell in AT_RATE.items())
    others: dict[str, Column] = dict(rest)
    others["each node's failure probability"] = _at_failure_probability(results)
    return against(results, "failout", (first, reference), others)


def _at_failure_probability(results: Results) -> dict[str, str]:
    """The cell whose rates are the failure probabilities of each failure setting that has any."""
    names = {setting: f"failout_failure_{setting}" for setting in results.failure_settings}
    return {setting: name for setting, name in names.items() if name in results.cells}


def figure(results: Results) -> Figure:
    """Both tables as lines over the rate."""
    drawn, (honest, left_on) = new_figure(panels=2)
    names = list(AT_RATE.values())
    percents = [100 * rate for rate in RATES]
    what = results.told_by.name
    lines(honest, percents, averages(results, names), "failout rate (%)", what)
    with_failout = {s: [results.average_with_failout(name, s) for name in names] for s in results.failure_settings}
    lines(left_on, percents, with_failout, "failout rate (%)", what)
    honest.set_title("as trained, then tested", fontsize="medium")
    left_on.set_title("failout left on while testing", fontsize="medium")
    shared_legend(drawn, honest)
    return drawn


def more_figures(results: Results) -> list[Drawn]:
    """The fixed rates while the failures get rarer or more frequent."""
    return scaled_figure(results, AT_RATE)


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons, more_figures=more_figures)
