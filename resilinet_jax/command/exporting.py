"""From a cell of a finished sweep to an artefact that its nodes are made from."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from resilinet_jax.cells import Cell, describe
from resilinet_jax.command.experiment import MODELS, identity_with_data, kept_apart, training_settings
from resilinet_jax.command.ingredients import Sweeps, build_network
from resilinet_jax.command.reporting import finished_sweep
from resilinet_jax.command.settings import Choice, Settings, choose
from resilinet_jax.datasets.feed import Resident, first_split, target_units
from resilinet_jax.deploy.artefact import Artefact, Manifest, Predicted, check_target, write_artefact
from resilinet_jax.deploy.exporting import NodeFiles, check_programs, export_nodes
from resilinet_jax.deploy.model import Model, check_statistics, load_model, trained_model
from resilinet_jax.deploy.to_onnx import check_onnx
from resilinet_jax.engine.program import TrainingSettings
from resilinet_jax.engine.run_cells import run_cells
from resilinet_jax.errors import UserError, suggest
from resilinet_jax.files import only_command_in
from resilinet_jax.network.forward import Network
from resilinet_jax.report.report import RECORD
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.results.messages import hyperconnection_bytes, messages
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.runtime.identity import environment, machine, stamp
from resilinet_jax.runtime.kept_models import Arrays, KeptModels, check_safetensors
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.runtime.store import Store
from resilinet_jax.runtime.user_code import is_user_file
from resilinet_jax.scenarios._base import Data, Preset

CHECKED = 64  # test examples on which exported programs are compared with the network


class _Finished(NamedTuple):
    """A finished sweep, and what it was made from, all of it as it was then."""

    record: Record
    sweep: Sweep
    results: Results
    choice: Choice
    data: Data
    network: Network


def export_cell(
    folder: pathlib.Path,
    cell: str | None,
    run: int,
    target: pathlib.Path | None,
    project: Sweeps,
    console: Console,
    scenario: str,
    asked: str | None,
    onnx: bool,
) -> Artefact:
    """Makes an artefact of one run of a cell: from its kept model, or from that run trained again.

    Args:
      folder: of the finished sweep.
      cell: its name.
      run: its number.
      target: where the artefact goes; None for the usual place.
      project: the project's sweeps.
      console: where notes go.
      scenario: `--scenario`, which names the file of a user's own scenario.
      asked: `--sweep`, which names the file of a user's own sweep.
      onnx: whether programs in ONNX are made as well.

    Raises:
      UserError: if the results are not of this code and these data, if there is no such cell or run, or if the run
        trained again has other accuracies.
    """
    record, sweep, results = _read(folder, project, asked)
    if not isinstance(record.examples["train"], int):
        raise UserError(
            f"{folder} holds results of several splits; train one with --keep_models and export that, as by "
            "--test_subject where each subject is left out"
        )
    name = _cell_name(cell, results)
    check_statistics(name, results.cells[name])
    runs = len(results.measured[name].score)
    if run >= runs:
        raise UserError(f"--run={run}: {name} has {runs} run{'s' * (runs > 1)}; expected 0 to {runs - 1}")
    if run in results.measured[name].diverged:
        raise UserError(f"run {run} of {name} diverged, so there is nothing to export; choose another --run")
    home = folder.resolve().parent
    target = target or home / "artefacts" / record.sweep / name.replace("/", "_") / f"run_{run}"
    if target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--artefact={target} lies in the sweep's folder, which is replaced as a whole; choose another")
    check_target(target)
    check_safetensors()
    if onnx:
        check_onnx()
    finished = _as_it_was(record, sweep, results, home, scenario)
    with only_command_in(home):
        arrays = _arrays(finished, home, name, run, console)
        data, network = finished.data, finished.network
        (number,) = _alone(finished, run).run_numbers(data.feed.labels)
        example = data.feed.spec("train").x
        told = results.target_names or getattr(data.feed, "class_names", ())
        names = tuple(told) or tuple(map(str, range(data.classes)))
        standardisation, targets = getattr(data.feed, "standardisation", None), target_units(data.feed)
        seed = finished.choice.settings.seed
        model = trained_model(
            network, results.cells[name], arrays, seed, number, example, standardisation, names, targets
        )
        files = export_nodes(model, example, onnx)
        check_programs(model, files, np.asarray(first_split(data.feed, "test", CHECKED).x))
        manifest = _manifest(finished, name, run, model, {node: each.signature for node, each in files.items()})
        artefact = _write(target, manifest, files)
    size = sum((target / name).stat().st_size for name in artefact.manifest.files)
    console.print(f"Exported run {run} of {name}, {len(files)} nodes, {size / 1e6:.3g} MB, to {target}", soft_wrap=True)
    return artefact


def rebuild(folder: pathlib.Path, target: pathlib.Path | None, console: Console, scenario: str, onnx: bool) -> Artefact:
    """Makes an artefact's programs again from its weights: without data, results or training.

    Args:
      folder: of the artefact, whose programs may be missing, damaged or too old to be read.
      target: where the artefact goes; None for the same folder, in which weights and further files stay as they are.
      console: where notes go.
      scenario: `--scenario`, which names the file of a user's own scenario.
      onnx: whether programs in ONNX are made as well.

    Raises:
      UserError: if the weights are damaged, or the programs can't be made.
    """
    target = target or folder
    check_target(target)
    check_safetensors()
    if onnx:
        check_onnx()
    manifest = Artefact.open(folder, programs=False).manifest
    check_scenario_named(folder, manifest, scenario)
    model = load_model(folder, manifest.scenario)
    dtype = np.dtype(manifest.input_dtype)
    shape = (CHECKED, *manifest.input_shape)
    files = export_nodes(model, jax.ShapeDtypeStruct(shape, dtype), onnx)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, shape) if np.issubdtype(dtype, np.integer) else rng.standard_normal(shape)
    check_programs(model, files, x.astype(dtype))
    nodes = {node: each.signature for node, each in files.items()}
    told = dataclasses.replace(manifest, nodes=nodes, versions=environment()["versions"])
    same = target.resolve() == folder.resolve()
    artefact = _write(target, told, files, manifest.files if same else None)
    also = ", in ONNX as well," if onnx else ""
    console.print(f"Made the programs of {len(files)} nodes again{also} from the weights, in {target}", soft_wrap=True)
    return artefact


def _write(
    target: pathlib.Path, manifest: Manifest, files: Mapping[str, NodeFiles], before: Mapping[str, str] | None = None
) -> Artefact:
    return write_artefact(
        target,
        manifest,
        {node: each.arrays for node, each in files.items()},
        {node: each.program for node, each in files.items()},
        {node: each.onnx for node, each in files.items() if each.onnx is not None},
        before,
    )


def check_scenario_named(folder: pathlib.Path, manifest: Manifest, scenario: str) -> None:
    """Refuses to run the file of a scenario that only an artefact names.

    Args:
      folder: of the artefact.
      manifest: its.
      scenario: `--scenario`.

    Raises:
      UserError: naming the file.
    """
    if is_user_file(manifest.scenario) and scenario != manifest.scenario:
        raise UserError(
            f"{folder} is of a scenario of somebody's own; add --scenario={manifest.scenario}, which is run"
        )


def _read(folder: pathlib.Path, project: Sweeps, asked: str | None) -> tuple[Record, Sweep, Results]:
    if not (folder / RECORD).is_file():
        raise UserError(f"--export={folder} holds no results; give a sweep's folder, as results/health/failout_rate")
    record, sweep, results = finished_sweep(folder, project, asked)
    made, now = (each.get("code", "unknown") for each in (record.environment, environment()))
    if made != now:
        raise UserError(f"{folder} was made by version {made} of the code, not {now}; run the sweep again, then export")
    if not record.files:
        raise UserError(f"{folder} tells no digests of its files, as older results; run the sweep again, then export")
    return record, sweep, results


def _cell_name(asked: str | None, results: Results) -> str:
    if asked is None:
        raise UserError(f"--cell is missing; give one of {', '.join(results.cells)}")
    if asked not in results.cells:
        raise UserError(f"--cell: unknown cell {asked!r}{suggest(asked, list(results.cells))}")
    return asked


def _as_it_was(record: Record, sweep: Sweep, results: Results, home: pathlib.Path, scenario: str) -> _Finished:
    """Loads the data and builds the network again, and refuses them where they are others."""
    if is_user_file(record.scenario) and scenario != record.scenario:
        raise UserError(f"results of a scenario of somebody's own; add --scenario={record.scenario}, which is run then")
    settings = {**record.settings, "results_dir": str(home.parent)}
    choice = choice_again(settings, record.preset).with_network(dict(sweep.network))
    if not choice.scenario.version.items() <= record.environment.items():
        raise UserError(f"{record.scenario} has changed since; bring it back, or run the sweep again")
    data = same_data(choice, record.dataset)
    return _Finished(record, sweep, results, choice, data, build_network(choice, data.classes))


def choice_again(settings: Mapping[str, Any], preset: Mapping[str, Any]) -> Choice:
    """The choice that a record or manifest tells of.

    Args:
      settings: the flags by name.
      preset: the scenario's preset as the flags changed it, by field.
    """
    return dataclasses.replace(choose(Settings(**settings)), preset=Preset(**preset))


def same_data(choice: Choice, dataset: Mapping[str, Any]) -> Data:
    """The data of a choice, which must be those that results rest on.

    Args:
      choice: of the same settings.
      dataset: `fingerprint` and more of what they rest on.

    Raises:
      UserError: if the data are others, or gone.
    """
    data = choice.load_data()
    if (got := data.fingerprint) != (expected := dataset["fingerprint"]):
        raise UserError(
            f"{data.name} is not what the sweep was trained on (fingerprint {got[:8]}, not {expected[:8]}); bring that "
            "back, or run the sweep again"
        )
    return data


def _arrays(finished: _Finished, home: pathlib.Path, name: str, run: int, console: Console) -> Arrays:
    """The variables of a run: kept, or trained again with the same accuracies."""
    cell, choice, data = finished.results.cells[name], finished.choice, finished.data
    combinations, training = finished.results.combinations, _alone(finished, run)
    (number,) = training.run_numbers(data.feed.labels)
    progress = Progress()
    own_stamp = stamp(identity_with_data(choice, data, combinations))
    runs = kept_apart(home / choice.runs_folder.name, finished.sweep.network)
    found = KeptModels(runs / MODELS, progress.note, own_stamp).get((cell.training_key(), number))
    if found is not None:
        return found
    console.print(f"No model of run {run} of {name} was kept (--keep_models): it is trained again.", soft_wrap=True)
    kept, store = KeptModels(), Store()
    under_way = Checkpoints(home / "checkpoints_export", progress.note, own_stamp)
    again = run_cells(
        finished.network, data.feed, {name: cell}, training, progress, combinations, store, under_way, kept
    )
    before = finished.results.measured[name].score[run]
    after = again[name].rounded().score[0]
    if not np.array_equal(before, after):
        raise UserError(_differs(finished.record, name, run, float(np.abs(before - after).max())))
    return kept[cell.training_key(), number]


def _alone(finished: _Finished, run: int) -> TrainingSettings:
    """How one run was trained, by its place among those of its cell."""
    usual = training_settings(finished.choice, finished.data, finished.results.combinations)
    return dataclasses.replace(usual, runs=1, first_run=run, runs_per_pass=None)


def _differs(record: Record, name: str, run: int, most: float) -> str:
    now: dict[str, Any] = environment()
    then = record.environment
    versions = [
        f"{package} {then.get('versions', {}).get(package)}, now {version}"
        for package, version in now["versions"].items()
        if then.get("versions", {}).get(package) != version
    ]
    if then.get("machine") != machine():
        versions.append(f"{then.get('machine')}, now {machine()}")
    why = f"; what differs: {', '.join(versions)}" if versions else ""
    return (
        f"run {run} of {name}, trained again, has other accuracies (by up to {100 * most:.2g} %){why}; run the sweep "
        "again with --keep_models, and export that"
    )


def _manifest(finished: _Finished, name: str, run: int, model: Model, nodes: Mapping[str, Any]) -> Manifest:
    record, results, data = finished.record, finished.results, finished.data
    graph, cell = results.graph, results.cells[name]
    spec = data.feed.spec("train").x
    known = isinstance(data.feed, Resident) and model.targets is None  # a streamed feed would read all of its labels
    standardisation, targets = (
        scaling and {field: np.asarray(value).tolist() for field, value in scaling._asdict().items()}
        for scaling in (model.standardisation, model.targets)
    )
    return Manifest(
        scenario=record.scenario,
        network={**finished.choice.preset.network},
        graph=graph,
        sweep=record.sweep,
        cell=name,
        run=run,
        settings=describe(graph, cell),
        present=[bool(each) for each in cell.present],
        activity=float(cell.inference_activity),
        skip_units=float(cell.skip_units),
        input_shape=list(spec.shape[1:]),
        input_dtype=str(np.dtype(spec.dtype)),
        standardisation=standardisation,
        classes=model.classes,
        targets=targets,
        class_counts=data.feed.class_counts("train")[0].tolist() if known else [],
        nodes=nodes,
        predicted=_predicted(results, name, cell, run),
        dataset=record.dataset,
        recorded={"settings": record.settings, "preset": record.preset},
        code={"code": record.environment["code"], **finished.choice.scenario.version},
        versions=record.environment["versions"],
    )


def _predicted(results: Results, name: str, cell: Cell, run: int) -> list[Predicted]:
    graph = results.graph
    arrives = messages(graph, cell, results.combinations.survival)
    sizes = hyperconnection_bytes(graph, results.message_bytes)
    edges = [edge.name for edge in graph.hyperconnections]
    to_cloud = [edge.target == graph.cloud for edge in graph.hyperconnections]
    return [
        Predicted(
            failing,
            float(score),
            [edge for edge, there in zip(edges, row) if there],
            int(sizes @ row),
            bool(row[to_cloud].any()),
        )
        for failing, score, row in zip(results.failing_sets, results.measured[name].score[run], arrives)
    ]
