"""Fig. 5: five schemes of weights; and learned weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resilinet_jax.cells import Cell, CellBuilder, Learned, Uniform, relative_reliability
from resilinet_jax.report.figures import new_figure
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, setting_table
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Column, Results, mean, sample_deviation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By column: the cell's name, which for the two heuristics holds the failure setting that they know.
SCHEMES = {
    "One": "weight_one",
    "Reliability": "weight_reliability_{}",
    "Relative": "weight_relative_{}",
    "U(0,1)": "weight_uniform_0_1",
    "U(0,10)": "weight_uniform_0_10",
}
LEARNED = "weight_learned"  # beyond the paper
COMPARED = ("One", "Reliability", "Relative", "U(0,1)")  # those that Fig. 5 compares


def scheme_cell(label: str, setting: str) -> str:
    """The name of a scheme's cell, as it is trained for a failure setting."""
    return SCHEMES[label].format(setting.replace(" ", "_"))


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Weights of one, by reliability, by relative reliability, and drawn by each run."""
    heuristics = {}
    for setting in build.failure_settings:
        reliability = build.reliability(setting)
        by_source = {edge.name: reliability[edge.source] for edge in build.graph.hyperconnections}
        heuristics[scheme_cell("Reliability", setting)] = build("resilinet", weight=by_source)
        relative = relative_reliability(build.graph, reliability)
        heuristics[scheme_cell("Relative", setting)] = build("resilinet", weight=relative)
    return {
        "weight_one": build("resilinet"),
        **heuristics,
        "weight_uniform_0_1": build("resilinet", weight=Uniform(0, 1)),
        "weight_uniform_0_10": build("resilinet", weight=Uniform(0, 10)),
        LEARNED: build("resilinet", weight=Learned(1.0)),
    }


def tables(results: Results) -> list[Table]:
    """The averages, Fig. 5's deviations among the schemes, and what is learned."""
    learned: dict[str, Column] = {"One": _columns(results)["One"], "Learned": LEARNED}
    weights = results.measured[LEARNED].weight
    rows = [[edge.name, _spread(weights[:, i])] for i, edge in enumerate(results.graph.hyperconnections)]
    deviations = [[s.capitalize(), _points(deviation_among(results, s))] for s in results.failure_settings]
    average = f"Average {results.told_by.name} (%)"
    return [
        setting_table(f"{average} by hyperconnection weight", results, _columns(results)),
        Table(f"Deviation (points) among the schemes {', '.join(COMPARED)}", ["Failures", "Deviation"], deviations),
        setting_table(f"{average} with weights that are learned, from one", results, learned),
        Table("Learned weights", ["Hyperconnection", "Weight"], rows),
    ]


def deviation_among(results: Results, setting: str) -> float:
    """Sample standard deviation among the mean averages of the compared schemes; NaN if one has none."""
    columns = _columns(results)
    if not all(setting in columns[label] for label in COMPARED):
        return float("nan")
    means = [mean(results.average(columns[label][setting], setting)) for label in COMPARED]
    return float(np.std(means, ddof=1))


def comparisons(results: Results) -> list[Comparison]:
    """Weights of one against the other schemes."""
    (first, reference), *others = _columns(results).items()
    return against(results, "weight", (first.lower(), reference), {**dict(others), "learned": LEARNED})


def _columns(results: Results) -> dict[str, dict[str, str]]:
    """Each scheme's cells by failure setting; no weights were trained for a user's own."""
    names = {label: {setting: scheme_cell(label, setting) for setting in results.failure_settings} for label in SCHEMES}
    return {
        label: {setting: name for setting, name in own.items() if name in results.cells} for label, own in names.items()
    }


def _spread(weights: np.ndarray) -> str:
    deviation = sample_deviation(weights)
    return f"{mean(weights):.3f}" + ("" if np.isnan(deviation) else f" ± {deviation:.3f}")


def _points(deviation: float) -> str:
    return "n/a" if np.isnan(deviation) else f"{100 * deviation:.2f}"


def figure(results: Results) -> Figure:
    """The deviations as bars, as in the paper."""
    drawn, (ax,) = new_figure(height=3)
    settings = list(results.failure_settings)
    deviations = [deviation_among(results, setting) for setting in settings]
    bars = ax.bar(
        [setting.capitalize() for setting in settings],
        [100 * deviation for deviation in deviations],
        width=0.5,
        edgecolor="black",
        linewidth=0.5,
    )
    ax.set_xlim(-0.6, len(settings) - 0.4)  # a missing bar keeps its place
    ax.bar_label(bars, [_points(deviation) for deviation in deviations])
    ax.set_ylabel("deviation among schemes (points)")
    return drawn


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons)
