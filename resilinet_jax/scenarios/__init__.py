"""Scenarios by name: a network over a graph, failure settings, and how it is trained."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilinet_jax.network import Network


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much of everything: what the command line's flags default to.

    Attributes:
      runs: seeds per cell.
      epochs: passes over the training split.
      batch_size: examples per step.
      learning_rate: Adam's.
      failout_rate: where a sweep does not vary it.
      hidden_units: width of the dense layers.
      train_examples: at most so many; None for all.
    """

    runs: int
    epochs: int
    batch_size: int
    learning_rate: float
    failout_rate: float
    hidden_units: int
    train_examples: int | None


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a sweep runs on.

    Attributes:
      name: as given by `--scenario`.
      build_network: the network for a number of classes and a number of hidden units.
      failure_settings: by name, the failure probability of nodes by name; those not named never fail.
      presets: by name; `paper` is the paper's own.
    """

    name: str
    build_network: Callable[[int, int], Network]
    failure_settings: Mapping[str, Mapping[str, float]]
    presets: Mapping[str, Preset]


def scenario_names() -> list[str]:
    """All scenarios: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_scenario(name: str) -> Scenario:
    """The scenario of one of `scenario_names()`."""
    return importlib.import_module(f"{__name__}.{name}").SCENARIO
