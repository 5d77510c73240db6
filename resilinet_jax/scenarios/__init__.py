"""Scenarios: a network over a graph, failure settings, data, and how it is trained.

They go by name, or by the path of a user's own file. A scenario's module imports what it needs when it is called, so
that naming one costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from resilinet_jax.runtime.user_code import is_user_file

if TYPE_CHECKING:
    from resilinet_jax.scenarios._base import Scenario


def scenario_names() -> list[str]:
    """All scenarios of the project: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load_scenario(name: str) -> Scenario:
    """The scenario of one of `scenario_names()`, or of a user's file by its path.

    Raises:
      UserError: for a mistake in the user's file, naming its line.
    """
    if is_user_file(name):
        from resilinet_jax.scenarios._user_file import load_user_scenario

        return load_user_scenario(name, scenario_names())
    scenario: Scenario = importlib.import_module(f"{__name__}.{name}").SCENARIO
    return scenario
