"""A user's own data: a NumPy archive with `x`, `y` and, if known, `subject`."""

import pathlib
import warnings
import zipfile
from typing import BinaryIO

import numpy as np

from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.errors import DataError, UserError, first_line
from resilinet_jax.runtime.memory import memory_left

ARRAYS = ("x", "y", "subject")


def load_npz(path: pathlib.Path) -> Dataset:
    """Reads `x` (float, examples x features), `y` (integers 0..C-1) and optionally `subject` (one per example).

    Raises:
      UserError: if the file is missing, no archive, or holds anything else.
    """
    if not path.is_file():
        raise DataError(f"--dataset={path}: no such file; give an .npz with arrays x and y")
    with path.open("rb") as file:
        arrays, found = _read_arrays(path.name, file)
    for name in ("x", "y"):
        if name not in arrays:
            raise DataError(f"{path.name}: no array {name!r}, found {found}; save it with numpy.savez(path, x=x, y=y)")
    x, y, subject = arrays["x"], arrays["y"], arrays.get("subject")
    _check_features(path.name, x)
    _check_labels(path.name, y, len(x))
    if subject is not None:
        if subject.shape != (len(x),):
            raise DataError(f"{path.name}: subject has shape {subject.shape}, expected ({len(x)},): one per row of x")
        # Subjects may be called anything; only who is whom matters.
        subject = np.unique(subject, return_inverse=True)[1]
    return Dataset(path.name, x.astype(np.float32), y.astype(np.int32), subject)


def _read_arrays(name: str, file: BinaryIO) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of ours, and the names of all that are there."""
    remedy = "save it with numpy.savez(path, x=x, y=y)"
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        unpacked, memory = sum(sizes.get(f"{array}.npy", 0) for array in ARRAYS), memory_left()
        if memory is not None and unpacked > memory:
            raise DataError(f"{name}: unpacks to {unpacked:,} bytes, but memory has {memory:,}; bring less data")
        file.seek(0)
        # Pickles can run code: never from a data file. What NumPy warns about, it reads all the same.
        with warnings.catch_warnings(action="ignore"), np.load(file, allow_pickle=False) as members:
            arrays = {array: members[array] for array in ARRAYS if array in members}
            found = ", ".join(members.files) or "nothing"
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("its members are no arrays")
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and the decompressors raise whatever the bytes lead them to
        why = "Python objects, which could run code" if "allow_pickle" in str(error) else first_line(error)
        raise DataError(f"{name}: not a readable .npz of plain arrays ({why}); {remedy}") from None
    return arrays, found


def _check_features(name: str, x: np.ndarray) -> None:
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "iuf":
        raise DataError(f"{name}: x must be real numbers of shape (examples, features), got {x.dtype} {x.shape}")
    with np.errstate(over="ignore"):  # judged as trained on: a float64 may be beyond float32
        finite = np.isfinite(x.astype(np.float32)).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(f"{name}: row {row} of x holds NaN or a value beyond float32; drop or fill such rows")


def _check_labels(name: str, y: np.ndarray, rows: int) -> None:
    if y.shape != (rows,):
        raise DataError(f"{name}: y has shape {y.shape}, expected ({rows},): one label per row of x")
    if y.dtype.kind not in "iu":
        raise DataError(f"{name}: y must hold integers 0..C-1, got {y.dtype}; convert it with y.astype(int)")
    if y.min() < 0:
        row = int(np.flatnonzero(y < 0)[0])
        raise DataError(f"{name}: row {row} has label {y[row]}, expected 0..C-1")
    present = np.unique(y)
    if len(present) < 2:
        raise DataError(f"{name}: y holds {len(present)} class(es), expected at least 2")
    if present[-1] != len(present) - 1:
        missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise DataError(
            f"{name}: labels go up to {present[-1]} but no row has label {missing}; number the classes 0..C-1 "
            "without gaps: y = numpy.unique(y, return_inverse=True)[1]"
        )
