"""Reads image data sets that have been prepared for TFDS, without TensorFlow."""

from __future__ import annotations

import hashlib
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resilinet_jax.errors import UserError, first_line

SUFFIX = "dataset_info.json"


def find_prepared(data_dir: pathlib.Path, name: str) -> pathlib.Path | None:
    """The folder of a data set's newest version in TFDS' folder, if there is any."""
    versions = [path.parent for path in data_dir.glob(f"{name}/*/{SUFFIX}")]
    return max(
        versions, key=lambda path: [int(part) if part.isdigit() else -1 for part in path.name.split(".")], default=None
    )


class PreparedSplit:
    """A split of a prepared data set: encoded images and their labels, by number."""

    def __init__(self, folder: pathlib.Path, split: str):
        """Opens a split.

        Args:
          folder: from `find_prepared`.
          split: its name in the data set.

        Raises:
          UserError: if it isn't there, can't be read, or needs TensorFlow.
        """
        import tensorflow_datasets as tfds  # a second that only image data have to spend

        self._folder = folder
        self.name = f"{folder.parent.name}/{folder.name} {split}"
        remedy = f"prepare the data set again, or remove {folder}"
        try:
            builder = tfds.builder_from_directory(folder)
        except Exception as error:  # TFDS raises whatever its parsers do
            raise UserError(f"{folder}: not a TFDS data set ({first_line(error)}); {remedy}") from None
        if builder.info.file_format.file_suffix != "array_record":
            raise UserError(
                f"{folder}: prepared as {builder.info.file_format.file_suffix}, which takes TensorFlow to read; "
                "prepare it with file_format='array_record'"
            )
        if split not in builder.info.splits:
            raise UserError(
                f"{folder}: no split {split!r} (known: {', '.join(builder.info.splits) or 'none'}); {remedy}"
            )
        features = builder.info.features
        if not {"image", "label"} <= set(features or ()):
            raise UserError(f"{folder}: expected features image and label, found {', '.join(features or ['none'])}")
        self.classes: int = features["label"].num_classes
        try:
            self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            self._length = len(self._source)
        except Exception as error:  # array_record's C++ errors among them
            raise UserError(f"{folder}: can't read split {split!r} ({first_line(error)}); {remedy}") from None
        expected = builder.info.splits[split].num_examples
        if self._length != expected:
            raise UserError(f"{folder}: split {split!r} has {self._length:,} examples, expected {expected:,}; {remedy}")

    def fingerprint(self) -> str:
        """SHA-256 over what TFDS noted about the data set, shortened to 16 hexadecimal digits: not over its images."""
        return hashlib.sha256((self._folder / SUFFIX).read_bytes()).hexdigest()[:16]

    def __len__(self) -> int:
        """Number of examples."""
        return self._length

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One example, its image as encoded."""
        return self.read([number])[0]

    def read(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Many at once, which costs far less than one by one."""
        try:
            return self._source.__getitems__(list(numbers))
        except Exception as error:  # as above
            raise UserError(f"{self.name}: can't read its records ({first_line(error)}); prepare it again") from None


def decode_image(encoded: bytes, what: str, least: float | None = None) -> Image.Image:
    """An image as three colours, whatever it was encoded as.

    Args:
      encoded: the file's bytes.
      what: how a message calls it.
      least: pixels that the shorter side must keep; a JPEG may then be decoded at an eighth to a half of its size,
        which takes a fraction of the time. None for all of it.

    Raises:
      UserError: if it can't be decoded.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        if least is not None:
            scale = least / min(image.size)
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{what}: corrupt image ({first_line(error)}); remove or replace it") from None


def square(image: Image.Image, size: int, margin: float = 0.0) -> UInt8[np.ndarray, "size size 3"]:
    """The image's central square, less a share `margin` of it in all, at `size` x `size` pixels.

    Bilinear with antialiasing; an image that has that size already is left as it is.
    """
    side = min(image.size) * (1 - margin)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    if image.size != (size, size) or margin:
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)
