"""Reads image data sets that have been prepared for TFDS, without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resilinet_jax.errors import DataError, UserError, first_line

SUFFIX = "dataset_info.json"
FORMATS = ("PNG", "JPEG")  # what TFDS encodes images as; Pillow's other decoders are not for strangers' bytes


@contextlib.contextmanager
def one_line_for(what: str, remedy: str) -> Iterator[None]:
    """Turns whatever TFDS, array_record's C++ and their parsers raise for damaged files or a full disk into one line.

    Raises:
      UserError: `what` (the library's reason); `remedy`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DataError(f"{what} ({first_line(error)}); {remedy}") from None


def prepare(builder: Any) -> None:
    """Lets a TFDS builder write its data set: whole or not at all.

    Raises:
      UserError: if it can't be written.
    """
    import tensorflow_datasets as tfds

    folder = pathlib.Path(builder.data_path)
    downloads = folder.parent.parent / "downloads"  # TFDS makes it even where nothing is downloaded
    missing = [path for path in (downloads / "extracted", downloads, *folder.parents) if not path.exists()]
    tfds.disable_progress_bar()
    try:
        # Preparing takes seconds: nothing to tell.
        with one_line_for(f"can't write {folder}", "choose another --data_dir"), contextlib.redirect_stdout(None):
            builder.download_and_prepare()
    except UserError:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


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
        remedy = "remove it and prepare the data set again"
        with one_line_for(f"{folder}: not a TFDS data set", remedy):
            check_features(folder)
            builder = tfds.builder_from_directory(folder)
            kind, splits = builder.info.file_format.file_suffix, builder.info.splits
            features = dict(builder.info.features)
        if kind != "array_record":
            raise DataError(
                f"{folder}: prepared as {kind}, which takes TensorFlow to read; "
                "prepare it with file_format='array_record'"
            )
        if split not in splits:
            raise DataError(f"{folder}: no split {split!r} (known: {', '.join(map(str, splits)) or 'none'}); {remedy}")
        image, label = (features.get(name) for name in ("image", "label"))
        if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
            found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items()) or "none"
            raise DataError(
                f"{folder}: expected features image (Image) and label (ClassLabel), found {found}; {remedy}"
            )
        with one_line_for(f"{folder}: can't read split {split!r}", remedy):
            self.classes = int(label.num_classes)
            self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            self._length = len(self._source)
            expected = int(splits[split].num_examples)
            size = sum(path.stat().st_size for path in folder.glob(f"*-{split}.*"))
        if self._length != expected:
            raise DataError(f"{folder}: split {split!r} has {self._length:,} examples, expected {expected:,}; {remedy}")
        if expected > size:  # a list of so many numbers might not even fit memory
            raise DataError(f"{folder}: split {split!r} has {size:,} bytes for {expected:,} examples; {remedy}")

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
        with one_line_for(f"{self.name}: can't read its records", "prepare it again"):
            examples = self._source.__getitems__(list(numbers))
        for number, example in zip(numbers, examples):
            if not 0 <= example["label"] < self.classes:
                raise DataError(
                    f"{self.name} {number}: label {example['label']}, expected 0..{self.classes - 1}; prepare it again"
                )
        return examples


def check_features(folder: pathlib.Path) -> None:
    """Refuses features that aren't TFDS' own: whatever module a `features.json` names, TFDS would import.

    Raises:
      UserError: naming the first such feature.
    """
    waiting = [json.loads((folder / "features.json").read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key in ("pythonClassName", "python_class_name", "type"):
                if not str(node.get(key, "tensorflow_datasets.")).startswith("tensorflow_datasets."):
                    raise DataError(f"{folder}/features.json: {node[key]!r} is no feature of TFDS; remove {folder}")
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


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
    with one_line_for(f"{what}: corrupt image", "remove or replace it"):
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if least is not None:
            scale = least / min(image.size)
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        return image.convert("RGB")


def square(image: Image.Image, size: int, margin: float = 0.0) -> UInt8[np.ndarray, "size size 3"]:
    """The central square of an image, resized to `size` x `size` pixels.

    Bilinear with antialiasing; an image that has that size already, and no margin, is left as it is.

    Args:
      image: in RGB.
      size: of the result, in pixels a side.
      margin: share of the square's side that is cut off, half of it at each end, in [0, 1).
    """
    side = min(image.size) * (1 - margin)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    if image.size != (size, size) or margin:
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)
