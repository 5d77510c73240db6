"""The published binary archive of CIFAR-10: six files of records of a label and 32x32 pixels in three planes.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import pathlib
import re
import tarfile
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from resilinet_jax.errors import DataError, UserError, first_line

SIZE = 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * SIZE * SIZE
MOST = 10_000 * RECORD  # bytes of a batch
BATCHES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
_BATCH = re.compile(r"(?:^|/)((?:data_batch_[1-5]|test_batch)\.bin)$")


class Batch(NamedTuple):
    """Images and labels of one split, in the order of the files."""

    x: UInt8[np.ndarray, "images 32 32 3"]
    y: UInt8[np.ndarray, " images"]


def find_archive(data_dir: pathlib.Path) -> pathlib.Path | None:
    """The archive in a folder, or the folder itself if the six files lie in it unpacked."""
    for folder in (data_dir, data_dir / "cifar-10-batches-bin"):
        if any(_BATCH.search(path.name) for path in folder.glob("*.bin")):
            return folder
    if data_dir.is_file():
        return data_dir
    found = sorted(data_dir.glob("cifar-10-binary*.tar*")) + sorted(data_dir.glob("downloads/cifar10/*.tar.gz"))
    return found[0] if found else None


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
