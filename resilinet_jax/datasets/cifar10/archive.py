"""The published binary archive of CIFAR-10: six files of records of a label and 32x32 pixels in three planes.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import itertools
import pathlib
import re
import tarfile
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from resilinet_jax.datasets.lying import files_in, fullest, like
from resilinet_jax.errors import DataError, UserError, first_line, listed

VERSION = "3.0.2"  # of the prepared data set
SIZE = 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * SIZE * SIZE
MOST = 10_000 * RECORD  # bytes of a batch
BATCHES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
NAMED = "cifar-10-binary"
_TAR = re.compile(r"(?i)\.(tar|tar\.\w+|tgz)$")
# What CIFAR-10 is not, in order.
_KINDS = {
    r"(?i)cifar-?100": "CIFAR-100",
    r"(?i)py(thon)?\b|_batch(_\d)?$": "the Python version",
    r"(?i)(png|jpe?g)$": "images",
    "dataset_info.json$": "a prepared data set; --data_dir is the folder above cifar10/",
}
_BATCH = re.compile(r"(?:^|/)((?:data_batch_[1-5]|test_batch)\.bin)$")


class Batch(NamedTuple):
    """Images and labels of one split, in the order of the files."""

    x: UInt8[np.ndarray, "images 32 32 3"]
    y: UInt8[np.ndarray, " images"]


def find_archive(data_dir: pathlib.Path) -> pathlib.Path | None:
    """The archive in a folder, or the folder itself if the six files lie in it unpacked."""
    if data_dir.is_file():
        return data_dir
    files = files_in(data_dir)
    if unpacked := fullest([path for path in files if _BATCH.search(path.name)]):
        return unpacked[0].parent
    packed = [path for path in (*files, *sorted(data_dir.glob("downloads/cifar10/*"))) if _TAR.search(path.name)]
    # A damaged archive must not go unnoticed if it is called as the published one.
    holding = [path for path in packed if _holds_batches(path)] or [
        path for path in packed if NAMED in path.name.lower()
    ]
    return next(iter(holding), None)


def check_nothing_like_it(folder: pathlib.Path) -> None:
    """Refuses to go on, as to a download, where a folder holds CIFAR-10 in another shape, or what may be meant so.

    Raises:
      UserError: naming what is there.
    """
    other = like("cifar10", folder, r"cifar|_batch|\.(png|jpe?g|npz|zip|tar|tgz|tar\.gz)$", "mhealth|ilsvrc|imagenet")
    if other:
        kind = next((f" ({kind})" for pattern, kind in _KINDS.items() if re.search(pattern, other[0])), "")
        raise DataError(
            f"{folder}: no {NAMED}.tar.gz, packed or unpacked; found {listed(other)}{kind}; put that there, or give an "
            "empty --data_dir to download it to"
        )


def _holds_batches(path: pathlib.Path) -> bool:
    try:
        with tarfile.open(path) as archive:
            return any(_BATCH.search(member.name) for member in itertools.islice(archive, 10))
    except Exception:  # as below
        return False


def read_archive(path: pathlib.Path) -> dict[str, Batch]:
    """The training and test images of the archive, or of a folder that it was unpacked to.

    Raises:
      UserError: if a file is missing or damaged.
    """
    files = _read_folder(path) if path.is_dir() else _read_tar(path)
    missing = [name for names in BATCHES.values() for name in names if name not in files]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; fetch the whole archive cifar-10-binary.tar.gz")
    return {split: _parse(path, {name: files[name] for name in names}) for split, names in BATCHES.items()}


def _read_folder(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.bin") if _BATCH.search(path.name)}


def _read_tar(path: pathlib.Path) -> dict[str, bytes]:
    try:
        # Members are read, never written to a disk: what folder they name does not matter.
        with tarfile.open(path) as archive:
            files = {}
            for member in archive:
                if member.isfile() and (match := _BATCH.search(member.name)):
                    _check_size(path, match[1], member.size)
                    files[match[1]] = archive.extractfile(member).read()  # type: ignore[union-attr]
            while archive.fileobj.read(2**20):
                pass  # the compression's checksum stands at its end, which tarfile leaves unread
            return files
    except (UserError, PermissionError):
        raise
    except Exception as error:  # tarfile and the decompressors raise whatever the bytes lead them to
        why = "no tar at all" if "could not be opened" in str(error) else first_line(error)
        raise DataError(f"{path}: damaged archive ({why}); fetch it again") from None


def _check_size(path: pathlib.Path, name: str, size: int) -> None:
    """Refuses a batch that has no whole number of records, or more than were ever published, before it is unpacked."""
    if size % RECORD or not 0 < size <= MOST:
        raise DataError(f"{path}: {name} has {size:,} bytes, expected a multiple of {RECORD:,} up to {MOST:,}")


def _parse(path: pathlib.Path, files: dict[str, bytes]) -> Batch:
    for name, content in files.items():
        _check_size(path, name, len(content))
    records = np.frombuffer(b"".join(files.values()), np.uint8).reshape(-1, RECORD)
    labels = records[:, 0]
    if labels.max() >= len(CLASSES):
        number = int(np.flatnonzero(labels >= len(CLASSES))[0])
        raise DataError(f"{path}: image {number} has label {labels[number]}, expected 0..{len(CLASSES) - 1}")
    return Batch(records[:, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1), labels)
