"""How examples reach the devices: a feed hands them out in chunks.

A run shuffles within a chunk by its own key. Where the whole data set fits on the device, one chunk holds it and
is the same in every epoch (`Resident`); a data set of any size is streamed in chunks of a few batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from resilinet_jax.datasets.splits import (
    PADDING,
    SPLITS,
    Examples,
    Members,
    Resplits,
    Splits,
    Standardisation,
    check_examples,
    count_classes,
    target_standardisation,
)

if TYPE_CHECKING:
    from jax.sharding import Sharding
    from jaxtyping import Array, Int, Key, Num

    Augment = Callable[[Key[Array, ""], Num[Array, "batch *features"]], Num[Array, "batch *features"]]
else:  # JAX takes longer to import than data to load, and is not needed to refuse them
    Sharding, Augment = Any, Callable[..., Any]

HeldOut = Literal["validation", "test"]
Part = Literal["train", "validation", "test"]
ONE_SPLIT = {0: "0"}  # labels, where there is but one
HELD_OUT = 2**20  # examples of a chunk that is evaluated: devices hold no more of them, and whole batches


@runtime_checkable
class Feed(Protocol):
    """Hands out a data set's examples.

    Attributes:
      augment: what training does to a batch of a run, or None if nothing is left to do.
      classes: number of classes, or of targets.
      sizes: number of examples by part, of each split.
      chunks: number of chunks in an epoch of training.
      labels: how results call each split, by its number.
    """

    augment: Augment | None
    classes: int
    sizes: dict[str, Int[np.ndarray, " splits"]]
    chunks: int
    labels: Mapping[int, str]

    def spec(self, split: str) -> Any:
        """Shape and type of a chunk: `Examples` of `jax.ShapeDtypeStruct`s."""

    def train(self, first: int, sharding: Sharding, augmented: bool = True) -> Iterator[Examples]:
        """Chunks of training examples without end.

        Args:
          first: number of the first one, counted from the very first epoch.
          sharding: where they go.
          augmented: whether a feed that changes examples at random itself does so.
        """

    def held_out(self, split: HeldOut, sharding: Sharding) -> Iterator[Examples]:
        """Every example of a split once, in chunks; a label of `PADDING` fills up the last one."""

    def members(self, split: str) -> Members:
        """Which examples of a chunk belong to each split; none is added by later chunks."""

    def class_counts(self, split: str) -> Int[np.ndarray, "splits classes"]:
        """Number of examples of each class; it does not depend on what has been handed out before."""


class Resident:
    """A data set that stays on the devices: one chunk a split, or one that several splits have in common.

    Where a single split holds out more than `HELD_OUT` examples, which may be many times what it trains on, they come
    in chunks and do not stay.

    Attributes:
      notes: sentences of the splits, which the screen and the report say.
      standardisation: what the examples of the first split have gone through; None if they are as they were recorded.
      class_names: of classes 0..C-1; none if they have no other names.
      feature_names: of the last axis of the examples; none if they have none.
      target_names: of the numbers to predict; none where examples have classes.
      target_scaling: what those numbers have gone through; None if they are in their own units.
    """

    chunks = 1

    def __init__(self, splits: Splits | Resplits, augment: Augment | None = None):
        """Feeds `splits`; `augment` changes the batches of training.

        Raises:
          UserError: if the examples of a split are none, or not what they should be.
        """
        self._chunk: dict[str, int] = {}
        if isinstance(splits, Resplits):
            self._examples, self._members = dict.fromkeys(SPLITS, splits.examples), splits.members
            self.labels = splits.labels
        else:
            self._examples = {name: getattr(splits, name) for name in SPLITS}
            self._members = {name: all_of(len(part.y)) for name, part in self._examples.items()}
            self._chunk = {name: min(HELD_OUT, len(self._examples[name].y)) for name in SPLITS[1:]}
            self.labels = ONE_SPLIT
        for name, examples in self._examples.items():
            given = splits.classes, name != "train", len(splits.target_names)
            check_examples(f"the {name} split", examples, *given)
        if isinstance(splits, Splits) and splits.target_names:
            fitted = target_standardisation("the train split", np.asarray(splits.train.y), splits.target_names)
            targets = Standardisation(*(each.astype(np.float32)[None] for each in fitted))
            self._members = {name: own._replace(targets=targets) for name, own in self._members.items()}
        self.augment: Augment | None = augment
        self.classes = splits.classes
        self.notes = splits.notes
        self.standardisation = splits.standardisation
        self.class_names = splits.class_names
        self.feature_names = splits.feature_names
        self.target_names = splits.target_names
        self.target_scaling = splits.target_scaling
        self.sizes = {name: members.sizes for name, members in self._members.items()}
        self._placed: dict[tuple[int, Sharding], Examples] = {}
        self._class_counts: dict[str, Int[np.ndarray, "splits classes"]] = {}

    def spec(self, split: str) -> Any:
        """Shape and type of a chunk."""
        import jax

        most = self._chunk.get(split)
        return jax.tree.map(lambda own: jax.ShapeDtypeStruct(own[:most].shape, own.dtype), self._examples[split])

    def members(self, split: str) -> Members:
        """Which examples of the chunk belong to each split."""
        own = self._members[split]
        return own._replace(rows=own.rows[..., : self._chunk.get(split)])

    def train(self, first: int, sharding: Sharding, augmented: bool = True) -> Iterator[Examples]:
        """The whole training split, again and again.

        Args:
          first: number of the first chunk; all are the same.
          sharding: where they go.
          augmented: makes no difference: nothing is changed before `augment` is called with a batch.
        """
        del first, augmented
        return itertools.repeat(self._place("train", sharding))

    def held_out(self, split: HeldOut, sharding: Sharding) -> Iterator[Examples]:
        """The whole of a split, once."""
        import jax

        examples, size = self._examples[split], self._chunk.get(split)
        if size is None or len(examples.y) == size:
            return iter([self._place(split, sharding)])
        cuts = range(0, len(examples.y), size)
        parts = (Examples(*(np.asarray(own[first : first + size]) for own in examples)) for first in cuts)
        return (jax.device_put(filled_up(part, size), sharding) for part in parts)

    def class_counts(self, split: str) -> Int[np.ndarray, "splits classes"]:
        """Number of examples of each class, in each split; counted once."""
        if split not in self._class_counts:
            labels, rows = np.asarray(self._examples[split].y), self._members[split].rows
            each = [count_classes(labels[own[own != PADDING]], self.classes) for own in np.asarray(rows)]
            self._class_counts[split] = np.stack(each)
        return self._class_counts[split]

    def _place(self, split: str, sharding: Sharding) -> Examples:
        import jax

        examples = self._examples[split]
        key = (id(examples), sharding)
        if key not in self._placed:
            self._placed[key] = jax.device_put(jax.tree.map(np.asarray, examples), sharding)
        return self._placed[key]


def all_of(examples: int) -> Members:
    """All examples of a chunk, for the only split."""
    return Members(np.arange(examples, dtype=np.int32)[None])


def filled_up(examples: Examples, size: int) -> Examples:
    """A chunk of `size` examples; what is not there has a label of `PADDING`, or NaN to predict."""
    missing = size - len(examples.y)
    if not missing:
        return examples
    fill = np.nan if examples.y.dtype.kind == "f" else PADDING
    x, y = (
        np.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)], constant_values=value)
        for array, value in zip(examples, (0, fill))
    )
    return Examples(x, y)


def first_split(feed: Feed, part: Part, most: int | None = None) -> Examples:
    """Examples of the first split on the host, as a network takes them.

    Args:
      feed: whose they are.
      part: of the split; of one that trains the first chunk.
      most: at most so many, of the first chunk; None for all.
    """
    import jax
    from jax.sharding import SingleDeviceSharding

    own, parts = feed.members(part).of(0), []
    here = SingleDeviceSharding(jax.local_devices()[0])
    chunks = itertools.islice(feed.train(0, here, augmented=False), 1) if part == "train" else feed.held_out(part, here)
    for chunk in chunks:
        parts.append(own.take(Examples(*map(np.asarray, chunk)), own.rows[:most]))
        if most is not None:
            break
    x, y = (np.concatenate(arrays) for arrays in zip(*parts))
    there = ~np.isnan(y).any(1) if y.ndim > 1 else y != PADDING
    return Examples(x[there], y[there])


def target_units(feed: Feed) -> Standardisation | None:
    """What the numbers to predict have gone through from their own units on, in the first split; None for labels."""
    targets = feed.members("train").of(0).targets
    return None if targets is None else targets.after(getattr(feed, "target_scaling", None))
