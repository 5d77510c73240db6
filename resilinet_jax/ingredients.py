"""What a sweep is made of: a scenario's network, the sweep's cells on it, and the failure combinations they meet."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.combinations import Combinations, choose_combinations
from resilinet_jax.errors import UserError
from resilinet_jax.graph import Graph
from resilinet_jax.network import Network
from resilinet_jax.own_failures import OWN, parse_failure_probability
from resilinet_jax.scenarios import Preset, Scenario, is_own
from resilinet_jax.settings import Settings
from resilinet_jax.store import own_version
from resilinet_jax.user_code import checked_result, errors_in, load_own


def build_network(settings: Settings, scenario: Scenario, preset: Preset, classes: int) -> Network:
    """The scenario's network, whose nodes the failure settings have to know."""
    with errors_in(settings.scenario, scenario.build_network):
        built = scenario.build_network(classes, **preset.network)
        network: Network = checked_result(scenario.build_network, built, Network)
    with errors_in(settings.scenario):
        for setting, probability in scenario.failure_settings.items():
            network.graph.node_values(probability, f"failure setting {setting!r}")
    return network


def build_cells(
    graph: Graph,
    failure_settings: Mapping[str, Mapping[str, float]],
    preset: Preset,
    sweeps: Mapping[str, ModuleType],
) -> dict[str, dict[str, Cell]]:
    """Each sweep's cells by name, by the sweep's name."""
    build = CellBuilder(graph, failure_settings, preset.failout_rate, preset.learning_rate, preset.learning_rate_decay)
    return {name: sweep.cells(build) for name, sweep in sweeps.items()}


def build_combinations(
    graph: Graph, failure_settings: Mapping[str, Mapping[str, float]], tolerance: float
) -> Combinations:
    """Those that matter under any of the failure settings."""
    probabilities = [np.array(graph.node_values(probability)) for probability in failure_settings.values()]
    return choose_combinations(graph, probabilities, tolerance)


def own_failures(text: str | None, combinations: Combinations, tolerance: float) -> dict[str, dict[str, float]]:
    """The failure setting of `--failure_probability` by its name; nothing without it.

    Raises:
      UserError: for what can't fail, and where combinations that were not evaluated weigh more than the tolerance.
    """
    if text is None:
        return {}
    own = parse_failure_probability(text)
    failure = np.array(combinations.graph.node_values(own, "--failure_probability"))
    left_out = combinations.left_out(failure)
    if left_out > tolerance:
        raise UserError(
            f"--failure_probability: failure combinations that were not evaluated weigh {left_out:.2g} under it, "
            f"expected at most --tolerance={tolerance:g}; give smaller probabilities, or fewer of them"
        )
    return {OWN: own}


def own_code(settings: Settings) -> dict[str, str]:
    """The version of a user's file, if the scenario is from one."""
    return own_version(load_own(settings.scenario).source) if is_own(settings.scenario) else {}
