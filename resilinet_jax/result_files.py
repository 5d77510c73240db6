"""A sweep's results as files: CSV for other programs, in a folder that is there whole or not at all."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Mapping

import pandas as pd

from resilinet_jax.cells import Cell, describe
from resilinet_jax.combinations import Combinations
from resilinet_jax.failout import combination_name
from resilinet_jax.results import History, Results, finite, mean, sample_deviation


def csv_files(results: Results) -> dict[str, bytes]:
    """All that was measured, by file name; `read_results` reads it."""
    frames = {
        "accuracies": accuracies_frame,
        "history": history_frame,
        "weights": weights_frame,
        "averages": averages_frame,
    }
    return {
        f"{name}.csv": frame(results).to_csv(index=False, float_format="%.7f").encode()
        for name, frame in frames.items()
    }


def accuracies_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run and failure combination, with the cell's settings as columns."""
    return pd.DataFrame(
        [
            {"cell": name, "run": run, "failing": combination_name(failing), "accuracy": row[c]}
            | describe(results.graph, results.cells[name])
            for name, accuracy in results.accuracy.items()
            for run, row in enumerate(accuracy)
            for c, failing in enumerate(results.failing_sets)
        ]
    )


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
            for name in results.accuracy
            for setting in results.failure_settings
            for values in (results.average(name, setting),)
        ]
    )


def weights_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run and hyperconnection that the cell has."""
    return pd.DataFrame(
        [
            {"cell": name, "run": run, "hyperconnection": edge.name, "weight": own[i]}
            for name, weight in results.weight.items()
            for run, own in enumerate(weight)
            for i, edge in enumerate(results.graph.hyperconnections)
            if results.cells[name].present[i]
        ],
        columns=["cell", "run", "hyperconnection", "weight"],
    )


def history_frame(results: Results) -> pd.DataFrame:
    """One row per cell, run and epoch."""
    return pd.DataFrame(
        [
            {"cell": name, "run": run, "epoch": epoch, "loss": loss, "validation_accuracy": accuracy}
            for name, history in results.history.items()
            for run, curves in enumerate(zip(*history))
            for epoch, (loss, accuracy) in enumerate(zip(*curves), 1)
        ],
        columns=["cell", "run", "epoch", "loss", "validation_accuracy"],
    )


def _read_csv(path: pathlib.Path) -> pd.DataFrame:
    # Only numbers may be missing: a cell may be called `none`.
    numbers = ("accuracy", "loss", "validation_accuracy", "weight")
    return pd.read_csv(path, keep_default_na=False, na_values={column: [""] for column in numbers})


def read_results(
    folder: pathlib.Path,
    combinations: Combinations,
    failure_settings: Mapping[str, Mapping[str, float]],
    cells: Mapping[str, Cell],
    message_bytes: Mapping[str, int],
) -> Results:
    """A sweep's results as they were written to its folder; what does not stand there is given, as in `Results`.

    Raises:
      ValueError: if they are not those of these cells and combinations.
    """
    accuracies, curves, weights = (_read_csv(folder / f"{name}.csv") for name in ("accuracies", "history", "weights"))
    order = [combination_name(failing) for failing in combinations.failing_sets]
    accuracy = {}
    for name in cells:
        wide = accuracies[accuracies.cell == name].pivot(index="run", columns="failing", values="accuracy")
        accuracy[name] = wide[order].to_numpy(float)
    history = {}
    for name in cells:
        own = curves[curves.cell == name]
        loss, validation = (
            own.pivot(index="run", columns="epoch", values=value).to_numpy(float)
            for value in ("loss", "validation_accuracy")
        )
        history[name] = History(loss, validation)
    weight = {}
    edges = [edge.name for edge in combinations.graph.hyperconnections]
    for name in (each for each in cells if (weights.cell == each).any()):
        wide = weights[weights.cell == name].pivot(index="run", columns="hyperconnection", values="weight")
        weight[name] = wide.reindex(columns=edges, fill_value=0.0).to_numpy(float)
    return Results(combinations, failure_settings, cells, accuracy, history, weight, message_bytes)


def write_folder(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, which appears whole or not at all, in place of one that was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a command that was killed
        shutil.rmtree(left, ignore_errors=True)
    fresh = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)  # mkdtemp keeps others out
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if folder.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            folder.replace(old)
            fresh.replace(folder)
            shutil.rmtree(old)
        else:
            fresh.replace(folder)
    except OSError as error:  # a failed write does not know its file
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
