"""`--describe`: looks at the data, without training."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from resilinet_jax.command import notes
from resilinet_jax.command.settings import Choice
from resilinet_jax.datasets.feed import Part, first_split, target_units
from resilinet_jax.datasets.splits import Standardisation, count_classes
from resilinet_jax.files import write_file
from resilinet_jax.report.figures import draw_dollars, new_figure, shortened
from resilinet_jax.report.report import png, print_tables
from resilinet_jax.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES, MOST_FEATURES = 40, 60  # that a table and the picture have room for
MOST_EXAMPLES = 50_000  # of a part that are looked at, where features are concerned


def describe(choice: Choice, console: Console) -> pathlib.Path:
    """Tells what data hold and what may be wrong with them, and draws `<results_dir>/<scenario>/data.png`.

    Args:
      choice: what the user asked for.
      console: where it goes.

    Returns:
      The picture.

    Raises:
      UserError: if the data can't be had.
    """
    data = choice.load_data(trains=False)
    all_parts: tuple[Part, ...] = ("train", "validation", "test")
    parts = {part: first_split(data.feed, part) for part in all_parts}
    for note in notes.data_note(data):
        console.print(note, soft_wrap=True)
    if data.people:
        console.print(f"{data.people:,} people were recorded.", soft_wrap=True)
    if len(data.feed.labels) > 1:
        console.print(f"The first of {len(data.feed.labels)} splits:", soft_wrap=True)
    features, targets = (getattr(data.feed, kind, ()) for kind in ("feature_names", "target_names"))
    x, y = (np.asarray(each[:MOST_EXAMPLES]) for each in parts["train"])
    figure, axes = new_figure(height=6.0, rows=2, share_y=False)
    if targets:
        recorded = _undone(target_units(data.feed), y.astype(float))
        tables = [_ranges("Numbers to predict in training", "Number", recorded, targets)]
        _draw_spread(axes[0], y, targets, "number to predict")
    else:
        counts = {part: count_classes(np.asarray(own.y), data.classes) for part, own in parts.items()}
        names = getattr(data.feed, "class_names", ()) or tuple(map(str, range(data.classes)))
        tables = [_classes(counts, names)]
        _draw_shares(axes[0], counts, names)
    if x.ndim == 2:
        recorded = _undone(getattr(data.feed, "standardisation", None), x)
        tables.append(_ranges("Features in training", "Feature", recorded, features))
    _draw_spread(axes[1], x, features if x.ndim == 2 else (), "feature" if x.ndim == 2 else "value of an example")
    draw_dollars(figure, mathematics=False)
    print_tables(console, tables)
    target = choice.folder / "data.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, png(figure))
    return target


def _undone(scaling: Standardisation | None, values: np.ndarray) -> np.ndarray:
    """Values in their own units."""
    return values if scaling is None else scaling.undone(values)


def _classes(counts: Mapping[Part, np.ndarray], names: tuple[str, ...]) -> Table:
    """The share of each class in each part of the split."""
    rows = [
        [name, *(f"{own[i]:,} ({100 * own[i] / max(own.sum(), 1):.1f} %)" for own in counts.values())]
        for i, name in enumerate(names[:MOST_CLASSES])
    ]
    if len(names) > MOST_CLASSES:
        rows.append([f"{len(names) - MOST_CLASSES} more", *("" for _ in counts)])
    rows.append(["All", *(f"{own.sum():,}" for own in counts.values())])
    return Table("Examples of each class", ["Class", "Training", "Validation", "Test"], rows)


def _ranges(title: str, kind: str, x: np.ndarray, names: tuple[str, ...]) -> Table:
    """The range of each column, in its own unit."""
    called = names or tuple(map(str, range(x.shape[1])))
    figures = np.stack([x.min(0), x.mean(0), x.max(0), x.std(0)], 1)
    rows = [[name, *(f"{value:.5g}" for value in own)] for name, own in zip(called[:MOST_FEATURES], figures)]
    if len(called) > MOST_FEATURES:
        rows.append([f"{len(called) - MOST_FEATURES} more", *[""] * 4])
    return Table(title, [kind, "Least", "Mean", "Most", "Deviation"], rows)


def _draw_shares(ax: Axes, counts: Mapping[Part, np.ndarray], names: tuple[str, ...]) -> None:
    """The share of each class in each part of the split."""
    places = np.arange(len(names))
    for i, (part, own) in enumerate(counts.items()):
        ax.bar(places + 0.27 * (i - 1), 100 * own / max(own.sum(), 1), 0.27, label=part)
    few = len(names) <= MOST_CLASSES
    ax.set_xticks(places if few else [], [*map(shortened, names)] if few else [], rotation=90, fontsize="small")
    ax.set_ylabel("share of the part (%)")
    ax.set_xlabel("class")
    ax.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))


def _draw_spread(ax: Axes, values: np.ndarray, names: tuple[str, ...], what: str) -> None:
    """How each column is spread over the training split."""
    flat = values.reshape(len(values), -1)[:, :MOST_FEATURES]
    spread = np.percentile(flat, [0, 5, 50, 95, 100], axis=0)
    at = np.arange(flat.shape[1])
    ax.vlines(at, spread[0], spread[4], linewidth=0.8, color="#999999", label="all")
    ax.vlines(at, spread[1], spread[3], linewidth=3, color="#0072B2", label="90 %")
    ax.plot(at, spread[2], "k_", label="median")
    if names:
        ax.set_xticks(at, [*map(shortened, names[: len(at)])], rotation=90, fontsize="small")
    ax.set_xlabel(what)
    ax.set_ylabel("as the network gets it")
    ax.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
