"""From settings to reports: loads the data, trains what the sweeps need, each cell once, and writes their results."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console

from resilinet_jax import hosts
from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.checkpoints import Checkpoints
from resilinet_jax.combinations import Combinations, choose_combinations
from resilinet_jax.drawing import draw_graph
from resilinet_jax.engine import plan_models, run_cells, unfinished
from resilinet_jax.errors import CodeError, UserError, first_line
from resilinet_jax.graph import Graph
from resilinet_jax.network import Network
from resilinet_jax.program import TrainingSettings
from resilinet_jax.progress import Progress
from resilinet_jax.rehearsal import rehearse
from resilinet_jax.report import SETTINGS, diverged_note, environment, make_report, print_tables
from resilinet_jax.results import History, Results, read_results, write_folder
from resilinet_jax.scenarios import Data, Preset, Scenario, is_own, load_scenario
from resilinet_jax.settings import Settings
from resilinet_jax.store import (
    Measured,
    Store,
    check_identity,
    code_version,
    discard,
    only_command_in,
    own_version,
    write_file,
    write_identity,
)
from resilinet_jax.user_code import checked_result, errors_in, load_own


def run_experiment(settings: Settings, sweeps: Mapping[str, ModuleType], console: Console) -> str | None:
    """Runs the sweeps of `settings` (already checked), prints their tables and writes their folders.

    What an interrupted command finished is not trained again, nor what another sweep trained on the same settings.

    Args:
      settings: what the user asked for.
      sweeps: the chosen sweeps' modules by name.
      console: where tables and notes go.

    Returns:
      That runs diverged, in a line, if any did.

    Raises:
      UserError: for what only the data can tell, before anything compiles.
    """
    scenario = load_scenario(settings.scenario)
    preset = settings.preset_of(scenario)
    if not settings.overwrite:
        check_identity(settings.runs_folder, _identity(settings, preset))
    with errors_in(settings.scenario, scenario.load):
        data = checked_result(scenario.load, scenario.load(settings, preset), Data)
    examples = data.feed.sizes["train"]
    if preset.batch_size > examples:
        raise UserError(f"--batch_size must be at most the {examples:,} training examples, got {preset.batch_size:,}")
    network = _network(settings, scenario, preset, data.classes)
    with errors_in(settings.scenario, scenario.build_network):
        rehearse(network, data.feed.spec("train").x, data.classes)
    with only_command_in(settings.scenario_folder) if hosts.is_first() else contextlib.nullcontext():
        return _run(settings, scenario, preset, data, network, sweeps, console)


def draw(settings: Settings) -> pathlib.Path:
    """Draws the graph of a scenario, without data and training: `<results_dir>/<scenario>/graph.svg`.

    Args:
      settings: already checked, as far as the scenario goes.

    Returns:
      The file.

    Raises:
      UserError: for a mistake in a user's own scenario.
    """
    scenario = load_scenario(settings.scenario)
    # No number of classes changes the graph.
    graph = _network(settings, scenario, settings.preset_of(scenario), classes=2).graph
    target = settings.scenario_folder / "graph.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, draw_graph(graph, scenario.failure_settings, alone=True).encode())
    return target


def _network(settings: Settings, scenario: Scenario, preset: Preset, classes: int) -> Network:
    """The scenario's network, whose nodes the failure settings have to know."""
    with errors_in(settings.scenario, scenario.build_network):
        built = scenario.build_network(classes, **preset.network)
        network: Network = checked_result(scenario.build_network, built, Network)
    with errors_in(settings.scenario):
        for setting, probability in scenario.failure_settings.items():
            network.graph.node_values(probability, f"failure setting {setting!r}")
    return network


def _run(
    settings: Settings,
    scenario: Scenario,
    preset: Preset,
    data: Data,
    network: Network,
    sweeps: Mapping[str, ModuleType],
    console: Console,
) -> str | None:
    combinations = _combinations(network.graph, scenario.failure_settings, settings.tolerance)
    by_sweep = _cells(network.graph, scenario.failure_settings, preset, sweeps)
    cells = {f"{name}/{cell}": numbers for name, made in by_sweep.items() for cell, numbers in made.items()}
    notes = [
        f"Data set: {data.told}.",
        *_shrunk(settings, preset, scenario.presets.get("paper"), data),
        *_left_out(combinations),
    ]
    for note in notes:
        console.print(note, soft_wrap=True)

    progress = Progress(quiet=not hosts.is_first())
    store = _open_store(settings, preset, data, combinations, progress)
    checkpoints = Checkpoints(settings.checkpoints_folder / f"process_{hosts.number()}", progress.note)
    wanted = plan_models(cells, preset.runs)
    finished = len(wanted) - len(unfinished(wanted, store))
    already = f", {finished} of them finished already" if finished else ""
    console.print(f"{len(wanted)} runs for {', '.join(sweeps)}{already}.", soft_wrap=True)
    training = TrainingSettings(
        preset.runs,
        preset.epochs,
        preset.batch_size,
        settings.seed,
        runs_per_pass=settings.runs_per_pass,
        compiler_options=scenario.compiler_options(),
    )
    measured = run_cells(network, data.feed, cells, training, progress, combinations, store, checkpoints)
    if hosts.is_first():
        known = _known(settings, scenario, preset, data, notes)
        for name, target in settings.result_folders(list(sweeps)).items():
            own = {cell: measured[f"{name}/{cell}"].rounded() for cell in by_sweep[name]}
            accuracy = {cell: each.accuracy for cell, each in own.items()}
            history = {cell: History(each.loss, each.validation_accuracy) for cell, each in own.items()}
            results = Results(combinations, scenario.failure_settings, by_sweep[name], accuracy, history)
            publish(sweeps[name], target, results, known | {"sweep": name}, console)
    return _diverged(cells, measured, len(wanted))


def _open_store(
    settings: Settings, preset: Preset, data: Data, combinations: Combinations, progress: Progress
) -> Store:
    """The finished runs of the results folder, if they rest on the same as those to come."""
    if settings.overwrite and hosts.is_first():
        discard(settings.runs_folder)
        discard(settings.checkpoints_folder)
    hosts.wait_for_all()
    identity = _identity(settings, preset) | {
        "data set": f"{data.name} {data.fingerprint[:12]}",
        "failure combinations": hashlib.sha256(combinations.survival.tobytes()).hexdigest()[:12],
    }
    check_identity(settings.runs_folder, identity)
    write_identity(settings.runs_folder, identity)
    return Store(settings.runs_folder, progress.note)


def _known(settings: Settings, scenario: Scenario, preset: Preset, data: Data, notes: Sequence[str]) -> dict[str, Any]:
    """All that is needed to repeat a sweep, and to report it again."""
    return {
        "settings": dataclasses.asdict(settings),
        "preset": dataclasses.asdict(preset),
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "rows": data.rows, "classes": data.classes},
        "examples": dict(data.feed.sizes),
        "failure_settings": scenario.failure_settings,
        "notes": notes,
        "environment": environment() | _own_code(settings),
    }


def _diverged(cells: Mapping[str, Cell], measured: Mapping[str, Measured], runs: int) -> str | None:
    """How many of all runs diverged, and where, in a line; None if none did."""
    lost = {(cells[name].training_key(), run) for name, each in measured.items() for run in each.diverged}
    if not lost:
        return None
    where = [name for name, each in measured.items() if each.diverged]
    more = f" and {len(where) - 3} more" if len(where) > 3 else ""
    return (
        f"{len(lost)} of {runs} runs diverged, in {', '.join(where[:3])}{more}; the tables leave them out: "
        "try a smaller --learning_rate"
    )


def report_again(folder: pathlib.Path, load_sweep: Callable[[str], ModuleType], console: Console) -> None:
    """Makes a sweep's report again from what stands in its results folder, without training.

    Args:
      folder: of the sweep, or a scenario's, for each sweep in it.
      load_sweep: a sweep's module by name.
      console: where tables go.

    Raises:
      UserError: if it holds no results, or damaged ones.
    """
    targets = [folder] if (folder / SETTINGS).exists() else sorted(path.parent for path in folder.glob(f"*/{SETTINGS}"))
    if not targets:
        raise UserError(f"--report={folder} holds no results; give a sweep's folder, as results/health/failout_rate")
    for target in targets:
        try:
            known = json.loads((target / SETTINGS).read_text(encoding="utf-8"))
            settings, sweep = Settings(**known["settings"]), load_sweep(known["sweep"])
            scenario = _same_scenario(settings, known, target)
            preset = Preset(**known["preset"])
            graph = _network(settings, scenario, preset, known["dataset"]["classes"]).graph
            combinations = _combinations(graph, known["failure_settings"], settings.tolerance)
            (cells,) = _cells(graph, known["failure_settings"], preset, {known["sweep"]: sweep}).values()
            results = read_results(target, combinations, known["failure_settings"], cells)
        except CodeError:
            raise
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise UserError(
                f"the results in {target} are damaged or not of this version ({first_line(error)}); run the sweep again"
            ) from None
        publish(sweep, target, results, known, console)


def _same_scenario(settings: Settings, known: Mapping[str, Any], target: pathlib.Path) -> Scenario:
    """The scenario that results are of; a user's file may be gone or have changed since."""
    try:
        scenario = load_scenario(settings.scenario)
        if not _own_code(settings).items() <= known["environment"].items():
            raise UserError(f"{settings.scenario} has changed since")
    except UserError as error:
        if not is_own(settings.scenario):
            raise
        raise CodeError(f"{target}: {error}; bring it back, or run the sweep again", load_scenario) from None
    return scenario


def _own_code(settings: Settings) -> dict[str, str]:
    """The version of a user's file, if the scenario is from one."""
    return own_version(load_own(settings.scenario).source) if is_own(settings.scenario) else {}


def _cells(
    graph: Graph,
    failure_settings: Mapping[str, Mapping[str, float]],
    preset: Preset,
    sweeps: Mapping[str, ModuleType],
) -> dict[str, dict[str, Cell]]:
    build = CellBuilder(graph, failure_settings, preset.failout_rate, preset.learning_rate, preset.learning_rate_decay)
    return {name: sweep.cells(build) for name, sweep in sweeps.items()}


def _combinations(graph: Graph, failure_settings: Mapping[str, Mapping[str, float]], tolerance: float) -> Combinations:
    probabilities = [np.array(graph.node_values(probability)) for probability in failure_settings.values()]
    return choose_combinations(graph, probabilities, tolerance)


def _identity(settings: Settings, preset: Preset) -> dict[str, Any]:
    """What every run in a results folder rests on, as far as it is known before the data, by the flags' names."""
    sizes = {field: value for field, value in dataclasses.asdict(preset).items() if field not in ("runs", "network")}
    flags = sizes | dict(preset.network) | {"split": settings.split, "seed": settings.seed}
    return {f"--{name}": value for name, value in flags.items()} | code_version() | _own_code(settings)


def publish(
    sweep: ModuleType, target: pathlib.Path, results: Results, known: Mapping[str, Any], console: Console
) -> None:
    """Prints a sweep's tables and writes its folder.

    Args:
      sweep: its module.
      target: its folder.
      results: what was measured.
      known: all that is needed to repeat it.
      console: where tables go.
    """
    report = make_report(known["sweep"], sweep, results, known["dataset"]["name"], known["notes"], known)
    console.print()
    for note in diverged_note(results):
        console.print(note, soft_wrap=True)
    print_tables(console, report.tables)
    write_folder(target, report.files)
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


def _shrunk(settings: Settings, preset: Preset, paper: Preset | None, data: Data) -> list[str]:
    """What differs from the paper's setting, if it has one, in a sentence; nothing if nothing does."""
    limited = preset.train_examples is not None and data.feed.sizes["train"] == preset.train_examples
    drawn = [f"{preset.train_examples:,} training examples drawn from {data.rows:,} rows"] if limited else []
    if paper is None:
        return [f"Preset {settings.preset}: {drawn[0]}."] if drawn else []
    units = {
        "runs": "runs",
        "epochs": "epochs",
        "batch_size": "examples a batch",
        "learning_rate": "learning rate",
        "learning_rate_decay": "decay of it",
        "failout_rate": "failout rate",
    }
    got, asked = ({**dataclasses.asdict(each), **each.network} for each in (preset, paper))
    units |= {name: name.replace("_", " ") for name in paper.network if name in preset.network}
    differences = drawn + [
        f"{_number(got[name])} instead of {_number(asked[name])} {unit}"
        for name, unit in units.items()
        if got[name] != asked[name]
    ]
    if preset.augment != paper.augment:
        differences.append("no augmentation" if paper.augment else "augmentation")
    if not differences:
        return []
    return [f"Preset {settings.preset}, not the paper's setting: {', '.join(differences)}."]


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
