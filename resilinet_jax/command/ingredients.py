"""What a sweep is made of: a scenario's network, the sweep's cells on it, and the failure combinations they meet."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.command.settings import Choice
from resilinet_jax.datasets.split_settings import LEAVE_ONE_OUT
from resilinet_jax.errors import UserError, check_printable
from resilinet_jax.failures.combinations import MOST_NODES, Combinations, choose_combinations
from resilinet_jax.failures.user_failures import YOUR_OWN, parse_failure_probability
from resilinet_jax.network.forward import Network
from resilinet_jax.network.graph import Graph
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.results.metric_names import ACCURACY
from resilinet_jax.results.record import Record
from resilinet_jax.results.units import PERSON, Units
from resilinet_jax.runtime.user_code import checked_result, errors_in, is_user_file, load_user_file
from resilinet_jax.scenarios._base import Preset


@runtime_checkable
class Sweeps(Protocol):
    """The project's sweeps, which the entry point hands in."""

    def sweep_names(self) -> list[str]:
        """Names of all sweeps of the project."""

    def load_sweep(self, name: str) -> Sweep:
        """The sweep of one of `sweep_names()`."""

    def first_line(self, name: str) -> str:
        """What a sweep is about, in a line, without importing it."""


def load_sweep(asked: str, project: Sweeps) -> Sweep:
    """A sweep of the project, or a user's own.

    Args:
      asked: its name, or the path of a user's file that defines `SWEEP`.
      project: the project's sweeps.

    Raises:
      UserError: for a mistake in the user's file, naming its line.
    """
    if not is_user_file(asked):
        return project.load_sweep(asked)
    file = load_user_file(asked, "--sweep", "write one as in docs/your_sweep.md, or see --sweep=list")
    sweep: Sweep = file.define("SWEEP", Sweep, "your_sweep.md")
    for field, given in {"cells": "a CellBuilder", "tables": "the results", "figure": "the results"}.items():
        file.check_call(f"SWEEP.{field}", getattr(sweep, field), given, None)
    title = (ast.get_docstring(ast.parse(file.source)) or "").split("\n")[0]
    return dataclasses.replace(sweep, title=title, file=file)


def sweep_version(sweep: Sweep) -> dict[str, str]:
    """The version of a user's file with a sweep; nothing for the project's own."""
    return {} if sweep.file is None else {"SWEEP's code": sweep.file.version()}


def build_network(choice: Choice, classes: int) -> Network:
    """The scenario's network, whose nodes the failure settings have to know.

    Raises:
      UserError: for a mistake in a user's own scenario.
    """
    scenario = choice.scenario
    with errors_in(scenario.file, scenario.build_network):
        built = scenario.build_network(classes, **choice.preset.network)
        network: Network = checked_result(scenario.build_network, built, Network)
    with errors_in(scenario.file):
        for setting, probability in scenario.failure_settings.items():
            network.graph.node_values(probability, f"failure setting {setting!r}")
    return network


def build_cells(
    graph: Graph,
    failure_settings: Mapping[str, Mapping[str, float]],
    preset: Preset,
    sweep: Sweep,
    keeps_statistics: bool = True,
) -> dict[str, Cell]:
    """A sweep's cells by name.

    Args:
      graph: of the scenario.
      failure_settings: by name, failure probability by node name.
      preset: what a sweep does not vary.
      sweep: whose cells they are.
      keeps_statistics: whether the network keeps running statistics.

    Raises:
      UserError: for a mistake in a user's own sweep.
    """
    usual = preset.failout_rate, preset.learning_rate, preset.learning_rate_decay
    build = CellBuilder(graph, failure_settings, *usual, keeps_statistics)
    with errors_in(sweep.file, sweep.cells):
        cells = dict(sweep.cells(build))
        for name, cell in cells.items():
            checked_result(sweep.cells, cell, Cell)
            if not isinstance(name, str):
                raise UserError(f"cells() must name its cells by text, got {name!r}")
            check_printable(name, "the name of a cell")
    return cells


def build_combinations(
    graph: Graph, failure_settings: Mapping[str, Mapping[str, float]], tolerance: float
) -> Combinations:
    """The failure combinations that matter under any of the failure settings.

    Args:
      graph: of the scenario.
      failure_settings: by name, failure probability by node name.
      tolerance: as in `choose_combinations`.
    """
    probabilities = [np.array(graph.node_values(probability)) for probability in failure_settings.values()]
    return choose_combinations(graph, probabilities, tolerance)


def build_units(record: Record, split: Sequence[str]) -> Units:
    """What the runs of a sweep are independent of.

    Args:
      record: of the sweep.
      split: label of each run's.
    """
    kind = {LEAVE_ONE_OUT: PERSON, "block": "block split"}.get(str(record.settings.get("split")), "random split")
    test, train = (np.atleast_1d(record.examples[part]) for part in ("test", "train"))
    return Units(tuple(split), kind, float(np.mean(test / train)))


def user_failures(text: str | None, combinations: Combinations, tolerance: float) -> dict[str, dict[str, float]]:
    """The failure setting of `--failure_probability` by its name; nothing without it.

    Args:
      text: as typed.
      combinations: that were evaluated.
      tolerance: the probability that combinations left out may have.

    Raises:
      UserError: for what can't fail, and where combinations that were not evaluated weigh more than the tolerance.
    """
    if text is None:
        return {}
    probabilities = parse_failure_probability(text)
    failure = np.array(combinations.graph.node_values(probabilities, "--failure_probability"))
    left_out = combinations.left_out(failure)
    if left_out > tolerance:
        raise UserError(
            f"--failure_probability: failure combinations that were not evaluated weigh {left_out:.2g} under it, "
            f"expected at most --tolerance={tolerance:g}; give smaller probabilities, or fewer of them"
        )
    return {YOUR_OWN: probabilities}


def check_targets(metric: str, target_names: Sequence[str], combinations: Combinations) -> None:
    """Refuses what only classes have where numbers are predicted.

    Args:
      metric: `--metric`.
      target_names: of the numbers; none where there are classes.
      combinations: that are evaluated.

    Raises:
      UserError: for a metric of classes, and for combinations that leave some out: accuracies have bounds, R² has none.
    """
    if target_names and not combinations.complete:
        what = (
            f"{len(combinations.graph.causes)} nodes and links that may fail are too many to evaluate all combinations"
        )
        raise UserError(
            f"{what}, and the R² of others has no bounds; let at most {MOST_NODES} fail where numbers are predicted"
        )
    if target_names and metric != ACCURACY:
        raise UserError(f"--metric={metric} is of classes, but numbers are predicted; leave it out: results are R²")
