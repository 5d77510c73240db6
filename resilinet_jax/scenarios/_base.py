"""What a scenario is made of."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from resilinet_jax.datasets.split_settings import SplitSettings
from resilinet_jax.datasets.table_settings import TableSettings
from resilinet_jax.errors import UserError
from resilinet_jax.runtime.user_code import UserFile

if TYPE_CHECKING:
    from resilinet_jax.datasets.feed import Feed
    from resilinet_jax.network.forward import Network


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


@runtime_checkable
class DataSettings(SplitSettings, TableSettings, Protocol):
    """What `Scenario.load` is asked for: the flags about data, as `resilinet_jax.Settings` has them.

    Attributes:
      dataset: a name, or the path of a file.
      data_folder: where `--data_dir` points.
    """

    @property
    def dataset(self) -> str: ...
    @property
    def data_folder(self) -> pathlib.Path | None: ...


@dataclasses.dataclass(frozen=True)
class Data:
    """A scenario's data, ready to train on.

    Attributes:
      feed: hands out the examples.
      classes: number of classes, or of the numbers to predict.
      name: how reports call it, e.g. `synthetic`.
      description: what it is, in a line.
      rows: examples in all, before any were left out.
      fingerprint: of the data itself, to tell whether two results rest on the same.
      people: how many were recorded; None if nobody is told apart.
    """

    feed: Feed
    classes: int
    name: str
    description: str
    rows: int
    fingerprint: str
    people: int | None = None

    def __post_init__(self) -> None:
        """Refuses what a user's own `load` may have mixed up.

        Raises:
          UserError: naming the field.
        """
        from resilinet_jax.datasets.feed import Feed

        if not isinstance(self.feed, Feed):
            raise UserError(f"Data.feed must be a feed, as Resident(splits), got {type(self.feed).__name__}")
        kinds = {"classes": int, "name": str, "description": str, "rows": int, "fingerprint": str}
        for field, kind in kinds.items():
            value = getattr(self, field)
            if not isinstance(value, kind):
                expected = {int: "an integer", str: "text"}[kind]
                raise UserError(f"Data.{field} must be {expected}, got {value!r}; give a value of that kind")
        if self.classes != self.feed.classes:
            raise UserError(f"Data.classes must be the feed's {self.feed.classes}, got {self.classes}; give that")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a sweep runs on.

    Attributes:
      name: as given by `--scenario`; of a user's file, what its folder of results is called.
      datasets: what `--dataset` may be besides `auto`; a suffix such as `.npz` stands for files, `/` for folders,
        `tfds:` for what TFDS has prepared.
      load: the data for the `DataSettings` and the preset as the flags changed it.
      build_network: the network for a number of classes, and what `Preset.network` holds.
      failure_settings: by name, the failure probability of nodes by name; those not named never fail.
      presets: by name; `paper` is the paper's own, `quick` what a command takes without `--preset`.
      huge_pages: whether training on CPU gains by the settings of `resilinet_jax.runtime.memory`.
      compiler_options: of XLA, for this network on the default backend.
      loss: of each example, called with logits [batch, classes] and labels [batch]; None for cross-entropy, or for the
        squared error where numbers are predicted.
    """

    name: str
    datasets: tuple[str, ...]
    load: Callable[[Any, Preset], Data]
    build_network: Callable[..., Network]
    failure_settings: Mapping[str, Mapping[str, float]]
    presets: Mapping[str, Preset]
    huge_pages: bool = False
    compiler_options: Callable[[], Mapping[str, bool | str]] = dict
    loss: Callable[..., Any] | None = None
    file: UserFile | None = dataclasses.field(default=None, metadata={"given": False})

    @property
    def version(self) -> dict[str, str]:
        """The version of the user's file, which counts beside the project's code; nothing for the project's own."""
        return {} if self.file is None else {"SCENARIO's code": self.file.version()}
