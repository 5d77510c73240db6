"""How examples reach the devices: a feed hands them out in chunks.

A run shuffles within a chunk by its own key. Where the whole data set fits on the device, one chunk holds it and
is the same in every epoch (`Resident`); a data set of any size is streamed in chunks of a few batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from resilinet_jax.datasets.splits import SPLITS, Examples, Splits, check_examples

if TYPE_CHECKING:
    from jax.sharding import Sharding
    from jaxtyping import Array, Int, Key, Num

    Augment = Callable[[Key[Array, ""], Num[Array, "batch *features"]], Num[Array, "batch *features"]]
else:  # JAX takes longer to import than data to load, and is not needed to refuse them
    Sharding, Augment = Any, Callable[..., Any]

HeldOut = Literal["validation", "test"]


@runtime_checkable
class Feed(Protocol):
    """Hands out a data set's examples.

    Attributes:
      augment: what training does to a batch of a run, or None if nothing is left to do.
      classes: number of classes.
      sizes: number of examples by split.
      chunks: number of chunks in an epoch of training.
    """

    augment: Augment | None
    classes: int
    sizes: dict[str, int]
    chunks: int

    def spec(self, split: str) -> Any:
        """Shape and type of a chunk: `Examples` of `jax.ShapeDtypeStruct`s."""

    def train(self, first: int, sharding: Sharding) -> Iterator[Examples]:
        """Chunks of training examples without end, from number `first` on, counted from the very first epoch."""

    def held_out(self, split: HeldOut, sharding: Sharding) -> Iterator[Examples]:
        """Every example of a split once, in chunks; a label of `PADDING` fills up the last one."""

    def chance(self) -> float:
        """The accuracy of guessing on the test split; it does not depend on what has been handed out before."""


class Resident:
    """A data set that stays on the devices: one chunk a split.

    Attributes:
      notes: sentences of the splits, which the screen and the report say.
      standardisation: what the examples have gone through; None if they are as they were recorded.
    """

    chunks = 1

    def __init__(self, splits: Splits, augment: Augment | None = None):
        """Feeds `splits`; `augment` changes the batches of training.

        Raises:
          UserError: if the examples of a split are none, or not what they should be.
        """
        for name in SPLITS:
            check_examples(f"the {name} split", getattr(splits, name), splits.classes, padded=name != "train")
        self.augment: Augment | None = augment
        self.classes = splits.classes
        self.notes = splits.notes
        self.standardisation = splits.standardisation
        self._splits = splits
        self.sizes = {split: len(getattr(splits, split).y) for split in SPLITS}
        self._placed: dict[tuple[str, Sharding], Examples] = {}

    def spec(self, split: str) -> Any:
        """Shape and type of a split's only chunk, which is the whole split."""
        import jax

        return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), getattr(self._splits, split))

    def train(self, first: int, sharding: Sharding) -> Iterator[Examples]:
        """The whole training split, again and again."""
        del first
        return itertools.repeat(self._place("train", sharding))

    def held_out(self, split: HeldOut, sharding: Sharding) -> Iterator[Examples]:
        """The whole of a split, once, as one chunk."""
        return iter([self._place(split, sharding)])

    def chance(self) -> float:
        """Expected accuracy of guessing on the test split by the training split's class frequencies."""
        return self._splits.chance

    def class_counts(self) -> Int[np.ndarray, " classes"]:
        """Number of training examples of each class."""
        return np.bincount(np.asarray(self._splits.train.y), minlength=self.classes)

    def _place(self, split: str, sharding: Sharding) -> Examples:
        import jax

        key = (split, sharding)
        if key not in self._placed:
            self._placed[key] = jax.device_put(jax.tree.map(np.asarray, getattr(self._splits, split)), sharding)
        return self._placed[key]
