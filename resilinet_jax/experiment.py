"""From settings to reports: loads the data, trains what the sweeps need, each cell once, and writes their results."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType

from rich.console import Console

from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets import load_dataset
from resilinet_jax.datasets.splits import Splits, split_dataset
from resilinet_jax.engine import TrainingSettings, plan_trainings, run_cells
from resilinet_jax.errors import UserError
from resilinet_jax.progress import Progress
from resilinet_jax.report import environment, print_tables, report_files
from resilinet_jax.results import Results, write_folder
from resilinet_jax.scenarios import Preset, load_scenario
from resilinet_jax.settings import Settings


def run_experiment(settings: Settings, sweeps: Mapping[str, ModuleType], console: Console) -> None:
    """Runs the sweeps of `settings` (already checked), prints their tables and writes their folders.

    Args:
      settings: what the user asked for.
      sweeps: the chosen sweeps' modules by name.
      console: where tables and notes go.

    Raises:
      UserError: for what only the data can tell, before anything compiles.
    """
    scenario = load_scenario(settings.scenario)
    preset: Preset = settings.over(scenario.presets[settings.preset])
    folder = None if settings.data_dir is None else pathlib.Path(settings.data_dir).expanduser()
    dataset, told = load_dataset(settings.dataset, folder)
    splits = split_dataset(dataset, settings.split, settings.seed, preset.train_examples)
    if preset.batch_size > len(splits.train.y):
        raise UserError(
            f"--batch_size must be at most the {len(splits.train.y):,} training examples, got {preset.batch_size:,}"
        )
    network = scenario.build_network(splits.classes, preset.hidden_units)
    build = CellBuilder(network.graph, scenario.failure_settings, preset.failout_rate, preset.learning_rate)
    by_sweep = {name: sweep.cells(build) for name, sweep in sweeps.items()}
    cells = {f"{name}/{cell}": numbers for name, made in by_sweep.items() for cell, numbers in made.items()}

    notes = [f"Data set: {told}.", *_shrunk(settings, preset, scenario.presets["paper"], splits, len(dataset.y))]
    for note in notes:
        console.print(note, soft_wrap=True)
    trainings = len(plan_trainings(cells))
    console.print(f"Training {trainings} cells x {preset.runs} runs for {', '.join(sweeps)}.", soft_wrap=True)

    training = TrainingSettings(preset.runs, preset.epochs, preset.batch_size, settings.seed)
    known = {
        "settings": dataclasses.asdict(settings),
        "preset": dataclasses.asdict(preset),
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint(), "rows": len(dataset.y)},
        "examples": {name: len(getattr(splits, name).y) for name in ("train", "validation", "test")},
        "failure_settings": scenario.failure_settings,
        "environment": environment(),
    }
    accuracy = run_cells(network, splits, cells, training, Progress())
    for name, target in settings.result_folders(list(sweeps)).items():
        own = {cell: accuracy[f"{name}/{cell}"] for cell in by_sweep[name]}
        results = Results(network.graph, scenario.failure_settings, by_sweep[name], own)
        _publish(name, sweeps[name], target, results, dataset.name, notes, known | {"sweep": name}, console)


def _publish(
    name: str,
    sweep: ModuleType,
    target: pathlib.Path,
    results: Results,
    dataset: str,
    notes: Sequence[str],
    known: Mapping[str, object],
    console: Console,
) -> None:
    # Whoever sees a table or the figure alone must still see what it was measured on.
    tables = [dataclasses.replace(table, title=f"{table.title}, on {dataset}") for table in sweep.tables(results)]
    figure = sweep.figure(results)
    figure.supxlabel(f"on {dataset}", x=0.99, horizontalalignment="right", fontsize="small")
    title = (sweep.__doc__ or name).split("\n")[0]
    write_folder(target, report_files(title, notes, results, tables, figure, known))
    console.print()
    print_tables(console, tables)
    console.print(f"Written to {target}", soft_wrap=True)


def _shrunk(settings: Settings, preset: Preset, paper: Preset, splits: Splits, rows: int) -> list[str]:
    """What differs from the paper's setting, in a sentence; nothing if nothing does."""
    units = {
        "runs": "runs",
        "epochs": "epochs",
        "batch_size": "examples a batch",
        "hidden_units": "hidden units",
        "learning_rate": "learning rate",
        "failout_rate": "failout rate",
    }
    differences = [
        f"{getattr(preset, name):,} instead of {getattr(paper, name):,} {unit}"
        for name, unit in units.items()
        if getattr(preset, name) != getattr(paper, name)
    ]
    if preset.train_examples is not None and len(splits.train.y) == preset.train_examples:
        differences.insert(0, f"{preset.train_examples:,} training examples drawn from {rows:,} rows")
    if not differences:
        return []
    return [f"Preset {settings.preset}, not the paper's setting: {', '.join(differences)}."]
