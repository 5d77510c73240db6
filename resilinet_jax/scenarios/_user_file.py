"""A scenario in a file of the user's own: checked before anything is loaded or built."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from resilinet_jax.errors import UserError
from resilinet_jax.runtime.user_code import load_user_file
from resilinet_jax.scenarios._base import Preset, Scenario

NAME = "SCENARIO"


def load_user_scenario(name: str, known: Collection[str]) -> Scenario:
    """Runs a user's file, once, and checks the scenario that it defines.

    Args:
      name: the file's path, as given by `--scenario`.
      known: the names of the project's scenarios.

    Raises:
      UserError: if there is no such file, or for a mistake in it, naming its line.
    """
    remedy = f"write one as in docs/your_network.md, or take one of {', '.join(known)}"
    file = load_user_file(name, "--scenario", remedy)
    scenario = file.define(NAME, Scenario, "your_network.md")
    where = file.where(NAME)
    _check_fields(where, scenario, known)
    _check_presets(where, scenario)
    file.check_call(f"{NAME}.load", scenario.load, "settings and preset", None, None)
    for preset, numbers in scenario.presets.items():
        given = f"the number of classes and presets[{preset!r}].network"
        file.check_call(f"{NAME}.build_network", scenario.build_network, given, 2, **numbers.network)
    return dataclasses.replace(scenario, file=file)


def _check_fields(where: str, scenario: Scenario, known: Collection[str]) -> None:
    def refuse(field: str, expected: str, got: object) -> UserError:
        return UserError(f"{where}: {NAME}.{field} must be {expected}, got {got!r}")

    if not isinstance(scenario.name, str) or not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", scenario.name, re.ASCII):
        raise refuse("name", "letters, digits, _ - or ., since it names the results' folder", scenario.name)
    if scenario.name in known:
        raise refuse("name", "none of the project's own, whose results would be mixed with yours", scenario.name)
    if not isinstance(scenario.datasets, tuple) or not all(isinstance(each, str) for each in scenario.datasets):
        raise refuse("datasets", 'a tuple of names, as ("mine",) or ()', scenario.datasets)
    for field in ("load", "build_network", "compiler_options", "loss"):
        if not callable(getattr(scenario, field)) and not (field == "loss" and scenario.loss is None):
            raise refuse(field, "a function, given by its name without ()", getattr(scenario, field))
    if not isinstance(scenario.failure_settings, Mapping) or not scenario.failure_settings:
        raise refuse("failure_settings", 'as {"normal": {"node": 0.1}}', scenario.failure_settings)
    for setting, failure in scenario.failure_settings.items():
        if not isinstance(setting, str) or not isinstance(failure, Mapping):
            raise refuse(f"failure_settings[{setting!r}]", 'probabilities by node, as {"node": 0.1}', failure)


def _check_presets(where: str, scenario: Scenario) -> None:
    presets = scenario.presets
    if not isinstance(presets, Mapping) or not presets:
        raise UserError(f'{where}: {NAME}.presets must be as {{"quick": Preset(...)}}, got {type(presets).__name__}')
    for name, preset in presets.items():
        field = f"{where}: {NAME}.presets[{name!r}]"
        if not isinstance(name, str) or not isinstance(preset, Preset):
            raise UserError(f"{field} must be a resilinet_jax.Preset, got {type(preset).__name__}; write Preset(...)")
        network: Any = preset.network
        if not isinstance(network, Mapping) or not all(isinstance(key, str) for key in network):
            raise UserError(f"{field}.network must be build_network's further arguments by name, got {network!r}")
        for key, value in network.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                raise UserError(
                    f"{field}.network[{key!r}] must be a number, a text or a tuple of them, got {value!r}; "
                    "make the rest in build_network"
                ) from None
