"""Reads image data sets that have been prepared for TFDS, without TensorFlow."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resilinet_jax.errors import DataError, UserError, first_line

Source = TypeVar("Source")
SUFFIX = "dataset_info.json"
PART = ".part"  # how the names of what is not whole yet end
REMEDY = "remove it and prepare the data set again"
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


def prepare(
    data_dir: pathlib.Path,
    name: str,
    version: str,
    read: Callable[[], Source],
    make: Callable[[Source, pathlib.Path], Any],
) -> pathlib.Path:
    """Has a TFDS builder write a data set where it is missing: whole or not at all, by one command at a time.

    Args:
      data_dir: TFDS' folder; it is made where it is missing.
      name: of the data set.
      version: of it.
      read: returns the published data; not called if they are prepared, be it by another command meanwhile.
      make: the builder that writes what was read into a folder of TFDS' own.

    Returns:
      The folder of the prepared data set.

    Raises:
      UserError: if it can't be written.
    """
    target = data_dir / name / version
    if find_prepared(data_dir, name, version) is not None:
        return target
    missing = [path for path in (target.parent, *target.parent.parents) if not path.exists()]
    try:
        with one_line_for(f"can't write {target}", "choose another --data_dir"):
            data_dir.mkdir(parents=True, exist_ok=True)
        with _alone_in(data_dir) as alone:
            if find_prepared(data_dir, name, version) is not None:
                return target
            if alone:  # whoever wrote them was killed
                for left in (*data_dir.glob(f".{name}.*{PART}"), *data_dir.glob(f"downloads/{name}/.*{PART}")):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            source = read()
            import tensorflow_datasets as tfds  # a second that data which can't be read need not cost

            tfds.disable_progress_bar()  # preparing takes seconds: nothing to tell
            with (
                one_line_for(f"can't write {target}", "choose another --data_dir"),
                tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=PART, dir=data_dir) as folder,
                contextlib.redirect_stdout(None),
            ):
                builder = make(source, pathlib.Path(folder))
                builder.download_and_prepare()
                target.parent.mkdir(exist_ok=True)
                try:
                    pathlib.Path(builder.data_path).rename(target)
                except OSError:  # where there are no locks, another command may have been faster
                    if find_prepared(data_dir, name, version) is None:
                        raise
    except (UserError, OSError):
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return target


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path) -> Iterator[bool]:
    """Waits until no other command prepares anything in a folder; False where the file system knows no locks."""
    descriptor = os.open(folder, os.O_RDONLY)  # the lock is the folder's: it leaves no file behind
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def find_prepared(data_dir: pathlib.Path, name: str, version: str | None = None) -> pathlib.Path | None:
    """The folder of a prepared data set in TFDS' folder, if there is any.

    Args:
      data_dir: TFDS' folder.
      name: of the data set.
      version: of it; None for the newest.
    """
    versions = [path.parent for path in (data_dir / name).glob(f"*/{SUFFIX}")]
    # What TFDS was killed over is called incomplete.<letters>_<version>.
    whole = [path for path in versions if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and version in (None, path.name)]
    return max(whole, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


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
        with one_line_for(f"{folder}: not a TFDS data set", REMEDY):
            check_prepared(folder)
            builder = tfds.builder_from_directory(folder)
            kind, splits = builder.info.file_format.file_suffix, builder.info.splits
            features = dict(builder.info.features)
        if kind != "array_record":
            raise DataError(
                f"{folder}: prepared as {kind}, which takes TensorFlow to read; "
                "prepare it with file_format='array_record'"
            )
        if split not in splits:
            raise DataError(f"{folder}: no split {split!r} (known: {', '.join(map(str, splits)) or 'none'}); {REMEDY}")
        image, label = (features.get(name) for name in ("image", "label"))
        if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
            found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items()) or "none"
            raise DataError(
                f"{folder}: expected features image (Image) and label (ClassLabel), found {found}; "
                "prepare the data set in another --data_dir"
            )
        with one_line_for(f"{folder}: can't read split {split!r}", REMEDY):
            self.classes = int(label.num_classes)
            self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            self._length = len(self._source)
            expected = int(splits[split].num_examples)
            size = sum(path.stat().st_size for path in folder.glob(f"*-{split}.*"))
        if self._length != expected:
            raise DataError(f"{folder}: split {split!r} has {self._length:,} examples, expected {expected:,}; {REMEDY}")
        if expected > size:  # a list of so many numbers might not even fit memory
            raise DataError(f"{folder}: split {split!r} has {size:,} bytes for {expected:,} examples; {REMEDY}")

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


_TEXT, _NUMBER, _FLAG = r"(?s).*", r"-?\d+", "True|False"
_SHAPE = {"dimensions": [_NUMBER]}
_CLASSES = "text_feature.Text|image_feature.Image|class_label_feature.ClassLabel|tensor_feature.Tensor|scalar.Scalar"
_CORE = "tensorflow_datasets.core.features."
# What TFDS may find in its JSON files, field by field: names and values as regular expressions, and all else refused.
# It would import whatever module a feature names, and read records from wherever a template points.
_FEATURE = {
    "pythonClassName": re.escape(_CORE) + f"({_CLASSES.replace('.', '[.]')})",
    "description|valueRange": _TEXT,
    "text": dict[str, Any](),
    "classLabel": {"numClasses": _NUMBER},
    "image": {"dtype": "uint8", "shape": _SHAPE, "encodingFormat": "png|jpeg", "useColormap": _FLAG},
    "tensor": {"dtype": "u?int(8|32|64)|float(32|64)|bool|string", "shape": _SHAPE, "encoding": "none"},
}
_ALLOWED: dict[str, dict[str, Any]] = {
    "features.json": {
        "pythonClassName": re.escape(f"{_CORE}features_dict.FeaturesDict"),
        "featuresDict": {"features": {r"[A-Za-z_]\w*": _FEATURE}},
    },
    SUFFIX: {
        "name|version|moduleName|fileFormat": r"[\w.]*",
        "description|citation": _TEXT,
        "releaseNotes|downloadChecksums": {_TEXT: _TEXT},
        "downloadSize|sizeInBytes": _NUMBER,
        "disableShuffling|nondeterministicOrder": _FLAG,
        "location": {"urls": [_TEXT]},
        "alternativeFileFormats": [r"\w*"],
        "redistributionInfo": {"license": _TEXT},
        "supervisedKeys": {"input|output": _TEXT, "tuple": {"items": [{"featureKey": _TEXT}]}},
        "splits": [
            {
                "name": r"\w+",
                "numBytes|numShards": _NUMBER,
                "shardLengths": [_NUMBER],
                "filepathTemplate": re.escape("{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"),
            }
        ],
    },
}


def check_prepared(folder: pathlib.Path) -> None:
    """Refuses a prepared data set whose JSON files hold anything but what TFDS writes for the few features we know.

    Args:
      folder: from `find_prepared`.

    Raises:
      UserError: naming the first such field.
      OSError: if there is no such file.
      ValueError: if it is no JSON.
    """
    for file, allowed in _ALLOWED.items():
        value = json.loads((folder / file).read_text(encoding="utf-8"))
        own = {"name": re.escape(folder.parent.name), "version": re.escape(folder.name)} if file == SUFFIX else {}
        if (field := _unexpected(value, own | allowed, "")) is not None:
            remedy = "prepare the data set in another --data_dir"  # this one may be another program's
            raise DataError(f"{folder}/{file}: {field}, which is no part of such a data set; {remedy}")


def _unexpected(value: Any, allowed: Any, field: str) -> str | None:
    """The first part of a JSON value that is not allowed, with its field, or None."""
    parts: list[tuple[Any, Any, str]] = []
    if isinstance(value, dict) and isinstance(allowed, dict):
        for name, part in value.items():
            pattern = next((pattern for pattern in allowed if re.fullmatch(pattern, name)), None)
            if pattern is None:
                return f"{f'{field}.{name}'.lstrip('.')[:60]!r} is there"
            parts.append((part, allowed[pattern], f"{field}.{name}".lstrip(".")))
    elif isinstance(value, list) and isinstance(allowed, list):
        parts = [(part, allowed[0], field) for part in value]
    elif not (isinstance(allowed, str) and isinstance(value, str | int) and re.fullmatch(allowed, str(value))):
        return f"{field[-40:] or 'all of it'} is {repr(value)[:60]}"
    return next((found for part in parts if (found := _unexpected(*part))), None)


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
