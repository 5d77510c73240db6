"""Beyond the paper: the best failout rate, finely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.report.figures import averages, lines, new_figure, shared_legend, style_of_line
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.best import Best, best_of
from resilinet_jax.results.comparisons import Comparison, against, under_setting
from resilinet_jax.results.estimate import CONFIDENCE
from resilinet_jax.results.results import Results
from resilinet_jax.results.units import Units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = (0.0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
USUAL, COMPARED = 0.05, (0.0, 0.1, 0.2, 0.3, 0.5)  # the paper's best rate, and those that it is compared with


def cell_name(rate: float) -> str:
    """`failout_0.05`, ..."""
    return f"failout_{rate:g}"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """One cell per failout rate, equal for all nodes; those shared with `failout_rate` are not trained twice."""
    return {cell_name(rate): build("resilinet", failout_rate=rate) for rate in RATES}


def best_rate(results: Results, setting: str) -> Best[float]:
    """The rate with the best mean average under a failure setting, and those that may be it as well."""
    values = {rate: results.average(cell_name(rate), setting) for rate in RATES}
    return best_of(values, results.units, results.left_out(setting))


def tables(results: Results) -> list[Table]:
    """The best rate for each failure setting, and the averages that it is taken from.

    Its own average flatters it a little: it was chosen for having the highest one in these runs.
    """
    settings = list(results.failure_settings)
    best = {setting: best_rate(results, setting) for setting in settings}
    answer = [
        [setting.capitalize(), _told(each), _interval(each), _average(results, each, setting)]
        for setting, each in best.items()
    ]
    rows = [
        [_percent(rate), *(percent(results.average(cell_name(rate), setting)) for setting in settings)]
        for rate in RATES
    ]
    return [
        Table(
            f"The best failout rate and its average {results.told_by.name} (%)",
            ["Failures", "Best rate", f"{CONFIDENCE:.0%} interval", results.told_by.title],
            answer,
        ),
        Table(f"Average {results.told_by.name} (%) by failout rate", ["Rate", *map(str.capitalize, settings)], rows),
    ]


def sentences(results: Results) -> list[str]:
    """The best rate for each failure setting, in a sentence."""
    return [
        _sentence(best, under_setting(results, setting), results.units)
        for setting in results.failure_settings
        if (best := best_rate(results, setting)).candidate is not None
    ]


def comparisons(results: Results) -> list[Comparison]:
    """The paper's best rate against others, which were chosen before anything was measured."""
    others = {_percent(rate): cell_name(rate) for rate in COMPARED}
    return against(results, "failout", (_percent(USUAL), cell_name(USUAL)), others)


def figure(results: Results) -> Figure:
    """Lines over the rate; below them the best rate with its interval."""
    settings = list(results.failure_settings)
    drawn, (ax, below) = new_figure(height=4.2, stacked=(3, 0.22 * len(settings)))
    percents = [100 * rate for rate in RATES]
    lines(ax, percents, averages(results, [cell_name(rate) for rate in RATES]), "", results.told_by.name)
    for place, setting in enumerate(settings):
        best = best_rate(results, setting)
        if best.candidate is None:
            continue
        style = style_of_line(place)
        below.plot(100 * best.candidate, place, color=style["color"], marker=style["marker"])
        if best.known:
            low, high = best.interval
            below.hlines(place, 100 * low, 100 * high, color=style["color"], linewidth=1.2)
    below.set_xticks(range(0, 51, 5))
    below.set_yticks(range(len(settings)), [setting.capitalize() for setting in settings])
    below.set_ylim(len(settings) - 0.5, -0.5)
    below.grid(axis="x", linewidth=0.4, alpha=0.6)
    below.set_xlabel(f"failout rate (%); below: the best one and its {CONFIDENCE:.0%} interval")
    shared_legend(drawn, ax)
    return drawn


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _told(best: Best[float]) -> str:
    return "failed" if best.candidate is None else _percent(best.candidate)


def _interval(best: Best[float]) -> str:
    if not best.known or best.candidate is None:
        return "n/a"
    low, high = best.interval
    return _percent(low) if low == high else f"{100 * low:g} to {_percent(high)}"


def _sentence(best: Best[float], where: str, units: Units) -> str:
    if not best.known:
        return f"The best failout rate {where} is {_told(best)} in a single {units.noun}, which gives no interval"
    if best.interval == (RATES[0], RATES[-1]):
        return (
            f"The best failout rate {where} can't be told from these {units.plural}: {_told(best)} is ahead, "
            f"but any from {_interval(best)} may be the best"
        )
    return f"The best failout rate {where} is {_told(best)} ({CONFIDENCE:.0%} interval: {_interval(best)})"


def _average(results: Results, best: Best[float], setting: str) -> str:
    rate = RATES[0] if best.candidate is None else best.candidate
    return percent(results.average(cell_name(rate), setting))


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons, sentences=sentences)
