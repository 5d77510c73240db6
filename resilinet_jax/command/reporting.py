"""Reports of finished sweeps: written, made again from their folders, or under a user's own failure probabilities."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from resilinet_jax.command.ingredients import (
    Sweeps,
    build_cells,
    build_combinations,
    build_network,
    build_units,
    check_targets,
    load_sweep,
    sweep_version,
    user_failures,
)
from resilinet_jax.command.settings import Choice, Settings, chosen_sweeps
from resilinet_jax.errors import CodeError, UserError, first_line
from resilinet_jax.failures.user_failures import user_report_folder
from resilinet_jax.files import LOCK, only_command_in, write_folder
from resilinet_jax.network.graph import Graph
from resilinet_jax.report.console import PlainConsole
from resilinet_jax.report.report import RECORD, make_report
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.results.csv_files import read_results
from resilinet_jax.results.metric_names import ACCURACY, metric_folder
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results
from resilinet_jax.runtime.user_code import is_user_file
from resilinet_jax.scenarios import load_scenario, scenario_names
from resilinet_jax.scenarios._base import Preset


def publish(sweep: Sweep, target: pathlib.Path, results: Results, record: Record, console: Console) -> None:
    """Writes a sweep's folder, and then prints its tables: what can't be printed is not lost.

    Args:
      sweep: whose tables they are.
      target: its folder.
      results: what was measured.
      record: what repeats it.
      console: where tables go.
    """
    report = make_report(sweep, results, record)
    write_folder(target, report.files(), _written_before(target))
    report.print(console)
    console.print(f"Written to {target}", soft_wrap=True)


def _written_before(target: pathlib.Path) -> Mapping[str, str]:
    """Digests of the files that an earlier report left there, by name."""
    try:
        return dict(Record.read(target / RECORD).files)
    except (OSError, ValueError, TypeError):
        return {}


def publish_both(
    sweep: Sweep,
    target: pathlib.Path,
    results: Results,
    record: Record,
    failures: Mapping[str, Mapping[str, float]],
    console: Console,
) -> None:
    """A sweep's report, and the one under the user's own failures or by another metric, which alone is printed then.

    Args:
      sweep: whose tables they are.
      target: its folder.
      results: what was measured.
      record: what repeats it, the user's failures and metric included.
      failures: the user's own failure setting by its name, if there is one.
      console: where tables go.
    """
    own, metric = _with_settings(record, failure_probability=None, metric=ACCURACY), str(record.settings["metric"])
    into = _folder_beside(target, bool(failures), metric)
    publish(sweep, target, results, own, console if into == target else PlainConsole(quiet=True))
    if into != target:
        publish(sweep, into, _told(results, failures, metric), record, console)


def _folder_beside(folder: pathlib.Path, own_failures: bool, metric: str) -> pathlib.Path:
    """Where a sweep's report goes: its own folder, or one beside it for the user's own failures and other metrics."""
    return metric_folder(user_report_folder(folder) if own_failures else folder, metric)


def report_again(
    folder: pathlib.Path,
    project: Sweeps,
    console: Console,
    failure_probability: str | None = None,
    asked: str | None = None,
    paper_output: bool = False,
    metric: str = ACCURACY,
) -> None:
    """Makes a sweep's report again from what stands in its results folder, without training.

    Nothing that came with the results is run: a scenario's graph and numbers are data, and a user's own sweep runs only
    if it is asked for.

    Args:
      folder: of the sweep, or a scenario's, for each sweep in it.
      project: the project's sweeps.
      console: where tables go.
      failure_probability: the user's own, as typed; the report then goes to `user_report_folder`, and the sweep's own
        stays.
      asked: `--sweep`, which names the file of a user's own sweep.
      paper_output: whether files for a paper are wanted; those that are there are made again in any case.
      metric: by which the report is made, as for `failure_probability`; accuracy leaves it at that of the folder.

    Raises:
      UserError: if it holds no results, or damaged ones, or too few for these failure probabilities or this metric.
    """
    below = sorted(path.parent for path in folder.glob(f"*/{RECORD}"))
    inside = [path for path in below if path.resolve().is_relative_to(folder.resolve())]  # no links that lead elsewhere
    targets = [folder] if (folder / RECORD).exists() else inside
    if not targets:
        raise UserError(f"--report={folder} holds no results; give a sweep's folder, as results/health/failout_rate")
    for target in targets:
        with _alone_with(target):
            record, sweep, results = finished_sweep(target, project, asked)
            settings = Settings(**record.settings)
            own = settings.failure_probability  # of a report beside a sweep's own, which is made for the same again
            asks, told = failure_probability or metric != ACCURACY, own or settings.metric != ACCURACY
            if asks and told and target != folder:
                continue  # no report is made beside such a one, which stays as it is
            wanted, by = failure_probability or own, settings.metric if metric == ACCURACY else metric
            check_targets(by, results.target_names, results.combinations)
            if by != ACCURACY and not results.has_class_counts:
                remedy = f"run the sweep with --metric={by}, or leave it out"
                raise UserError(f"--metric={by} needs {results.columns.outcomes}, which is not in {target}; {remedy}")
            failures = user_failures(wanted, results.combinations, settings.tolerance)
            paper = paper_output or settings.paper_output
            record = _with_settings(record, failure_probability=wanted, paper_output=paper, metric=by)
            into = _folder_instead(target, (bool(own), settings.metric), (bool(failures), by))
            publish(sweep, into, _told(results, failures, by), record, console)


@contextlib.contextmanager
def _alone_with(target: pathlib.Path) -> Iterator[None]:
    """Keeps commands out of a scenario's folder meanwhile; of a sweep's folder elsewhere two reports write the same."""
    scenario = target.resolve().parent
    try:
        with only_command_in(scenario) if (scenario / LOCK).exists() else contextlib.nullcontext():
            yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(
            f"can't write in {target} ({error.strerror}); copy it to where you can, and report it there"
        ) from None


def finished_sweep(target: pathlib.Path, project: Sweeps, asked: str | None) -> tuple[Record, Sweep, Results]:
    """What stands in a sweep's results folder; nothing that came with it is run.

    Args:
      target: the sweep's folder.
      project: the project's sweeps.
      asked: `--sweep`, which names the file of a user's own sweep.

    Raises:
      UserError: if it holds damaged results, or those of another version or of a sweep that was not asked for.
    """
    try:
        record = Record.read(target / RECORD)
        record = record if record.graph else _completed(record, target)
        settings, graph = Settings(**record.settings), Graph.from_data(record.graph)
        sweep = _same_sweep(record, project, target, asked)
        combinations = build_combinations(graph, record.failure_settings, settings.tolerance)
        cells = build_cells(graph, record.failure_settings, Preset(**record.preset), sweep, record.keeps_statistics)
        asked_of = combinations, record.failure_settings, cells, record.message_bytes
        units = functools.partial(build_units, record)
        names = (record.dataset.get(kind, ()) for kind in ("class_names", "target_names"))
        results = read_results(target, *asked_of, record.files, units, *names)
        results = dataclasses.replace(results, select_by=settings.select_by)
    except CodeError:
        raise
    except Exception as error:  # whatever others may have written into their files
        raise UserError(
            f"the results in {target} are damaged or not of this version ({first_line(error)}); run the sweep again"
        ) from None
    return record, sweep, results


def _folder_instead(folder: pathlib.Path, was: tuple[bool, str], wanted: tuple[bool, str]) -> pathlib.Path:
    """Where a report goes that is made from another one: beside the sweep's own, or to the folder that it is from.

    Args:
      folder: of the other one, which may have been given another name.
      was: whether that is under somebody's own failures, and by which metric.
      wanted: the same of the new one.
    """
    if was == wanted:
        return folder
    ending = _folder_beside(pathlib.Path("x"), *was).name[1:]
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return _folder_beside(named.with_name(named.name.removesuffix(ending)), *wanted)


def _with_settings(record: Record, **changed: Any) -> Record:
    """The record of a report with these settings changed, such as `failure_probability` (as typed; None for none)."""
    settings = Settings(**{**record.settings, **changed})
    asked = settings.sweep if is_user_file(settings.sweep) else record.sweep
    return dataclasses.replace(record, settings=dataclasses.asdict(settings), command=settings.command_line(asked))


def _completed(record: Record, target: pathlib.Path) -> Record:
    """A record with what is not in older files, of which the project's own scenarios know it."""
    settings = Settings(**record.settings)
    if settings.scenario not in scenario_names():
        what = f"{target}: results of {settings.scenario}, which hold no graph, as those of older versions"
        raise CodeError(f"{what}; run the sweep again", report_again)
    choice = Choice(settings, load_scenario(settings.scenario), Preset(**record.preset))
    graph = build_network(choice, record.dataset["classes"]).graph
    completed = dataclasses.asdict(choice.settings_for(record.dataset["name"]))
    return dataclasses.replace(record, settings=completed, graph=dataclasses.asdict(graph))


def _told(results: Results, failures: Mapping[str, Mapping[str, float]], metric: str) -> Results:
    settings = {**results.failure_settings, **failures}
    return dataclasses.replace(results, failure_settings=settings, metric=metric)


def _same_sweep(record: Record, project: Sweeps, target: pathlib.Path, asked: str | None) -> Sweep:
    """The sweep that results are of."""
    if not is_user_file(record.settings["sweep"]):
        return project.load_sweep(*chosen_sweeps(record.sweep, project.sweep_names()))
    remedy = f"add --sweep={record.settings['sweep']}, which is run then"
    if asked is None or record.sweep not in chosen_sweeps(asked, project.sweep_names()):
        raise CodeError(f"{target}: results of a sweep of somebody's own; {remedy}", report_again)
    try:
        sweep = load_sweep(asked, project)
    except UserError as error:  # about that file, not about the results
        raise CodeError(str(error), report_again) from None
    if not sweep_version(sweep).items() <= record.environment.items():
        raise CodeError(f"{target}: {asked} has changed since; bring it back, or run the sweep again", report_again)
    return sweep
