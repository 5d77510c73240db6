"""Figures in the paper's manner, readable in black and white and by the colour-blind.

Matplotlib takes half a second to import, so it is when the first figure is drawn: a mistake in the data is told before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resilinet_jax.errors import printable
from resilinet_jax.results.results import Column, Results, cell_of, finite, mean, sample_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")  # Okabe and Ito
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
MARKERS = "osD^vP*X"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
WIDTH = 5.6  # of a figure, in inches
CURVES = 6  # cells that share a panel of training curves
MOST_CURVES = 24  # cells that training curves are drawn for
LETTERS = 70  # that fit side by side below an axis


class Drawn(NamedTuple):
    """A figure that stands beside a sweep's own.

    Attributes:
      name: of its file, without the ending.
      caption: what it shows, in a sentence or two.
      figure: itself.
    """

    name: str
    caption: str
    figure: Figure


Series = Mapping[str, Sequence[np.ndarray]]  # by legend entry, for each place on the x axis, fractions over the runs


def new_figure(
    panels: int = 1, height: float = 3.6, share_y: bool = True, stacked: Sequence[float] = (), rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, or on top of each other; narrow enough to be read on a telephone.

    Args:
      panels: side by side, in each row.
      height: of the figure, in inches.
      share_y: whether panels side by side share their y axis.
      stacked: the relative heights of panels on top of each other, which share their x axis, instead.
      rows: of panels, which come row by row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    if stacked:
        axes = figure.subplots(len(stacked), 1, sharex=True, squeeze=False, height_ratios=stacked)[:, 0]
    else:
        axes = figure.subplots(rows, panels, sharey=share_y, squeeze=False).flatten()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", linewidth=0.4, alpha=0.6)
        ax.set_axisbelow(True)
    return figure, list(axes)


def grouped_bars(
    ax: Axes, groups: Sequence[str], series: Series, legend_columns: int = 3, what: str = "accuracy"
) -> None:
    """Draws bars of a metric's mean in percent, one per series in each group, with sample deviations as error bars.

    Args:
      ax: the panel to draw in.
      groups: their names, which go below the axis; may have several lines.
      series: by legend entry, for each group, values of the runs as fractions in [0, 1]; NaN leaves a run out.
      legend_columns: of the legend above the figure, which there is for two series or more.
      what: is drawn, as the axis says.
    """
    width, lowest = 0.8 / len(series), 0.0
    for s, (name, values) in enumerate(series.items()):
        height, deviation = _percent(values)
        below = np.where(height < 0, height - np.nan_to_num(deviation), 0.0)  # R² has no bound
        lowest = min(lowest, below.min(initial=0.0))
        place = np.arange(len(groups)) + (s - (len(series) - 1) / 2) * width
        style = _style(s)
        ax.bar(place, height, width, yerr=deviation, capsize=2, label=name, edgecolor="black", linewidth=0.5, **style)
    _name_groups(ax, groups)
    ax.set_ylim(1.05 * lowest, 100)
    ax.set_ylabel(f"{what} (%)")
    if len(series) > 1:
        ax.figure.legend(
            *ax.get_legend_handles_labels(), loc="outside upper center", ncols=legend_columns, frameon=False
        )


def _name_groups(ax: Axes, groups: Sequence[str]) -> None:
    """Writes the groups' names below the axis, in their lines; upright and in one line where they don't fit."""
    widest = max(len(line) for group in groups for line in group.split("\n"))
    if len(groups) * (widest + 1) <= LETTERS:
        ax.set_xticks(np.arange(len(groups)), groups)
        return
    names = [group.replace("\n", "") for group in groups]
    ax.set_xticks(np.arange(len(names)), names)
    for each in ax.get_shared_x_axes().get_siblings(ax):
        each.tick_params("x", labelrotation=90)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() + 0.08 * max(map(len, names)))


def lines(ax: Axes, x: Sequence[float], series: Series, xlabel: str, what: str = "accuracy") -> None:
    """Draws lines of a metric's mean average in percent, with sample deviations as error bars.

    Args:
      ax: the panel to draw in.
      x: places on the x axis, the same for all lines; each gets a tick.
      series: by legend entry, for each of `x`, values of the runs as fractions in [0, 1]; NaN leaves a run out.
      xlabel: name of the x axis.
      what: is averaged, as the y axis says.
    """
    for s, (name, values) in enumerate(series.items()):
        height, deviation = _percent(values)
        ax.errorbar(x, height, deviation, label=name, capsize=2, linewidth=1.2, **style_of_line(s))
    ax.set_xticks(x)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(f"average {what} (%)")
    ax.label_outer()


def scatter(ax: Axes, x: Mapping[str, Sequence[float]], series: Series, xlabel: str, what: str = "accuracy") -> None:
    """Draws points of a metric's mean average in percent, with sample deviations as error bars.

    Args:
      ax: the panel to draw in.
      x: places on the x axis, by legend entry.
      series: by legend entry, for each of its `x`, values of the runs as fractions in [0, 1]; NaN leaves a run out.
      xlabel: name of the x axis.
      what: is averaged, as the y axis says.
    """
    for s, (name, values) in enumerate(series.items()):
        height, deviation = _percent(values)
        style = style_of_line(s) | {"linestyle": "none", "markeredgecolor": "black"}
        ax.errorbar(x[name], height, deviation, label=name, capsize=2, elinewidth=0.6, **style)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(f"average {what} (%)")


def shared_legend(figure: Figure, ax: Axes, columns: int = 4) -> None:
    """Draws one legend above all panels of a figure.

    Args:
      figure: to draw on.
      ax: the panel whose entries the legend has.
      columns: of the legend.
    """
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)


def averages(results: Results, cells: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Averages of a few cells, one for each place on the x axis, as a `Series` with an entry for each failure setting.

    Each is the metric's average of each run as a fraction in [0, 1]; NaN where a run diverged.
    """
    return {
        setting.capitalize(): [results.average(cell, setting) for cell in cells] for setting in results.failure_settings
    }


def setting_bars(results: Results, columns: Mapping[str, Column], legend_columns: int = 3) -> Figure:
    """The metric's average as bars in groups by failure setting, in the manner of the paper's Fig. 4.

    Args:
      results: of a sweep.
      columns: by legend entry, the cell that a bar shows, or a cell for each failure setting; a setting without one
        gets no bar.
      legend_columns: of the legend above the figure, which there is for two entries or more.
    """
    figure, (ax,) = new_figure()
    settings = list(results.failure_settings)

    def values(column: Column, setting: str) -> np.ndarray:
        cell = cell_of(column, setting)
        return np.array([np.nan]) if cell is None else results.average(cell, setting)  # its place stays empty

    series = {label: [values(column, setting) for setting in settings] for label, column in columns.items()}
    grouped_bars(
        ax, [setting.capitalize() for setting in settings], series, legend_columns, f"average {results.told_by.name}"
    )
    return figure


def training_curves(results: Results) -> list[tuple[str, Figure]]:
    """Loss and validation accuracy by epoch: mean over the runs as a line, their range as a band.

    Cells with the same curves, such as two that share a training, are drawn once.

    Returns:
      Figures of up to `CURVES` cells each, with what they show in a sentence; none without a history.
    """
    names: dict[tuple[bytes, bytes], list[str]] = {}
    for name, measured in results.measured.items():
        if measured.loss.shape[-1]:
            names.setdefault((measured.loss.tobytes(), measured.validation_score.tobytes()), []).append(name)
    groups = list(names.values())
    drawn = groups[:MOST_CURVES]
    panels = -(-len(drawn) // CURVES)
    size = -(-len(drawn) // max(1, panels))
    parts = [drawn[first : first + size] for first in range(0, len(drawn), size or 1)]
    left_out = "" if drawn == groups else f" The first {len(drawn)} of {len(groups)} cells are drawn."
    told = [f"Cells: {'; '.join(' = '.join(group) for group in part)}.{left_out}" for part in parts]
    return [(text, _curves(results, [group[0] for group in part])) for text, part in zip(told, parts)]


def _curves(results: Results, cells: Sequence[str]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, (loss, validation) = new_figure(panels=2, height=3.4, share_y=False)
    for number, cell in enumerate(cells):
        measured = results.measured[cell]
        for ax, values in ((loss, measured.loss), (validation, 100 * measured.validation_score)):
            by_epoch = values.T
            known = np.array([epoch for epoch, row in enumerate(by_epoch) if np.isfinite(row).any()], int)
            if not len(known):
                continue
            kept = [finite(by_epoch[epoch]) for epoch in known]
            some = (number % 3, len(known) // 6) if len(known) > 18 else 1  # markers side by side, not on each other
            style = style_of_line(number) | {"markevery": some, "markersize": 4}
            ax.plot(known + 1, [row.mean() for row in kept], label=cell, linewidth=1.2, **style)
            if len(values) > 1:
                low, high = [row.min() for row in kept], [row.max() for row in kept]
                ax.fill_between(known + 1, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
    for ax, label in ((loss, "training loss"), (validation, f"validation {results.score_name} (%)")):
        ax.set_xlabel("epoch")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        ax.set_xlim(0.5, results.measured[cells[0]].loss.shape[1] + 0.5)
    shared_legend(figure, loss, columns=2)
    draw_dollars(figure)
    return figure


def draw_dollars(figure: Figure, mathematics: bool = False) -> None:
    """Has text with `$` drawn as it is written: in a name it is no mathematics, and may be none that could be drawn.

    Args:
      figure: whose text it is.
      mathematics: whether text that can be drawn as mathematics is, as it may be meant in a user's own figure.
    """
    from matplotlib.mathtext import MathTextParser
    from matplotlib.text import Text

    parser = MathTextParser("path")
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        try:
            text.set_parse_math(mathematics and parser.parse(text.get_text()) is not None)
        except ValueError:
            text.set_parse_math(False)


def style_of_line(index: int) -> dict[str, Any]:
    """Colour, line and marker of the line with this number, told apart in black and white as well."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "hatch": HATCHES[index % len(HATCHES)]}


def _percent(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation in percent over the runs that did not diverge; a single run has no error bar."""
    height = 100 * np.array([mean(value) for value in values])
    return height, np.nan_to_num(100 * np.array([sample_deviation(value) for value in values]))


def shortened(name: str, letters: int = 16) -> str:
    """A name that fits into a figure: its beginning and its end.

    Args:
      name: whatever somebody has called something.
      letters: that there is room for.
    """
    name = printable(name)
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-letters // 2 :]}"
