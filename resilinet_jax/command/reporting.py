"""Reports of finished sweeps: written, made again from their folders, or under a user's own failure probabilities."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from resilinet_jax.command.ingredients import (
    Sweeps,
    build_cells,
    build_combinations,
    build_network,
    load_sweep,
    sweep_version,
    user_failures,
)
from resilinet_jax.command.settings import Choice, Settings, chosen_sweeps
from resilinet_jax.errors import CodeError, UserError, first_line
from resilinet_jax.failures.user_failures import user_report_folder
from resilinet_jax.files import write_folder
from resilinet_jax.report.report import RECORD, make_report
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.results.csv_files import read_results
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results
from resilinet_jax.runtime.user_code import is_user_file
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios._base import Preset, Scenario


def publish(sweep: Sweep, target: pathlib.Path, results: Results, record: Record, console: Console) -> None:
    """Prints a sweep's tables and writes its folder.

    Args:
      sweep: whose tables they are.
      target: its folder.
      results: what was measured.
      record: what repeats it.
      console: where tables go.
    """
    report = make_report(sweep, results, record)
    report.print(console)
    write_folder(target, report.files())
    console.print(f"Written to {target}", soft_wrap=True)


def publish_both(
    sweep: Sweep,
    target: pathlib.Path,
    results: Results,
    record: Record,
    choice: Choice,
    failures: Mapping[str, Mapping[str, float]],
    console: Console,
) -> None:
    """A sweep's report, and the one under the user's own failures if there are any, which alone is printed then.

    Args:
      sweep: whose tables they are.
      target: its folder.
      results: what was measured.
      record: what repeats it, the user's failures included.
      choice: that `record` was made from.
      failures: the user's own failure setting by its name, if there is one.
      console: where tables go.
    """
    without = _with_failures(record, choice, None)
    publish(sweep, target, results, without, Console(quiet=True) if failures else console)
    if failures:
        publish(sweep, user_report_folder(target), _under(results, failures), record, console)


def report_again(
    folder: pathlib.Path,
    project: Sweeps,
    console: Console,
    failure_probability: str | None = None,
    asked: str | None = None,
) -> None:
    """Makes a sweep's report again from what stands in its results folder, without training.

    Args:
      folder: of the sweep, or a scenario's, for each sweep in it.
      project: the project's sweeps.
      console: where tables go.
      failure_probability: the user's own, as typed; the report then goes to `user_report_folder`, and the sweep's own
        stays.
      asked: `--sweep`, which names the file of a user's own sweep: no file runs only because a results folder says so.

    Raises:
      UserError: if it holds no results, or damaged ones, or too few for these failure probabilities.
    """
    targets = [folder] if (folder / RECORD).exists() else sorted(path.parent for path in folder.glob(f"*/{RECORD}"))
    if not targets:
        raise UserError(f"--report={folder} holds no results; give a sweep's folder, as results/health/failout_rate")
    for target in targets:
        try:
            record = Record.from_json((target / RECORD).read_text(encoding="utf-8"))
            settings = Settings(**record.settings)
            sweep = _same_sweep(record, project, target, asked)
            scenario = _same_scenario(settings, record, target)
            choice = Choice(settings, scenario, Preset(**record.preset))
            graph = build_network(choice, record.dataset["classes"]).graph
            combinations = build_combinations(graph, record.failure_settings, settings.tolerance)
            cells = build_cells(graph, record.failure_settings, choice.preset, sweep)
            results = read_results(target, combinations, record.failure_settings, cells, record.message_bytes)
        except CodeError:
            raise
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise UserError(
                f"the results in {target} are damaged or not of this version ({first_line(error)}); run the sweep again"
            ) from None
        recorded = settings.failure_probability  # of a report under somebody's own failures, which it is made for again
        if failure_probability and recorded and target != folder:
            continue
        wanted = failure_probability or recorded
        failures = user_failures(wanted, combinations, settings.tolerance)
        record = _with_failures(record, choice, wanted)
        into = user_report_folder(target) if failures and not recorded else target
        publish(sweep, into, _under(results, failures), record, console)


def _with_failures(record: Record, choice: Choice, failure_probability: str | None) -> Record:
    """The record of a report under these failure probabilities, as typed; None for the scenario's own."""
    settings = dataclasses.replace(choice.settings, failure_probability=failure_probability)
    asked = record.settings["sweep"] if is_user_file(record.settings["sweep"]) else record.sweep
    command = dataclasses.replace(choice, settings=settings).command_line(asked, record.dataset["name"])
    return dataclasses.replace(record, settings=dataclasses.asdict(settings), command=command)


def _under(results: Results, failures: Mapping[str, Mapping[str, float]]) -> Results:
    return dataclasses.replace(results, failure_settings={**results.failure_settings, **failures})


def _same_sweep(record: Record, project: Sweeps, target: pathlib.Path, asked: str | None) -> Sweep:
    """The sweep that results are of."""
    if not is_user_file(record.settings["sweep"]):
        return project.load_sweep(record.sweep)
    remedy = f"add --sweep={record.settings['sweep']}, which is run then"
    if asked is None or record.sweep not in chosen_sweeps(asked, project.sweep_names()):
        raise CodeError(f"{target}: results of a sweep of somebody's own; {remedy}", report_again)
    sweep = load_sweep(asked, project)
    _check_version(record.environment, sweep_version(sweep), asked, target)
    return sweep


def _same_scenario(settings: Settings, record: Record, target: pathlib.Path) -> Scenario:
    """The scenario that results are of; a user's file may be gone or have changed since."""
    try:
        scenario = load_scenario(settings.scenario)
    except UserError as error:
        if not is_user_file(settings.scenario):
            raise
        raise CodeError(f"{target}: {error}; bring it back, or run the sweep again", load_scenario) from None
    _check_version(record.environment, scenario.version, settings.scenario, target)
    return scenario


def _check_version(environment: Mapping[str, Any], version: Mapping[str, str], name: str, target: pathlib.Path) -> None:
    if not version.items() <= environment.items():
        raise CodeError(f"{target}: {name} has changed since; bring it back, or run the sweep again", load_scenario)
