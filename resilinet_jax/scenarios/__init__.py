"""Scenarios: a network over a graph, failure settings, data, and how it is trained.

They go by name, or by the path of a user's own file. A scenario's module imports what it needs when it is called, so
that naming one costs nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from resilinet_jax.errors import UserError

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

    def __post_init__(self) -> None:
        """Refuses what a user's own `load` may have mixed up.

        Raises:
          UserError: naming the field.
        """
        from resilinet_jax.feed import Feed

        if not isinstance(self.feed, Feed):
            raise UserError(f"Data.feed must be a feed, as Resident(splits), got {type(self.feed).__name__}")
        kinds = {"classes": int, "name": str, "told": str, "rows": int, "fingerprint": str}
        for field, kind in kinds.items():
            value = getattr(self, field)
            if not isinstance(value, kind):
                told = {int: "an integer", str: "text"}[kind]
                raise UserError(f"Data.{field} must be {told}, got {value!r}; give a value of that kind")
        if self.classes != self.feed.classes:
            raise UserError(f"Data.classes must be the feed's {self.feed.classes}, got {self.classes}; give that")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a sweep runs on.

    Attributes:
      name: as given by `--scenario`; of a user's file, what its folder of results is called.
      datasets: what `--dataset` may be besides `auto`; a suffix such as `.npz` stands for files.
      load: the data for the settings and the preset as the flags changed it.
      build_network: the network for a number of classes, and what `Preset.network` holds.
      failure_settings: by name, the failure probability of nodes by name; those not named never fail.
      presets: by name; `paper` is the paper's own, `quick` what a command takes without `--preset`.
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


def is_own(name: str) -> bool:
    """Whether this names a user's file, not one of `scenario_names()`."""
    return name.endswith(".py")


def load_scenario(name: str) -> Scenario:
    """The scenario of one of `scenario_names()`, or of a user's file by its path.

    Raises:
      UserError: for a mistake in the user's file, naming its line.
    """
    if is_own(name):
        from resilinet_jax.user_code import load_own

        return load_own(name).scenario
    return importlib.import_module(f"{__name__}.{name}").SCENARIO
