"""Reports of finished sweeps: written, made again from their folders, or under a user's own failure probabilities."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from rich.console import Console

from resilinet_jax.errors import CodeError, UserError, first_line
from resilinet_jax.ingredients import build_cells, build_combinations, build_network, own_code, own_failures
from resilinet_jax.own_failures import own_folder
from resilinet_jax.report import SETTINGS, make_report, print_report
from resilinet_jax.result_files import read_results, write_folder
from resilinet_jax.results import Results
from resilinet_jax.scenarios import Preset, Scenario, is_own, load_scenario
from resilinet_jax.settings import Settings


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
    print_report(console, results, report)
    write_folder(target, report.files)
    console.print(f"Written to {target}", soft_wrap=True)


def publish_both(
    sweep: ModuleType,
    target: pathlib.Path,
    results: Results,
    known: Mapping[str, Any],
    own: Mapping[str, Mapping[str, float]],
    console: Console,
) -> None:
    """A sweep's report, and the one under the user's own failures if there are any, which alone is printed then."""
    without = {**known, "settings": {**known["settings"], "failure_probability": None}}
    publish(sweep, target, results, without, Console(quiet=True) if own else console)
    if own:
        publish(sweep, own_folder(target), _with_own(results, own), known, console)


def report_again(
    folder: pathlib.Path,
    load_sweep: Callable[[str], ModuleType],
    console: Console,
    failure_probability: str | None = None,
) -> None:
    """Makes a sweep's report again from what stands in its results folder, without training.

    Args:
      folder: of the sweep, or a scenario's, for each sweep in it.
      load_sweep: a sweep's module by name.
      console: where tables go.
      failure_probability: the user's own, as typed; the report then goes to `own_folder`, and the sweep's own stays.

    Raises:
      UserError: if it holds no results, or damaged ones, or too few for these failure probabilities.
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
            graph = build_network(settings, scenario, preset, known["dataset"]["classes"]).graph
            combinations = build_combinations(graph, known["failure_settings"], settings.tolerance)
            (cells,) = build_cells(graph, known["failure_settings"], preset, {known["sweep"]: sweep}).values()
            sizes = dict(known.get("message_bytes", {}))  # which earlier versions did not store
            results = read_results(target, combinations, known["failure_settings"], cells, sizes)
        except CodeError:
            raise
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise UserError(
                f"the results in {target} are damaged or not of this version ({first_line(error)}); run the sweep again"
            ) from None
        recorded = settings.failure_probability  # of a report under somebody's own failures, which it is made for again
        if failure_probability and recorded and target != folder:
            continue
        asked = failure_probability or recorded
        own = own_failures(asked, combinations, settings.tolerance)
        if own:
            known["settings"]["failure_probability"] = asked
        into = own_folder(target) if own and not recorded else target
        publish(sweep, into, _with_own(results, own), known, console)


def _with_own(results: Results, own: Mapping[str, Mapping[str, float]]) -> Results:
    return dataclasses.replace(results, failure_settings={**results.failure_settings, **own})


def _same_scenario(settings: Settings, known: Mapping[str, Any], target: pathlib.Path) -> Scenario:
    """The scenario that results are of; a user's file may be gone or have changed since."""
    try:
        scenario = load_scenario(settings.scenario)
        if not own_code(settings).items() <= known.get("environment", {}).items():
            raise UserError(f"{settings.scenario} has changed since")
    except UserError as error:
        if not is_own(settings.scenario):
            raise
        raise CodeError(f"{target}: {error}; bring it back, or run the sweep again", load_scenario) from None
    return scenario
