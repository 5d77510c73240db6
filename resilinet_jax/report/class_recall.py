"""Which classes a failure hurts: the recall of each class under each failure combination."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from resilinet_jax.failures.combinations import combination_name
from resilinet_jax.report.figures import Drawn, new_figure, shortened
from resilinet_jax.report.tables import Table
from resilinet_jax.results.metrics import recall
from resilinet_jax.results.results import Results

NAME = "class_recall"
MOST_CLASSES = 20  # that a figure has room for
MOST_NUMBERS = 12  # classes beside each other whose recalls have room to be written
PLACES = ("Hurt most", "Second", "Third")  # of classes, for each failure in the table
MISSING = "#DDDDDD"


def mean_recall(results: Results, cell: str) -> Float[np.ndarray, "combinations classes"]:
    """Recall of each class under each failure combination, the mean over the runs that have examples of it.

    NaN where there are none, or all runs diverged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a mean over no run
        return np.asarray(np.nanmean(recall(results.measured[cell].outcomes), 0))


def single_failures(results: Results) -> list[tuple[str, ...]]:
    """The failing sets of one, of those that are shown, that leave a path."""
    shown = results.shown_sets(results.usual_setting)
    return [failing for failing in shown if len(failing) == 1 and results.leaves_path(failing)]


def losses(results: Results, cell: str) -> Float[np.ndarray, "failures classes"]:
    """Recall with nothing failed minus recall under each of `single_failures`."""
    recalls = mean_recall(results, cell)
    at = [results.failing_sets.index(failing) for failing in single_failures(results)]
    return recalls[results.failing_sets.index(())][None] - recalls[at]


def shown_classes(results: Results, cell: str) -> Int[np.ndarray, " shown"]:
    """All classes, or those that some single failure hurts most where they are too many to show; in order."""
    classes = results.measured[cell].outcomes.shape[-2]
    if classes <= MOST_CLASSES:
        return np.arange(classes)
    worst = np.nan_to_num(losses(results, cell), nan=-np.inf).max(0, initial=-np.inf)
    return np.sort(np.argsort(-worst, kind="stable")[:MOST_CLASSES])


def recall_figure(results: Results, cells: Mapping[str, str], names: Sequence[str]) -> list[Drawn]:
    """The recall of each class (columns) under each failure combination (rows), a panel for each cell.

    Args:
      results: of a sweep.
      cells: by the panel's title; the first one decides which of many classes are shown.
      names: of the failure combinations that are shown.

    Returns:
      One figure; none where the counts of classes are not known.
    """
    if not results.has_class_counts:
        return []
    (label, first), *_ = cells.items()
    classes, shown = shown_classes(results, first), results.shown_sets(results.usual_setting)
    at = [results.failing_sets.index(failing) for failing in shown]
    figure, axes = new_figure(height=1.0 + len(cells) * (0.35 + 0.19 * len(shown)), stacked=[1.0] * len(cells))
    for ax, (title, cell) in zip(axes, cells.items()):
        values = 100 * mean_recall(results, cell)[at][:, classes]
        ax.set_facecolor(MISSING)
        image = ax.imshow(np.ma.masked_invalid(values), cmap="viridis", vmin=0, vmax=100, aspect="auto")
        ax.set_title(title, fontsize="medium")
        ax.set_yticks(range(len(shown)), names, fontsize="small")
        ax.grid(visible=False)
        ax.tick_params(length=0)
        for row, column in np.argwhere(np.isfinite(values)) if len(classes) <= MOST_NUMBERS else ():
            value = values[row, column]
            colour = "black" if value > 60 else "white"  # viridis is light from there on
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize="x-small")
    labels = [shortened(results.class_name(each)) for each in classes]
    upright = sum(map(len, labels)) > 2 * MOST_CLASSES
    axes[-1].set_xticks(range(len(classes)), labels, fontsize="small", rotation=90 * upright)
    axes[-1].set_xlabel("class")
    figure.supylabel("failing nodes", fontsize="medium")
    figure.colorbar(image, ax=axes, label="recall (%)", shrink=0.6, aspect=30)
    caption = "Recall of each class (columns) while nodes fail (rows): mean over the runs."
    total = results.measured[first].outcomes.shape[-2]
    if len(classes) < total:
        caption += f" The {len(classes)} of {total:,} classes whose recall some single failure costs most ({label})."
    return [Drawn(NAME, caption, figure)]


def most_hurt_table(results: Results, label: str, cell: str) -> list[Table]:
    """The classes whose recall each single failure costs most.

    Args:
      results: of a sweep.
      label: what the cell is called.
      cell: its name.

    Returns:
      One table; none where the counts of classes are not known, or no single failure leaves a path.
    """
    if not results.has_class_counts or not single_failures(results):
        return []
    recalls = 100 * mean_recall(results, cell)
    whole = recalls[results.failing_sets.index(())]
    rows = []
    for failing, lost in zip(single_failures(results), losses(results, cell)):
        hurt = [c for c in np.argsort(-np.nan_to_num(lost, nan=-np.inf), kind="stable")[: len(PLACES)] if lost[c] > 0]
        left = recalls[results.failing_sets.index(failing)]
        told = [f"{results.class_name(c)}: {whole[c]:.1f} → {left[c]:.1f}" for c in hurt]
        rows.append([combination_name(failing), *told, *["–"] * (len(PLACES) - len(told))])
    title = f"Recall (%) of the classes that each failure hurts most (class: before → after), {label}"
    return [Table(title, ["Failing node", *PLACES], rows)]
