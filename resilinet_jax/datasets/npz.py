"""A user's own data: a NumPy archive with `x`, `y` and, if known, `subject`."""

import pathlib
import warnings
import zipfile
from typing import BinaryIO, NamedTuple

import numpy as np

from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.errors import DataError, UserError, first_line
from resilinet_jax.runtime.limits import memory_left

ARRAYS = ("x", "y", "subject")
_NUMBERED = "numpy.unique(y, return_inverse=True)[1]"
# What makes plain arrays of Python objects.
_PLAIN = {
    "x": "x=x.astype(float)",
    "y": "y=numpy.unique(y.astype(str), return_inverse=True)[1]",
    "subject": "subject=subject.astype(str)",
}
_APPLE_DOUBLE = b"\0\x05\x16\x07"  # how files begin in which macOS keeps what other systems' disks have no place for


class _Found(NamedTuple):
    """The arrays of ours, the names of those that hold Python objects, and the names of all that are there."""

    arrays: dict[str, np.ndarray]
    objects: list[str]
    names: list[str]


def load_npz(path: pathlib.Path) -> Dataset:
    """Reads `x` (real numbers, examples x features), `y` (integers 0..C-1) and optionally `subject` (one per example).

    A subject that can't be read is told when a split asks for it.

    Raises:
      UserError: if the file is missing, no archive, or holds anything else.
    """
    if not path.is_file():
        raise DataError(f"--dataset={path}: no such file; give an .npz with arrays x and y")
    with path.open("rb") as file:
        found = _read_arrays(path.name, file)
    for name in ("x", "y"):
        if name in found.objects:
            raise DataError(f"{path.name}: {_of_objects(name)}")
        if name not in found.arrays:
            there = ", ".join(found.names) or "nothing"
            raise DataError(f"{path.name}: no array {name!r}, found {there}; save it with numpy.savez(path, x=x, y=y)")
    x, y, subject = found.arrays["x"], found.arrays["y"], found.arrays.get("subject")
    _check_numbers(path.name, x)
    _check_shapes(path.name, x, y)
    _check_finite(path.name, x)
    _check_labels(path.name, y)
    if subject is not None:
        if subject.shape != (len(x),):
            remedy = "subject=numpy.ravel(subject)" if subject.size == len(x) else "one name or number for each row"
            raise DataError(
                f"{path.name}: subject has shape {subject.shape}, expected ({len(x)},): one per row of x; save {remedy}"
            )
        # Subjects may be called anything; only who is whom matters.
        subject = np.unique(subject, return_inverse=True)[1]
    no_subject = _of_objects("subject") if "subject" in found.objects else None
    return Dataset(path.name, x, y.astype(np.int32), subject, no_subject)


def _of_objects(name: str) -> str:
    return f"{name} holds Python objects, which could run code; expected a plain array; save it with {_PLAIN[name]}"


def _read_arrays(name: str, file: BinaryIO) -> _Found:
    if file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE:
        raise DataError(f"{name}: not the data but what macOS keeps beside them; give {name.removeprefix('._')}")
    arrays, objects = {}, []
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        unpacked, memory = sum(sizes.get(f"{array}.npy", 0) for array in ARRAYS), memory_left()
        if memory is not None and unpacked > memory:
            raise DataError(f"{name}: unpacks to {unpacked:,} bytes, but memory has {memory:,}; bring less data")
        file.seek(0)
        # Pickles can run code: never from a data file. What NumPy warns about, it reads all the same.
        with warnings.catch_warnings(action="ignore"), np.load(file, allow_pickle=False) as members:
            for array in (array for array in ARRAYS if array in members):
                try:
                    arrays[array] = members[array]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    objects.append(array)
            names = members.files
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("its members are no arrays")
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and the decompressors raise whatever the bytes lead them to
        remedy = "save it with numpy.savez(path, x=x, y=y)"
        raise DataError(f"{name}: not a readable .npz of plain arrays ({first_line(error)}); {remedy}") from None
    return _Found(arrays, objects, names)


def _check_numbers(name: str, x: np.ndarray) -> None:
    if x.dtype.kind in "iuf":
        return
    remedy = {
        "c": "save x=numpy.concatenate([x.real, x.imag], 1)",
        "V": "save x=numpy.array(x.tolist())",
    }.get(x.dtype.kind, "save x=x.astype(float)")
    if x.dtype.kind in "US":
        try:
            x.astype(float)
        except ValueError:
            remedy = "give numbers in place of words"
    raise DataError(f"{name}: x must be real numbers, got {x.dtype}; {remedy}")


def _check_shapes(name: str, x: np.ndarray, y: np.ndarray) -> None:
    """Refuses shapes; a remedy that is given has been tried."""
    if x.ndim != 2 or 0 in x.shape:
        flat = x.ndim and 0 not in x.shape
        remedy = "save x=x.reshape(len(x), -1)" if flat else "give a row for each example, a column for each feature"
        raise DataError(f"{name}: x must be of shape (examples, features), got {x.dtype} {x.shape}; {remedy}")
    if y.shape == (len(x),):
        return
    if y.shape == (x.shape[1],):
        raise DataError(
            f"{name}: x has shape {x.shape}, expected ({len(y)}, features): one row per label of y; save x=x.T"
        )
    if y.size == len(x):
        remedy = "save y=numpy.ravel(y)"
    elif y.ndim == 2 and len(y) == len(x):
        remedy = "save y=y.argmax(1)" if _one_hot(y) else "save one column of it, as y=y[:, 0]"
    else:
        remedy = "bring as many labels as rows"
    raise DataError(f"{name}: y has shape {y.shape}, expected ({len(x)},): one label per row of x; {remedy}")


def _one_hot(y: np.ndarray) -> bool:
    return y.dtype.kind in "biuf" and bool(((y != 0).sum(1) == 1).all())


def _check_finite(name: str, x: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # what is beyond float32 stands for nothing that was measured
        finite = np.isfinite(x.astype(np.float32)).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"{name}: row {row} of x holds NaN or a value beyond float32; drop or fill such rows: "
            "k = (abs(x) < 3e38).all(1); x=x[k], y=y[k]"
        )


def _check_labels(name: str, y: np.ndarray) -> None:
    if y.dtype.kind not in "iu":
        raise DataError(f"{name}: y must hold integers 0..C-1, got {y.dtype}; number the classes: y={_NUMBERED}")
    if y.min() < 0:
        row = int(np.flatnonzero(y < 0)[0])
        raise DataError(
            f"{name}: row {row} has label {y[row]}, expected 0..C-1; number the classes from 0: y={_NUMBERED}"
        )
    present = np.unique(y)
    if len(present) < 2:
        raise DataError(f"{name}: y holds {len(present)} class(es), expected at least 2; bring examples of another")
    if present[-1] != len(present) - 1:
        missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise DataError(
            f"{name}: labels go up to {present[-1]} but no row has label {missing}; number the classes 0..C-1 "
            f"without gaps: y={_NUMBERED}"
        )
