"""From a choice to results: loads the data, trains what the sweeps need, each cell once, and has them reported."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from resilinet_jax.cells import Cell
from resilinet_jax.command import notes
from resilinet_jax.command.cluster import job_of
from resilinet_jax.command.ingredients import (
    build_cells,
    build_combinations,
    build_network,
    build_units,
    check_targets,
    sweep_version,
    user_failures,
)
from resilinet_jax.command.settings import Choice
from resilinet_jax.engine.program import MOST_RUNS, Selection, TrainingSettings
from resilinet_jax.engine.run_cells import plan_models, run_cells, unfinished
from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.files import digest, discard, only_command_in, write_file
from resilinet_jax.network.forward import Network
from resilinet_jax.network.rehearsal import rehearse
from resilinet_jax.report.graph_drawing import draw_graph
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.results.messages import message_bytes
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results
from resilinet_jax.runtime import interruption
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.runtime.identity import (
    check_identity,
    code_version,
    environment,
    machine,
    numbers_rest_on,
    stamp,
    write_identity,
)
from resilinet_jax.runtime.kept_models import KeptModels
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.runtime.store import Store
from resilinet_jax.runtime.user_code import errors_in
from resilinet_jax.scenarios._base import Data

if TYPE_CHECKING:
    from resilinet_jax.command.crew import Crew
    from resilinet_jax.runtime.tensorboard import LiveCurves


class _Work(NamedTuple):
    """What all sweeps of a command share; `failures` is the user's own failure setting by its name, if there is one."""

    choice: Choice
    data: Data
    combinations: Combinations
    failures: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]
    console: Console
    crew: Crew | None
    reference: Any  # to the data, for the crew


def run_experiment(
    choice: Choice,
    sweeps: Mapping[str, Sweep],
    console: Console,
    data: Data | None = None,
    crew: Crew | None = None,
) -> str | None:
    """Runs sweeps (settings already checked), prints their tables and writes their folders.

    What an interrupted command finished is not trained again, nor what another sweep trained on the same settings.

    Args:
      choice: what the user asked for.
      sweeps: the chosen ones by name.
      console: where tables and notes go.
      data: from `choice.load_data`, if they are loaded already.
      crew: of the cluster that trains; None to train in this process.

    Returns:
      One line naming the runs that diverged, or None.

    Raises:
      UserError: for what only the data can tell, before anything compiles.
    """
    settings, scenario = choice.settings, choice.scenario
    sweeps = possible_sweeps(choice, sweeps, console)
    if not settings.overwrite:
        for changes, _ in by_network(sweeps):
            check_identity(kept_apart(choice.runs_folder, changes), _identity(choice.with_network(changes)))
    data = data or choice.load_data()
    reference = None
    if crew is not None:
        data, reference = crew.hold(data)
    interruption.check()
    network = build_network(choice, data.classes)
    combinations = build_combinations(network.graph, scenario.failure_settings, settings.tolerance)
    check_targets(settings.metric, _names(data, "target_names"), combinations)
    failures = user_failures(settings.failure_probability, combinations, settings.tolerance)
    try_networks(choice, sweeps, data)
    to_know = [*notes.data_note(data), *notes.preset_note(choice, data), *notes.combinations_note(combinations)]
    work = _Work(choice, data, combinations, failures, to_know, console, crew, reference)
    with only_command_in(choice.folder):
        for note in work.notes:
            console.print(note, soft_wrap=True)
        if settings.overwrite and not any(choice.folder.glob("*_overwriting")):
            discard(choice.tensorboard_folder)
        groups = by_network(sweeps)
        diverged = [_run_on_network(work, changes, sharing) for changes, sharing in groups]
        for changes, _ in groups * settings.overwrite:
            _replace_old_runs(choice, changes)
    return "; ".join(filter(None, diverged)) or None


def try_networks(choice: Choice, sweeps: Mapping[str, Sweep], data: Data) -> None:
    """Rehearses every network that sweeps train, so that a mistake in any is told before anything compiles.

    Args:
      choice: what the user asked for.
      sweeps: by name.
      data: to train on.
    """
    scenario = choice.scenario
    for changes, _ in by_network(sweeps):
        network = build_network(choice.with_network(changes), data.classes)
        with errors_in(scenario.file, scenario.build_network):
            rehearse(network, data.feed.spec("train"), data.classes, scenario.loss)


def possible_sweeps(choice: Choice, sweeps: Mapping[str, Sweep], console: Console) -> dict[str, Sweep]:
    """The sweeps whose network the scenario can build: some want more than the scenario's own.

    Args:
      choice: whose scenario it is.
      sweeps: the chosen ones by name.
      console: told which are left out.

    Raises:
      UserError: if the only one that was chosen is left out.
    """
    taken = inspect.signature(choice.scenario.build_network).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    possible = {name: sweep for name, sweep in sweeps.items() if anything or set(sweep.network) <= set(taken)}
    for name in sweeps.keys() - possible.keys():
        missing = ", ".join(set(sweeps[name].network) - set(taken))
        what = f"the sweep {name} needs a network with {missing}, which build_network does not take"
        if choice.settings.sweep != "all":
            raise UserError(f"{choice.settings.scenario}: {what}; add the argument, or choose another sweep")
        console.print(f"Left out: {what}.", soft_wrap=True)
    return possible


def draw(choice: Choice) -> pathlib.Path:
    """Draws the graph of a scenario, without data and training: `<results_dir>/<scenario>/graph.svg`.

    Args:
      choice: whose scenario it is.

    Returns:
      The file.

    Raises:
      UserError: for a mistake in a user's own scenario.
    """
    # No number of classes changes the graph.
    graph = build_network(choice, classes=2).graph
    target = choice.folder / "graph.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, draw_graph(graph, choice.scenario.failure_settings, alone=True).encode())
    return target


MODELS = "models"  # where trained networks are kept, in the folder of their runs

# What a sweep's network has beside the scenario's own, as `Scenario.build_network` takes it.
Changes = Mapping[str, Any]


def by_network(sweeps: Mapping[str, Sweep]) -> list[tuple[Changes, dict[str, Sweep]]]:
    """The sweeps that share a network, for each; most take the scenario's own."""
    groups: dict[str, tuple[Changes, dict[str, Sweep]]] = {}
    for name, sweep in sweeps.items():
        groups.setdefault(_suffix(sweep.network), (sweep.network, {}))[1][name] = sweep
    return list(groups.values())


def kept_apart(folder: pathlib.Path, network: Changes, overwriting: bool = False) -> pathlib.Path:
    """The folder for runs of a network with these arguments beside the scenario's own, or for what will replace them.

    Args:
      folder: for runs of the scenario's own network.
      network: the arguments.
      overwriting: whether the runs will replace others.
    """
    return folder.with_name(folder.name + _suffix(network) + "_overwriting" * overwriting)


def _suffix(network: Changes) -> str:
    """Arguments as part of a folder's name: plain values as they are, others by their digest."""
    values = {name: json.dumps(value, sort_keys=True, default=repr) for name, value in sorted(network.items())}
    plain = {name: text if text.isalnum() else digest(text.encode())[:8] for name, text in values.items()}
    return "".join(f"_{name}_{value}" for name, value in plain.items())


def _run_on_network(work: _Work, changes: Changes, sweeps: Mapping[str, Sweep]) -> str | None:
    # Matplotlib and pandas take a second to import: after the data, so that mistakes there are told sooner, but before
    # training, so that it can't end without a report.
    from resilinet_jax.command.reporting import publish_both

    choice, data, combinations = work.choice.with_network(changes), work.data, work.combinations
    settings, failure_settings = choice.settings, choice.scenario.failure_settings
    network = build_network(choice, data.classes)
    cells, keeps = cells_by_sweep(choice, network, data, sweeps)
    crew, progress = work.crew, Progress(curves=live_curves(choice))
    identity = identity_with_data(choice, data, combinations) | (crew.rests_on if crew else {})
    runs = _ready_for_runs(choice, changes, identity)
    own = crew.kind if crew else machine()
    store = Store(runs, progress.note, stamp(identity), own)
    kept = KeptModels(runs / MODELS, progress.note, stamp(identity)) if settings.keep_models else None
    under_way = kept_apart(choice.checkpoints_folder, changes, settings.overwrite)
    checkpoints = Checkpoints(under_way / "own", progress.note, stamp(identity))
    training = training_settings(choice, data, combinations)
    numbers = training.run_numbers(data.feed.labels)
    wanted = plan_models(cells, numbers)
    left, finished = unfinished(wanted, store, kept), len(wanted) - len(unfinished(wanted, store))
    already = f", {finished} of them finished already" if finished else ""
    work.console.print(f"{len(wanted)} runs for {', '.join(sweeps)}{already}.", soft_wrap=True)
    if kept is not None:
        again = finished - (len(wanted) - len(left))
        models = {model.kept_name for model in wanted}
        for note in notes.models_note(len(models), network, data.feed.spec("train").x, runs / MODELS, again):
            work.console.print(note, soft_wrap=True)
    kinds = {*store.machines, *[own] * bool(left)}
    if len(kinds) > 1 and not settings.mix_devices:
        raise UserError(
            f"{runs.parent} holds runs measured on {' and on '.join(store.machines)}, and single accuracies may differ "
            f"between devices; train on {store.machines[0]}, choose another --results_dir, or add --mix_devices"
        )
    elsewhere = None if crew is None else functools.partial(
        crew.train, job=job_of(choice, runs), data=work.reference, identity=identity, under_way=under_way.absolute(),
        stamp=stamp(identity),
    )  # fmt: skip
    measured = run_cells(
        network, data.feed, cells, training, progress, combinations, store, checkpoints, kept, elsewhere
    )
    with contextlib.suppress(OSError):  # it holds what another command was stopped in
        under_way.rmdir()
    mixed = f"Measured on {' and on '.join(store.machines)}: single accuracies may differ between them."
    for told in [*[mixed] * (len(store.machines) > 1), *(crew.progress.summary() if crew else [])]:
        work = work._replace(notes=[*work.notes, told])
        work.console.print(told, soft_wrap=True)
    sizes = message_bytes(network, data.feed.spec("train").x)
    for name, sweep in sweeps.items():
        own_cells = {cell.removeprefix(f"{name}/"): cells[cell] for cell in cells if cell.startswith(f"{name}/")}
        runs_of = {cell: measured[f"{name}/{cell}"].rounded() for cell in own_cells}
        record = _record(work, choice, name, sweep, sizes, keeps)
        units = build_units(record, [data.feed.labels[number // MOST_RUNS] for number in numbers])
        names = {kind: record.dataset[kind] for kind in ("class_names", "target_names")}
        results = Results(
            combinations, failure_settings, own_cells, runs_of, sizes, units, select_by=settings.select_by, **names
        )
        publish_both(sweep, choice.folder / name, results, record, work.failures, work.console)
    return notes.diverged_line(cells, measured, len(wanted))


def cells_by_sweep(
    choice: Choice, network: Network, data: Data, sweeps: Mapping[str, Sweep]
) -> tuple[dict[str, Cell], bool]:
    """The cells of sweeps as `<sweep>/<cell>`, and whether the network keeps running statistics.

    Args:
      choice: what the user asked for.
      network: that the sweeps share.
      data: to train on.
      sweeps: by name.
    """
    keeps = bool(network.shapes(data.feed.spec("train").x).statistics)
    how = network.graph, choice.scenario.failure_settings, choice.preset
    made = {name: build_cells(*how, sweep, keeps) for name, sweep in sweeps.items()}
    return {f"{name}/{cell}": numbers for name, own in made.items() for cell, numbers in own.items()}, keeps


def training_settings(choice: Choice, data: Data, combinations: Combinations) -> TrainingSettings:
    """How every run is trained.

    Args:
      choice: what the user asked for.
      data: to train on.
      combinations: the failure combinations that are evaluated.
    """
    settings, preset = choice.settings, choice.preset
    return TrainingSettings(
        preset.runs,
        preset.epochs,
        preset.batch_size,
        settings.seed,
        runs_per_pass=settings.runs_per_pass,
        compiler_options=choice.scenario.compiler_options(),
        rests_on=_program_identity(choice, data),
        selection=Selection.by(settings.select_by, combinations, choice.scenario.failure_settings),
        loss=choice.scenario.loss,
    )


def live_curves(choice: Choice) -> LiveCurves | None:
    """What TensorBoard reads, if the user asked for it."""
    if not choice.settings.tensorboard:
        return None
    from resilinet_jax.runtime.tensorboard import LiveCurves  # imports a good deal

    return LiveCurves(choice.tensorboard_folder)


def identity_with_data(choice: Choice, data: Data, combinations: Combinations) -> dict[str, Any]:
    """What every run in a results folder rests on, by names that a user knows.

    Args:
      choice: what the user asked for, with the sweep's network.
      data: that it is trained and tested on.
      combinations: the failure combinations that are evaluated.
    """
    return {
        **_identity(choice),
        **numbers_rest_on(),
        "data set": f"{data.name} {data.fingerprint[:12]}",
        "failure combinations": digest(combinations.survival.tobytes())[:12],
    }


def _ready_for_runs(choice: Choice, changes: Changes, identity: Mapping[str, Any]) -> pathlib.Path:
    """The folder for a network's runs, which says what they rest on; what is overwritten stays for now in another."""
    kept, anew = (kept_apart(choice.runs_folder, changes, overwriting) for overwriting in (False, True))
    runs = anew if choice.settings.overwrite else kept
    if choice.settings.overwrite:
        try:
            check_identity(runs, identity)
        except UserError:  # a command that overwrote with other settings was stopped
            discard(runs)
    elif anew.exists() and not kept.exists():  # one was stopped between the two lines of `_replace_old_runs`
        anew.replace(kept)
    check_identity(runs, identity)
    write_identity(runs, identity)
    return runs


def _replace_old_runs(choice: Choice, changes: Changes) -> None:
    """Puts the runs that overwrite others in their place, now that all of them are there."""
    discard(kept_apart(choice.checkpoints_folder, changes))
    discard(kept_apart(choice.runs_folder, changes))
    kept_apart(choice.runs_folder, changes, overwriting=True).replace(kept_apart(choice.runs_folder, changes))


def _record(work: _Work, choice: Choice, name: str, sweep: Sweep, sizes: Mapping[str, int], keeps: bool) -> Record:
    """All that is needed to repeat a sweep, and to report it again."""
    data, settings = work.data, choice.settings_for(work.data.name)
    asked = name if sweep.file is None else sweep.file.name
    return Record(
        sweep=name,
        command=settings.command_line(asked),
        settings=dataclasses.asdict(settings),
        preset=dataclasses.asdict(choice.preset),
        dataset={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "rows": data.rows,
            "classes": data.classes,
            "class_names": _names(data, "class_names"),
            "target_names": _names(data, "target_names"),
        },
        examples={name: sizes.tolist() if len(sizes) > 1 else int(sizes[0]) for name, sizes in data.feed.sizes.items()},
        failure_settings=choice.scenario.failure_settings,
        notes=work.notes,
        environment=environment() | choice.scenario.version | sweep_version(sweep),
        message_bytes=sizes,
        graph=dataclasses.asdict(work.combinations.graph),
        keeps_statistics=keeps,
    )


def _names(data: Data, kind: str) -> list[str]:
    """`class_names` or `target_names`, which a user's own feed may not have."""
    return list(getattr(data.feed, kind, ()))


def _identity(choice: Choice) -> dict[str, Any]:
    """What every run in a results folder rests on, as far as it is known before the data, by the flags' names."""
    fields = dataclasses.asdict(choice.preset)
    sizes = {field: value for field, value in fields.items() if field not in ("runs", "network")}
    settings = {name: getattr(choice.settings, name) for name in ("split", "select_by", "seed")}
    # Each of several splits is the same whichever others are drawn; a single one is standardised by itself.
    settings["splits"] = "1" if choice.settings.splits == 1 else "several"
    flags = sizes | settings
    # What a network of a user's own takes may be called like a flag.
    flags |= {f"network.{name}" if name in flags else name: value for name, value in choice.preset.network.items()}
    return {f"--{name}": value for name, value in flags.items()} | code_version() | choice.scenario.version


def _program_identity(choice: Choice, data: Data) -> str | None:
    """What tells traced functions apart; None where a user's code may depend on more than its file shows."""
    if choice.scenario.file is not None:
        return None
    preset = choice.preset
    return repr((choice.scenario.name, preset.network, preset.augment, data.name, data.classes, code_version()))
