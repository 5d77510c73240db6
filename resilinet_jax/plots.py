"""Figures in the paper's manner, readable in black and white and by the colour-blind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resilinet_jax.results import Results, sample_deviation

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")  # Okabe and Ito
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
MARKERS = "osD^vP*X"

Series = Mapping[str, Sequence[np.ndarray]]  # by legend entry, for each place on the x axis, fractions over the runs


def new_figure(
    panels: int = 1, width: float = 7.0, height: float = 3.6, widths: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, of relative `widths`, that share their y axis."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", linewidth=0.4, alpha=0.6)
        ax.set_axisbelow(True)
    return figure, list(axes)


def grouped_bars(ax: Axes, groups: Sequence[str], series: Series, legend_columns: int = 3) -> None:
    """Bars of mean accuracy in percent, one per series in each group, with sample deviations as error bars."""
    width = 0.8 / len(series)
    for s, (name, values) in enumerate(series.items()):
        mean, deviation = _percent(values)
        place = np.arange(len(groups)) + (s - (len(series) - 1) / 2) * width
        style = _style(s)
        ax.bar(place, mean, width, yerr=deviation, capsize=2, label=name, edgecolor="black", linewidth=0.5, **style)
    ax.set_xticks(np.arange(len(groups)), groups)
    ax.set_ylim(0, 100)
    ax.set_ylabel("accuracy (%)")
    if len(series) > 1:
        ax.figure.legend(
            *ax.get_legend_handles_labels(), loc="outside upper center", ncols=legend_columns, frameon=False
        )


def lines(ax: Axes, x: Sequence[float], series: Series, xlabel: str) -> None:
    """Lines of mean accuracy in percent over `x`, with sample deviations as error bars."""
    for s, (name, values) in enumerate(series.items()):
        mean, deviation = _percent(values)
        ax.errorbar(x, mean, deviation, label=name, marker=MARKERS[s], color=COLOURS[s], capsize=2, linewidth=1.2)
    ax.set_xticks(x)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("average accuracy (%)")
    ax.label_outer()


def shared_legend(figure: Figure, ax: Axes, columns: int = 4) -> None:
    """One legend above all panels, with the entries of `ax`."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)


def averages(results: Results, cells: Sequence[str], setting: str) -> list[np.ndarray]:
    """Average accuracies of these cells under one failure setting, as `Series` values."""
    return [results.average(cell, setting) for cell in cells]


def setting_bars(results: Results, cells: Mapping[str, str], legend_columns: int = 3) -> Figure:
    """Average accuracy in groups by failure setting, a bar for each cell (by legend entry): Fig. 4's manner."""
    figure, (ax,) = new_figure()
    settings = list(results.failure_settings)
    series = {label: [results.average(cell, setting) for setting in settings] for label, cell in cells.items()}
    grouped_bars(ax, [setting.capitalize() for setting in settings], series, legend_columns)
    ax.set_ylabel("average accuracy (%)")
    return figure


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "hatch": HATCHES[index % len(HATCHES)]}


def _percent(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation in percent; a single run has no error bar."""
    mean = 100 * np.array([value.mean() for value in values])
    return mean, np.nan_to_num(100 * np.array([sample_deviation(value) for value in values]))
