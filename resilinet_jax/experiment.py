"""From settings to results: loads the data, trains what the sweeps need, each cell once, and has them reported."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from resilinet_jax import hosts
from resilinet_jax.bandwidth import message_bytes
from resilinet_jax.cells import Cell
from resilinet_jax.checkpoints import Checkpoints
from resilinet_jax.combinations import Combinations
from resilinet_jax.drawing import draw_graph
from resilinet_jax.engine import plan_models, run_cells, unfinished
from resilinet_jax.errors import UserError
from resilinet_jax.ingredients import build_cells, build_combinations, build_network, own_code, own_failures
from resilinet_jax.program import TrainingSettings
from resilinet_jax.progress import Progress
from resilinet_jax.rehearsal import rehearse
from resilinet_jax.repeat import environment
from resilinet_jax.results import History, Results
from resilinet_jax.scenarios import Data, Preset, Scenario, is_own, load_scenario
from resilinet_jax.settings import Settings
from resilinet_jax.store import (
    Measured,
    Store,
    check_identity,
    code_version,
    discard,
    only_command_in,
    write_file,
    write_identity,
)
from resilinet_jax.user_code import checked_result, errors_in

if TYPE_CHECKING:
    from resilinet_jax.tensorboard import LiveCurves


class _Work(NamedTuple):
    """What all sweeps of a command share; `own` is the user's own failure setting by its name, if there is any."""

    settings: Settings
    scenario: Scenario
    data: Data
    combinations: Combinations
    own: Mapping[str, Mapping[str, float]]
    console: Console


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
    sweeps = _possible(settings, scenario, sweeps, console)
    if not settings.overwrite:
        for options in _by_network(sweeps):
            check_identity(_apart(settings.runs_folder, options), _identity(settings, _with(preset, options)))
    with errors_in(settings.scenario, scenario.load):
        data = checked_result(scenario.load, scenario.load(settings, preset), Data)
    examples = data.feed.sizes["train"]
    if preset.batch_size > examples:
        raise UserError(f"--batch_size must be at most the {examples:,} training examples, got {preset.batch_size:,}")
    network = build_network(settings, scenario, preset, data.classes)
    with errors_in(settings.scenario, scenario.build_network):
        rehearse(network, data.feed.spec("train").x, data.classes)
    combinations = build_combinations(network.graph, scenario.failure_settings, settings.tolerance)
    own = own_failures(settings.failure_probability, combinations, settings.tolerance)
    with only_command_in(settings.scenario_folder) if hosts.is_first() else contextlib.nullcontext():
        return _run(_Work(settings, scenario, data, combinations, own, console), preset, sweeps)


def _possible(
    settings: Settings, scenario: Scenario, sweeps: Mapping[str, ModuleType], console: Console
) -> dict[str, ModuleType]:
    """The sweeps whose network the scenario can build: some want more than the scenario's own."""
    taken = inspect.signature(scenario.build_network).parameters
    possible = {name: sweep for name, sweep in sweeps.items() if set(getattr(sweep, "NETWORK", {})) <= set(taken)}
    for name in sweeps.keys() - possible.keys():
        missing = ", ".join(set(sweeps[name].NETWORK) - set(taken))
        told = f"the sweep {name} needs a network with {missing}, which build_network does not take"
        if settings.sweep != "all":
            raise UserError(f"{settings.scenario}: {told}; add the argument, or choose another sweep")
        console.print(f"Left out: {told}.", soft_wrap=True)
    return possible


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
    graph = build_network(settings, scenario, settings.preset_of(scenario), classes=2).graph
    target = settings.scenario_folder / "graph.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, draw_graph(graph, scenario.failure_settings, alone=True).encode())
    return target


def _run(work: _Work, preset: Preset, sweeps: Mapping[str, ModuleType]) -> str | None:
    notes = [
        f"Data set: {work.data.told}.",
        *_shrunk(work.settings, preset, work.scenario.presets.get("paper"), work.data),
        *_left_out(work.combinations),
    ]
    for note in notes:
        work.console.print(note, soft_wrap=True)
    if work.settings.overwrite and hosts.is_first():
        discard(work.settings.tensorboard_folder)
    diverged = [
        _run_on_network(work, _with(preset, options), options, own, notes)
        for options, own in _by_network(sweeps).items()
    ]
    return "; ".join(filter(None, diverged)) or None


# What a sweep's network has beside the scenario's own, as `Scenario.build_network` takes it.
Options = tuple[tuple[str, Any], ...]


def _by_network(sweeps: Mapping[str, ModuleType]) -> dict[Options, dict[str, ModuleType]]:
    """The sweeps that share a network; most take the scenario's own."""
    groups: dict[Options, dict[str, ModuleType]] = {}
    for name, sweep in sweeps.items():
        groups.setdefault(tuple(getattr(sweep, "NETWORK", {}).items()), {})[name] = sweep
    return groups


def _with(preset: Preset, options: Options) -> Preset:
    return dataclasses.replace(preset, network={**preset.network, **dict(options)})


def _apart(folder: pathlib.Path, options: Options) -> pathlib.Path:
    """Runs of another network are kept in a folder of their own."""
    return folder.with_name("_".join([folder.name, *(name for name, _ in options)]))


def _run_on_network(
    work: _Work, preset: Preset, options: Options, sweeps: Mapping[str, ModuleType], notes: Sequence[str]
) -> str | None:
    # Matplotlib and pandas take a second to import: after the data, so that mistakes there are told sooner, but before
    # training, so that it can't end without a report.
    from resilinet_jax.finished import publish_both

    settings, scenario, combinations = work.settings, work.scenario, work.combinations
    network = build_network(settings, scenario, preset, work.data.classes)
    by_sweep = build_cells(network.graph, scenario.failure_settings, preset, sweeps)
    cells = {f"{name}/{cell}": numbers for name, made in by_sweep.items() for cell, numbers in made.items()}
    progress = Progress(quiet=not hosts.is_first(), curves=_live_curves(settings))
    runs, under_way = (_apart(folder, options) for folder in (settings.runs_folder, settings.checkpoints_folder))
    if settings.overwrite and hosts.is_first():
        discard(runs)
        discard(under_way)
    hosts.wait_for_all()
    store = _open_store(runs, _identity(settings, preset), work.data, combinations, progress)
    checkpoints = Checkpoints(under_way / f"process_{hosts.number()}", progress.note)
    wanted = plan_models(cells, preset.runs)
    finished = len(wanted) - len(unfinished(wanted, store))
    already = f", {finished} of them finished already" if finished else ""
    work.console.print(f"{len(wanted)} runs for {', '.join(sweeps)}{already}.", soft_wrap=True)
    training = TrainingSettings(
        preset.runs,
        preset.epochs,
        preset.batch_size,
        settings.seed,
        runs_per_pass=settings.runs_per_pass,
        compiler_options=scenario.compiler_options(),
        rests_on=_program_identity(settings, preset, work.data),
    )
    measured = run_cells(network, work.data.feed, cells, training, progress, combinations, store, checkpoints)
    if hosts.is_first():
        known = _known(settings, scenario, preset, work.data, notes)
        known["message_bytes"] = message_bytes(network, work.data.feed.spec("train").x)
        for name in sweeps:
            own = {cell: measured[f"{name}/{cell}"].rounded() for cell in by_sweep[name]}
            results = Results(
                combinations,
                scenario.failure_settings,
                by_sweep[name],
                accuracy={cell: each.accuracy for cell, each in own.items()},
                history={cell: History(each.loss, each.validation_accuracy) for cell, each in own.items()},
                weight={cell: each.weight for cell, each in own.items()},
                message_bytes=known["message_bytes"],
            )
            target = settings.scenario_folder / name
            publish_both(sweeps[name], target, results, known | {"sweep": name}, work.own, work.console)
    return _diverged(cells, measured, len(wanted))


def _live_curves(settings: Settings) -> LiveCurves | None:
    if not settings.tensorboard:
        return None
    from resilinet_jax.tensorboard import LiveCurves  # imports a good deal

    return LiveCurves(settings.tensorboard_folder)


def _open_store(
    folder: pathlib.Path, known: Mapping[str, Any], data: Data, combinations: Combinations, progress: Progress
) -> Store:
    """The finished runs in a folder, if they rest on the same as those to come."""
    identity = {
        **known,
        "data set": f"{data.name} {data.fingerprint[:12]}",
        "failure combinations": hashlib.sha256(combinations.survival.tobytes()).hexdigest()[:12],
    }
    check_identity(folder, identity)
    write_identity(folder, identity)
    return Store(folder, progress.note)


def _known(settings: Settings, scenario: Scenario, preset: Preset, data: Data, notes: Sequence[str]) -> dict[str, Any]:
    """All that is needed to repeat a sweep, and to report it again."""
    return {
        "settings": dataclasses.asdict(settings),
        "preset": dataclasses.asdict(preset),
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "rows": data.rows, "classes": data.classes},
        "examples": dict(data.feed.sizes),
        "failure_settings": scenario.failure_settings,
        "notes": notes,
        "environment": environment() | own_code(settings),
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


def _identity(settings: Settings, preset: Preset) -> dict[str, Any]:
    """What every run in a results folder rests on, as far as it is known before the data, by the flags' names."""
    sizes = {field: value for field, value in dataclasses.asdict(preset).items() if field not in ("runs", "network")}
    flags = sizes | dict(preset.network) | {"split": settings.split, "seed": settings.seed}
    return {f"--{name}": value for name, value in flags.items()} | code_version() | own_code(settings)


def _program_identity(settings: Settings, preset: Preset, data: Data) -> str | None:
    """What tells traced functions apart; None where a user's code may depend on more than its file shows."""
    if is_own(settings.scenario):
        return None
    return repr((settings.scenario, preset.network, preset.augment, data.name, data.classes, code_version()))


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
