"""ImageNet as prepared by TFDS, streamed: decoded and augmented once for all runs of a pass.

A chunk of images is a pure function of its number: the order of an epoch is drawn from seed and epoch, and what
augmentation does to a chunk from seed and number. So whoever goes on from chunk `n` sees just what an uninterrupted
reader would have seen.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Int

from resilinet_jax.datasets.augmentation import random_affine
from resilinet_jax.datasets.feed import ONE_SPLIT, Augment, HeldOut, all_of, filled_up
from resilinet_jax.datasets.prepared import PreparedSplit, decode_image, find_prepared, square
from resilinet_jax.datasets.splits import Examples, Members
from resilinet_jax.errors import DataError

NAME = "imagenet2012"
MARGIN = 0.125  # of the shorter side, left out around the middle: the usual central crop
MOST_VALIDATION = 10_000  # images held out of the training split to select the best epoch
CHUNK_BYTES = 2**27  # about what a chunk may take; at least one batch
_UNREAD = -1  # in place of a label
_LABELS_AT_ONCE = 512  # images whose labels are read together: what they take up stays below a chunk


class _Decoded:
    """Images of a split at one size, by number: what grain reads from."""

    def __init__(self, split: PreparedSplit, numbers: Sequence[int], size: int):
        self._split, self._numbers, self._size = split, numbers, size
        self._labels = np.full(len(numbers), _UNREAD, np.int32)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(self._numbers[index])
        example = self._split[number]
        self._labels[index] = example["label"]
        image = decode_image(example["image"], f"{self._split.name} {number}", self._size / (1 - MARGIN))
        return {"x": square(image, self._size, MARGIN), "y": np.int32(example["label"])}

    def counts(self) -> Int[np.ndarray, " classes"]:
        """Images per class; what has not been handed out yet, as after a resumption, is read for its label alone."""
        unread = np.flatnonzero(self._labels == _UNREAD)
        for part in np.split(unread, range(_LABELS_AT_ONCE, len(unread), _LABELS_AT_ONCE)):
            examples = self._split.read([int(self._numbers[index]) for index in part])
            self._labels[part] = [example["label"] for example in examples]
        return np.bincount(self._labels, minlength=self._split.classes)


class ImageNet:
    """A feed of images that are read as they are needed.

    Memory holds a few chunks, however many images there are.
    """

    augment: Augment | None = None  # done before a chunk is handed out, once for all runs
    labels: Mapping[int, str] = ONE_SPLIT

    def __init__(
        self,
        folder: pathlib.Path,
        size: int,
        batch_size: int,
        seed: int,
        augment: bool = True,
        train_examples: int | None = None,
    ):
        """Opens the data set; no image is read yet.

        Args:
          folder: of the prepared data set.
          size: of the images handed out, in pixels.
          batch_size: a chunk holds a multiple of it.
          seed: of the order and of augmentation.
          augment: whether training images are rotated, shifted and flipped.
          train_examples: at most so many; None for all.

        Raises:
          UserError: if it can't be read, or holds less than a batch.
        """
        published = PreparedSplit(folder, "train")
        held_out = min(MOST_VALIDATION, round(0.1 * len(published)))
        # TFDS has shuffled the records when it prepared them, so that any stretch is a random sample.
        train = range(min(len(published) - held_out, train_examples or len(published)))
        validation = range(len(published) - held_out, len(published))
        test = PreparedSplit(folder, "validation")
        self._parts = {
            "train": _Decoded(published, train, size),
            "validation": _Decoded(published, validation, size),
            "test": _Decoded(test, range(len(test)), size),
        }
        counts = {name: len(part) for name, part in self._parts.items()}
        self.sizes = {name: np.array([count]) for name, count in counts.items()}
        for name, count in counts.items():
            if not count:
                raise DataError(f"{folder}: its splits leave no image for {name}; prepare the whole data set")
        if batch_size > counts["train"]:
            raise DataError(
                f"--batch_size must be at most the {counts['train']:,} training examples, got {batch_size:,}"
            )
        self.fingerprint = published.fingerprint
        self.classes, self.rows = published.classes, len(published) + len(test)
        self._size, self._seed, self._augmented = size, seed, augment
        batches = max(1, CHUNK_BYTES // (batch_size * size * size * 3))
        self._counts, self._chunk = counts, batch_size * min(batches, counts["train"] // batch_size)
        self.chunks = counts["train"] // self._chunk

    def spec(self, split: str) -> Any:
        """Shape and type of a chunk: several batches, or the whole split if that is smaller."""
        count = self._chunk_size(split)
        pixels = jax.ShapeDtypeStruct((count, self._size, self._size, 3), jnp.uint8)
        return Examples(pixels, jax.ShapeDtypeStruct((count,), jnp.int32))  # type: ignore[arg-type]

    def train(self, first: int, sharding: Sharding, augmented: bool = True) -> Iterator[Examples]:
        """Chunks in the order of their numbers, each epoch in an order of its own; prefetched to the devices.

        Args:
          first: number of the first one, counted from the very first epoch.
          sharding: where they go.
          augmented: whether images are augmented, if this feed does so at all.
        """
        number = first
        while True:
            epoch, done = divmod(number, self.chunks)
            for chunk in self._read("train", sharding, epoch, done):
                yield self._augment(number, chunk) if self._augmented and augmented else chunk
                number += 1

    def held_out(self, split: HeldOut, sharding: Sharding) -> Iterator[Examples]:
        """Every example of a split once, in chunks, in the order of the records."""
        return self._read(split, sharding)

    def members(self, split: str) -> Members:
        """All of a chunk, since there is one split."""
        return all_of(self._chunk_size(split))

    def class_counts(self, split: str) -> Int[np.ndarray, "splits classes"]:
        """Number of examples of each class; all of them are read for it whose labels are not known yet."""
        return self._parts[split].counts()[None]

    def _chunk_size(self, split: str) -> int:
        return min(self._chunk, self._counts[split])

    def _read(self, split: str, sharding: Sharding, epoch: int | None = None, done: int = 0) -> Iterator[Examples]:
        """A split's chunks, from the one after `done` on: whole ones shuffled for an epoch, or all in order."""
        size = self._chunk_size(split)
        images = grain.MapDataset.source(self._parts[split])
        if epoch is not None:
            order = np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]
            images = images.shuffle(seed=int(order))[: len(images) // size * size]
        threads = 2 * (os.cpu_count() or 1)  # Pillow decodes without the interpreter's lock
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)

        def stack(parts: Sequence[dict[str, Any]]) -> Examples:
            x, y = np.stack([part["x"] for part in parts]), np.array([part["y"] for part in parts], np.int32)
            return filled_up(Examples(x, y), size)

        chunks = images[done * size :].to_iter_dataset(options).batch(size, batch_fn=stack)
        return iter(grain.experimental.device_put(chunks, sharding, cpu_buffer_size=1, device_buffer_size=1))

    def _augment(self, number: int, chunk: Examples) -> Examples:
        return chunk._replace(x=_augment(jax.random.fold_in(jax.random.key(self._seed), number), chunk.x))


@jax.jit
def _augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Pixels stay bytes, which a chunk has many of."""
    return jnp.round(random_affine(key, images)).astype(jnp.uint8)


def find_imagenet(folder: pathlib.Path) -> pathlib.Path:
    """The prepared data set in TFDS' folder.

    Raises:
      UserError: if there is none, saying how to get it.
    """
    found = find_prepared(folder, NAME)
    if found is None:
        raise DataError(
            f"no {NAME} in {folder} (expected {NAME}/<version>/dataset_info.json); it takes a registration at "
            "image-net.org and a preparation by TFDS: see docs/running.md, 'ImageNet', or take --scenario=cifar10"
        )
    return found
