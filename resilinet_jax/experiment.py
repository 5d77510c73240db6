"""From settings to reports: loads the data, trains what the sweeps need, each cell once, and writes their results."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np
from rich.console import Console

from resilinet_jax import hosts
from resilinet_jax.cells import CellBuilder
from resilinet_jax.combinations import Combinations, choose_combinations
from resilinet_jax.engine import TrainingSettings, plan_trainings, run_cells
from resilinet_jax.errors import UserError
from resilinet_jax.progress import Progress
from resilinet_jax.report import diverged_note, environment, make_report, print_tables
from resilinet_jax.results import Results, write_folder
from resilinet_jax.scenarios import Data, Preset, load_scenario
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
    preset = settings.preset_of(scenario)
    data = scenario.load(settings, preset)
    examples = data.feed.sizes["train"]
    if preset.batch_size > examples:
        raise UserError(f"--batch_size must be at most the {examples:,} training examples, got {preset.batch_size:,}")
    network = scenario.build_network(data.classes, **preset.network)
    build = CellBuilder(
        network.graph,
        scenario.failure_settings,
        preset.failout_rate,
        preset.learning_rate,
        preset.learning_rate_decay,
    )
    failure_probabilities = [
        np.array(network.graph.node_values(probability)) for probability in scenario.failure_settings.values()
    ]
    combinations = choose_combinations(network.graph, failure_probabilities, settings.tolerance)
    by_sweep = {name: sweep.cells(build) for name, sweep in sweeps.items()}
    cells = {f"{name}/{cell}": numbers for name, made in by_sweep.items() for cell, numbers in made.items()}

    notes = [
        f"Data set: {data.told}.",
        *_shrunk(settings, preset, scenario.presets["paper"], data),
        *_left_out(combinations),
    ]
    for note in notes:
        console.print(note, soft_wrap=True)
    trainings = len(plan_trainings(cells))
    console.print(f"Training {trainings} cells x {preset.runs} runs for {', '.join(sweeps)}.", soft_wrap=True)

    training = TrainingSettings(
        preset.runs,
        preset.epochs,
        preset.batch_size,
        settings.seed,
        runs_per_pass=settings.runs_per_pass,
        compiler_options=scenario.compiler_options(),
    )
    known = {
        "settings": dataclasses.asdict(settings),
        "preset": dataclasses.asdict(preset),
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "rows": data.rows},
        "examples": dict(data.feed.sizes),
        "failure_settings": scenario.failure_settings,
        "environment": environment(),
    }
    accuracy = run_cells(network, data.feed, cells, training, Progress(quiet=not hosts.is_first()), combinations)
    if not hosts.is_first():
        return
    for name, target in settings.result_folders(list(sweeps)).items():
        own = {cell: accuracy[f"{name}/{cell}"] for cell in by_sweep[name]}
        results = Results(combinations, scenario.failure_settings, by_sweep[name], own)
        _publish(name, sweeps[name], target, results, data.name, notes, known | {"sweep": name}, console)


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
    report = make_report(name, sweep, results, dataset, notes, known)
    write_folder(target, report.files)
    console.print()
    for note in diverged_note(results):
        console.print(note, soft_wrap=True)
    print_tables(console, report.tables)
    console.print(f"Written to {target}", soft_wrap=True)


def _left_out(combinations: Combinations) -> list[str]:
    """That not all failure combinations are evaluated, if so."""
    if combinations.complete:
        return []
    number, total = len(combinations.survival), 2 ** len(combinations.graph.fallible)
    return [
        f"{number:,} of {total:,} failure combinations are evaluated: each average accuracy is the middle of an "
        "interval that holds it (widths: last table)."
    ]


def _shrunk(settings: Settings, preset: Preset, paper: Preset, data: Data) -> list[str]:
    """What differs from the paper's setting, in a sentence; nothing if nothing does."""
    units = {
        "runs": "runs",
        "epochs": "epochs",
        "batch_size": "examples a batch",
        "learning_rate": "learning rate",
        "learning_rate_decay": "decay of it",
        "failout_rate": "failout rate",
    }
    got, asked = ({**dataclasses.asdict(each), **each.network} for each in (preset, paper))
    units |= {name: name.replace("_", " ") for name in paper.network}
    differences = [
        f"{got[name]:,} instead of {asked[name]:,} {unit}" for name, unit in units.items() if got[name] != asked[name]
    ]
    if preset.augment != paper.augment:
        differences.append("no augmentation" if paper.augment else "augmentation")
    if preset.train_examples is not None and data.feed.sizes["train"] == preset.train_examples:
        differences.insert(0, f"{preset.train_examples:,} training examples drawn from {data.rows:,} rows")
    if not differences:
        return []
    return [f"Preset {settings.preset}, not the paper's setting: {', '.join(differences)}."]
