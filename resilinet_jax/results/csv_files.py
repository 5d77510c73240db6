"""A sweep's results as files: CSV for other programs, in a folder that is there whole or not at all."""

from __future__ import annotations

import io
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from resilinet_jax.cells import Cell, describe
from resilinet_jax.failures.combinations import Combinations, combination_name
from resilinet_jax.files import digest
from resilinet_jax.results.metric_names import OF_CLASSES, OF_TARGETS, Columns
from resilinet_jax.results.results import Results, finite, mean, sample_deviation
from resilinet_jax.results.units import Units
from resilinet_jax.runtime.store import Measured

# Columns that `read_results` reads as text.
_TEXTS = ["cell", "split", "failing", "hyperconnection", "class_name", "target_name"]
MOST_ROWS = 1_000_000  # of what there is of each class; a file of more is left out
_FORMULA = re.compile(r"['\s]*[=+@-]")  # how a text begins that a spreadsheet would calculate


def csv_files(results: Results) -> dict[str, bytes]:
    """All that was measured, by file name; `read_results` reads it."""
    frames = {
        results.columns.scores: scores_frame,
        "history.csv": history_frame,
        "weights.csv": weights_frame,
        "averages.csv": averages_frame,
    }
    files = {
        name: _quoted(frame(results)).to_csv(index=False, float_format="%.7f").encode()
        for name, frame in frames.items()
    }
    if 0 < outcome_rows(results) <= MOST_ROWS:
        outcomes = _quoted(outcomes_frame(results)).to_csv(index=False, float_format="%.12g")
        files[results.columns.outcomes] = outcomes.encode()
    return files


def outcome_rows(results: Results) -> int:
    """How many rows `outcomes_frame` has."""
    return sum(math.prod(each.outcomes.shape[:-1]) for each in results.measured.values())


def _quoted(frame: pd.DataFrame) -> pd.DataFrame:
    """Has an apostrophe in front of texts that a spreadsheet would take for a formula; `_read_csv` takes it away."""
    for column in frame:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            quoted = {text: f"'{text}" if _FORMULA.match(text) else text for text in frame[column].unique()}
            frame[column] = frame[column].map(quoted)
    return frame


def scores_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run and failure combination, with the cell's settings as columns."""
    column = results.columns.score
    names = list(map(combination_name, results.failing_sets))
    return pd.DataFrame(
        [
            {"cell": name, "split": split, "run": run, "failing": failing, column: score} | settings
            for name, measured in results.measured.items()
            for settings in (describe(results.graph, results.cells[name]),)
            for (split, run), row in results.numbered(measured.score)
            for failing, score in zip(names, row)
        ]
    )


def outcomes_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run, failure combination and class or target, with its outcomes."""
    failing = np.array([combination_name(failing) for failing in results.failing_sets])
    frames = []
    for name, measured in results.measured.items():
        outcomes = measured.outcomes
        runs, combinations, each = np.indices(outcomes.shape[:-1]).reshape(3, -1)
        splits, numbers = map(np.array, zip(*results.units.numbered(len(outcomes))))
        identity = {"cell": name, "split": splits[runs], "run": numbers[runs], "failing": failing[combinations]}
        identity |= {results.columns.each: each}
        if names := results.class_names or results.target_names:
            identity[f"{results.columns.each}_name"] = np.array(names)[each]
        parts = dict(zip(results.columns.parts, outcomes.reshape(len(each), -1).T))
        frames.append(pd.DataFrame(identity | parts))
    return pd.concat(frames, ignore_index=True)


def averages_frame(results: Results) -> pd.DataFrame:
    """Mean and sample deviation over the runs that did not diverge, and their number, per cell and setting."""
    return pd.DataFrame(
        [
            {
                "cell": name,
                "failure_setting": setting,
                "runs": len(finite(values)),
                "mean": mean(values),
                "std": sample_deviation(values),
            }
            for name in results.measured
            for setting in results.failure_settings
            for values in (results.average(name, setting),)
        ]
    )


def weights_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run and hyperconnection that the cell has."""
    return pd.DataFrame(
        [
            {"cell": name, "split": split, "run": run, "hyperconnection": edge.name, "weight": weight[i]}
            for name, measured in results.measured.items()
            for (split, run), weight in results.numbered(measured.weight)
            for i, edge in enumerate(results.graph.hyperconnections)
            if results.cells[name].present[i]
        ],
        columns=["cell", "split", "run", "hyperconnection", "weight"],
    )


def history_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run and epoch."""
    column = f"validation_{results.columns.score}"
    return pd.DataFrame(
        [
            {"cell": name, "split": split, "run": run, "epoch": epoch, "loss": loss, column: score}
            for name, measured in results.measured.items()
            for (split, run), curves in results.numbered(zip(measured.loss, measured.validation_score))
            for epoch, (loss, score) in enumerate(zip(*curves), 1)
        ],
        columns=["cell", "split", "run", "epoch", "loss", column],
    )


def _read_csv(path: pathlib.Path, expected: str | None, columns: Columns) -> pd.DataFrame:
    content = path.read_bytes()
    if expected not in (None, digest(content)):
        raise ValueError(f"{path.name} is not what the sweep wrote")
    # Only numbers may be missing: a cell may be called `none`.
    numbers = (columns.score, "loss", f"validation_{columns.score}", "weight", *columns.parts)
    frame = pd.read_csv(
        io.BytesIO(content),
        dtype=dict.fromkeys(_TEXTS, str),  # a cell may be called `0.30`
        keep_default_na=False,
        na_values={column: [""] for column in numbers},
    )
    for column in frame.columns.intersection(_TEXTS):
        written = frame[column].unique()
        frame[column] = frame[column].map({text: re.sub(rf"^'(?={_FORMULA.pattern})", "", text) for text in written})
    return frame


def _outcomes_of(
    outcomes: pd.DataFrame | None, cell: str, rows: pd.MultiIndex, order: Sequence[str], columns: Columns
) -> Float[np.ndarray, "runs combinations classes parts"]:
    """What there is of each of a cell's classes or targets; of none if there is no file.

    Args:
      outcomes: the file, as `outcomes_frame` made it.
      cell: its name.
      rows: split and number of each run.
      order: names of the failure combinations.
      columns: what they are called.

    Raises:
      ValueError: if there is not exactly one row for each run, combination and class or target.
    """
    parts = len(columns.parts)
    if outcomes is None:
        return np.zeros((len(rows), len(order), 0, parts))
    each = range(int(outcomes[columns.each].max()) + 1)
    wanted = [(*run, failing, number) for run in rows for failing in order for number in each]
    of_cell = outcomes[outcomes.cell == cell]
    there = pd.MultiIndex.from_frame(of_cell[["split", "run", "failing", columns.each]])
    if not there.is_unique or set(there) != set(wanted):
        raise ValueError(f"{columns.outcomes} lacks rows of {cell}, or has some twice")
    found = there.get_indexer(pd.MultiIndex.from_tuples(wanted))
    return of_cell[list(columns.parts)].to_numpy(float)[found].reshape(len(rows), len(order), len(each), parts)


def read_results(
    folder: pathlib.Path,
    combinations: Combinations,
    failure_settings: Mapping[str, Mapping[str, float]],
    cells: Mapping[str, Cell],
    message_bytes: Mapping[str, int],
    digests: Mapping[str, str],
    units: Callable[[Sequence[str]], Units],
    class_names: Sequence[str] = (),
    target_names: Sequence[str] = (),
) -> Results:
    """Reads a sweep's results from the CSV files in its folder.

    Args:
      folder: that holds what `csv_files` wrote.
      combinations: the failure combinations that were evaluated; accuracies come in their order.
      failure_settings: by name, failure probability by node name.
      cells: by name, all that the results have.
      message_bytes: size of what a node sends for one example, by node; empty where it is not known.
      digests: of the files, by name; a file without one is not checked.
      units: what runs are independent of, from the label of each run's split.
      class_names: of classes 0..C-1; none if they have no other names.
      target_names: of the numbers that were predicted; none where there were classes.

    Raises:
      OSError: if a file can't be read.
      KeyError: if a column is missing, or the accuracy of a cell under any of the combinations.
      ValueError: if a file is no CSV, or not the one that was written, or has two numbers for the same cell, run and
        column, or not all counts of classes.
    """
    columns = OF_TARGETS if target_names else OF_CLASSES

    def read(name: str) -> pd.DataFrame:
        return _read_csv(folder / name, digests.get(name), columns)

    scores, curves, weights = map(read, (columns.scores, "history.csv", "weights.csv"))
    known = columns.outcomes in digests or (folder / columns.outcomes).exists()  # not if older, nor where too large
    outcomes = read(columns.outcomes) if known else None
    order = [combination_name(failing) for failing in combinations.failing_sets]
    edges = [edge.name for edge in combinations.graph.hyperconnections]
    measured, labels = {}, []
    for name in cells:
        own = scores[scores.cell == name][["split", "run"]].drop_duplicates()
        rows = pd.MultiIndex.from_frame(own)
        score, loss, validation, weight = (
            frame[frame.cell == name].pivot(index=["split", "run"], columns=column, values=value).reindex(rows)
            for frame, column, value in (
                (scores, "failing", columns.score),
                (curves, "epoch", "loss"),
                (curves, "epoch", f"validation_{columns.score}"),
                (weights, "hyperconnection", "weight"),
            )
        )
        weight = weight.reindex(index=score.index, columns=edges, fill_value=0.0)
        wide = [each.to_numpy(float) for each in (score[order], loss, validation, weight)]
        measured[name] = Measured(*[*wide, _outcomes_of(outcomes, name, rows, order, columns)])
        labels = own["split"].tolist()
    return Results(
        combinations,
        failure_settings,
        cells,
        measured,
        message_bytes,
        units(labels),
        class_names=class_names,
        target_names=target_names,
    )
