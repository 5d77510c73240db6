"""Fig. 6: every subset of the skip hyperconnections."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.network.graph import Graph
from resilinet_jax.report.figures import averages, grouped_bars, new_figure
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.best import best_of
from resilinet_jax.results.comparisons import Comparison, against, under_setting
from resilinet_jax.results.estimate import CONFIDENCE, estimate
from resilinet_jax.results.results import Results, mean
from resilinet_jax.results.shapley import shapley_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRESENT, REMOVED = "●", "○"  # of the same width, as several of them share a column
MOST_COLUMNS = 3  # of marks; the marks of more skips share one


def configurations(graph: Graph) -> list[tuple[str, ...]]:
    """Subsets of the skips' labels in the paper's order: by size, the skips nearest to the cloud first."""
    labels = [graph.skip_label(skip) for skip in reversed(graph.skips)]
    return [chosen for size in range(len(labels) + 1) for chosen in itertools.combinations(labels, size)]


def cell_name(chosen: Sequence[str]) -> str:
    """`skips_none`, `skips_n2+i`, ..."""
    return f"skips_{'+'.join(chosen) or 'none'}"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """A removed skip is absent in training and at inference."""
    return {cell_name(chosen): build("resilinet", skips=chosen) for chosen in configurations(build.graph)}


def tables(results: Results) -> list[Table]:
    """Fig. 6's numbers beside the skips that are present."""
    labels = [results.graph.skip_label(skip) for skip in results.graph.skips]
    average = f"Average {results.told_by.name}"
    headings, title = labels, f"{average} (%) by the skips that are present"
    together = len(labels) > MOST_COLUMNS
    if together:
        headings, title = ["Skips"], f"{average} (%) by the skips {', '.join(labels)}"

    def marks(chosen: Sequence[str]) -> list[str]:
        each = [PRESENT if label in chosen else REMOVED for label in labels]
        return ["".join(each)] if together else each

    rows = [
        [str(number), *marks(chosen)]
        + [percent(results.average(cell_name(chosen), setting)) for setting in results.failure_settings]
        for number, chosen in enumerate(configurations(results.graph), 1)
    ]
    columns = ["Config", *headings, *(setting.capitalize() for setting in results.failure_settings)]
    made = [Table(title, columns, rows)]
    if labels:
        worth = [
            [setting.capitalize(), label, percent(added), _interval(results, added, setting)]
            for setting in results.failure_settings
            for label, added in {**ranking(results, setting), "all": _all_add(results, setting)}.items()
        ]
        adds = f"{average} (points) that each skip adds (Shapley values)"
        made.append(Table(adds, ["Failures", "Skip", "Adds", f"{CONFIDENCE:.0%} interval"], worth, names=2))
    return made


def ranking(results: Results, setting: str) -> dict[str, np.ndarray]:
    """What each skip adds to each run's average (its Shapley value), by label, the greatest mean first."""
    worth = {frozenset(chosen): results.average(cell_name(chosen), setting) for chosen in configurations(results.graph)}
    values = shapley_values(worth)
    return dict(sorted(values.items(), key=lambda item: -np.nan_to_num(mean(item[1]), nan=-np.inf)))


def sentences(results: Results) -> list[str]:
    """The ranking for each failure setting in a sentence, and how sure its first place is."""
    return [
        f"Skips by what they add to the average {results.told_by.name} {under_setting(results, setting)} "
        "(points, Shapley values): "
        f"{', '.join(f'{label} {100 * mean(added):+.1f}' for label, added in ranked.items())}"
        + _first(results, setting, ranked)
        for setting in results.failure_settings
        if (ranked := ranking(results, setting)) and not any(np.isnan(mean(added)) for added in ranked.values())
    ]


def _first(results: Results, setting: str, ranked: dict[str, np.ndarray]) -> str:
    """Which skips may be the first; the first two are not compared, since the data chose them."""
    best = best_of(ranked, results.units, results.left_out(setting), questions=len(results.failure_settings))
    if len(ranked) < 2 or not best.known:
        return ""
    possible = [label for label in ranked if label in best.possible]
    if len(possible) == 1:
        return f"; {possible[0]} adds the most"
    return f"; {', '.join(possible[:-1])} or {possible[-1]} may add the most"


def _all_add(results: Results, setting: str) -> np.ndarray:
    """All skips against none, which is what the skips add together."""
    none, *_, everything = configurations(results.graph)  # there is at least one skip
    return results.average(cell_name(everything), setting) - results.average(cell_name(none), setting)


def _interval(results: Results, added: np.ndarray, setting: str) -> str:
    # A Shapley value is a difference of two averages, each of them off by half of what was left out at most.
    return estimate(added, results.units, results.left_out(setting)).interval()


def comparisons(results: Results) -> list[Comparison]:
    """All skips against fewer."""
    names = {
        f"{number} ({'+'.join(chosen) or 'no skip'})": cell_name(chosen)
        for number, chosen in enumerate(configurations(results.graph), 1)
    }
    *others, last = names.items()
    return against(results, "config", last, dict(others))


def figure(results: Results) -> Figure:
    """Bars per configuration over a table of the skips that are present."""
    configs = configurations(results.graph)
    labels = [results.graph.skip_label(skip) for skip in results.graph.skips]
    drawn, (ax, *below) = new_figure(height=3.4 + 0.2 * len(labels), stacked=[3, *[0.2 * len(labels)] * bool(labels)])
    series = averages(results, [cell_name(chosen) for chosen in configs])
    grouped_bars(ax, [str(number) for number, _ in enumerate(configs, 1)], series, 4, f"average {results.told_by.name}")
    for panel in below:  # none without skips
        places = [(x, y, label in chosen) for x, chosen in enumerate(configs) for y, label in enumerate(labels)]
        for there, size in ((True, 40), (False, 2)):
            marked = [(x, y) for x, y, present in places if present == there]
            panel.scatter([x for x, _ in marked], [y for _, y in marked], s=size, color="black")
        panel.set_yticks(range(len(labels)), labels)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.grid(visible=False)
        panel.set_xlabel("config; a dot marks a skip that is present")
    return drawn


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons, sentences=sentences)
