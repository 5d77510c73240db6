"""Scenarios by name: a network over a graph, failure settings, data, and how it is trained.

A scenario's module imports what it needs when it is called, so that naming one costs nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilinet_jax.feed import Feed
    from resilinet_jax.network import Network
    from resilinet_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much of everything: what the command line's flags default to.

    Attributes:
      runs: seeds per cell.
      epochs: passes over the training split.
      batch_size: examples per step.
      learning_rate: Adam's in the first epoch.
      learning_rate_decay: factor on it after each epoch.
      failout_rate: where a sweep does not vary it.
      train_examples: at most so many; None for all.
      augment: whether images are rotated, shifted and flipped at random in training.
      network: the flags that size this scenario's network, with their values.
    """

    runs: int
    epochs: int
    batch_size: int
    learning_rate: float
    failout_rate: float
    train_examples: int | None
    network: Mapping[str, Any]
    learning_rate_decay: float = 1.0
    augment: bool | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """A scenario's data, ready to train on.

    Attributes:
      feed: hands out the examples.
      classes: number of classes.
      name: how reports call it, e.g. `synthetic`.
      told: what it is, in a line.
      rows: examples in all, before any were left out.
      fingerprint: of the data itself, to tell whether two results rest on the same.
    """

    feed: Feed
    classes: int
    name: str
    told: str
    rows: int
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a sweep runs on.

    Attributes:
      name: as given by `--scenario`.
      datasets: what `--dataset` may be besides `auto`; a suffix such as `.npz` stands for files.
      load: the data for the settings and the preset as the flags changed it.
      build_network: the network for a number of classes, and what `Preset.network` holds.
      failure_settings: by name, the failure probability of nodes by name; those not named never fail.
      presets: by name; `paper` is the paper's own.
      huge_pages: whether training on CPU gains by the settings of `resilinet_jax.memory`.
      compiler_options: of XLA, for this network on the default backend.
    """

    name: str
    datasets: tuple[str, ...]
    load: Callable[[Settings, Preset], Data]
    build_network: Callable[..., Network]
    failure_settings: Mapping[str, Mapping[str, float]]
    presets: Mapping[str, Preset]
    huge_pages: bool = False
    compiler_options: Callable[[], Mapping[str, bool]] = dict


def scenario_names() -> list[str]:
    """All scenarios: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load_scenario(name: str) -> Scenario:
    """The scenario of one of `scenario_names()`."""
    return importlib.import_module(f"{__name__}.{name}").SCENARIO
