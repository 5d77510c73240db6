"""Cuts rows that were recorded one after the other into windows, which become the examples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy.lib.stride_tricks import sliding_window_view

from resilinet_jax.datasets.splits import Dataset, Places
from resilinet_jax.errors import DataError


def cut_windows(dataset: Dataset, rows: int, hop: int, label: str) -> Dataset:
    """Windows of a data set of rows: examples x time x channels.

    A window lies within one person's part of one recording; what is left at its end is too short for one.

    Args:
      dataset: of rows, those of a recording in the order in which they were recorded.
      rows: of a window.
      hop: rows from the beginning of a window to that of the next.
      label: which of its rows' labels a window has: the `last` one, or that of the `majority`, of equals the smaller.

    Raises:
      DataError: if its examples are no rows, or too few follow each other.
    """
    if dataset.x.ndim != 2:
        raise DataError(f"--window={rows}: {dataset.name} holds examples of shape {dataset.x.shape[1:]}, expected rows")
    order, ends = _recordings(dataset)
    begins = [0, *ends[:-1]]
    first = [np.arange(begin, end - rows + 1, hop) for begin, end in zip(begins, ends)]
    longest = max(end - begin for begin, end in zip(begins, ends))
    if longest < rows:
        raise DataError(
            f"--window={rows}: the longest recording of {dataset.name} has {longest} rows; give at most that"
        )
    reach = max(rows, hop)
    # Behind each recording lie more rows than a window reaches.
    places = np.concatenate([own + number * (reach + 1) for number, own in enumerate(first)])
    starts = np.concatenate(first)
    labels = sliding_window_view(dataset.y[order], rows)[starts]
    y = labels[:, -1] if label == "last" else _most(labels, dataset.classes)
    there = np.unique(y)
    if len(there) < dataset.classes:
        gone = np.setdiff1d(np.arange(dataset.classes), there)[0]
        named = dataset.class_names[gone] if dataset.class_names else gone
        raise DataError(f"--window={rows}: no window of {dataset.name} has the label {named}; give a smaller one")
    note = (
        f"{len(y):,} windows of {rows} rows, one every {hop}; none that shares rows with a test or validation window, "
        "or lies next to one, trains."
    )
    return dataset.taken(
        order[starts],
        x=np.ascontiguousarray(sliding_window_view(dataset.x[order], rows, axis=0)[starts].swapaxes(1, 2)),
        y=y,
        places=Places(places, reach),
        notes=(*dataset.notes, note),
    )


def _recordings(dataset: Dataset) -> tuple[Int[np.ndarray, " rows"], list[int]]:
    """The rows in an order in which those of a recording follow each other, and where each recording ends."""
    keys = [each for each in (dataset.recording, dataset.subject, dataset.test) if each is not None]
    codes = np.zeros(len(dataset.y), np.int64)
    for key in keys:
        numbers = np.unique(key, return_inverse=True)[1]
        codes = np.unique(codes * (numbers.max() + 1) + numbers, return_inverse=True)[1]
    if dataset.recording is None and dataset.subject is not None:  # a person's rows that follow each other
        codes = np.cumsum(np.r_[0, np.diff(codes) != 0])
    order = np.argsort(codes, kind="stable")
    return order, [int(end) for end in np.cumsum(np.bincount(codes))]


def _most(labels: Int[np.ndarray, "windows rows"], classes: int) -> Int[np.ndarray, " windows"]:
    counts = np.stack([(labels == each).sum(1) for each in range(classes)])
    return counts.argmax(0).astype(labels.dtype)
