"""A user's own data: a NumPy archive with `x`, `y` and, if known, `subject`."""

import lzma
import pathlib
import zipfile
import zlib

import numpy as np

from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.errors import UserError, first_line

# What NumPy, zipfile and the decompressors raise for files that are damaged or something else altogether.
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,  # NotImplementedError among them
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def load_npz(path: pathlib.Path) -> Dataset:
    """Reads `x` (float, examples x features), `y` (integers 0..C-1) and optionally `subject` (one per example).

    Raises:
      UserError: if the file is missing, no archive, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"--dataset={path}: no such file; give an .npz with arrays x and y")
    try:
        # Pickles can run code: never from a data file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("x", "y", "subject") if name in archive}
            found = ", ".join(archive.files) or "nothing"
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("its members are no arrays")
    except _UNREADABLE as error:
        raise UserError(f"{path.name}: not a readable .npz of plain arrays ({first_line(error)})") from None
    for name in ("x", "y"):
        if name not in arrays:
            raise UserError(f"{path.name}: no array {name!r}, found {found}; save it with numpy.savez(path, x=x, y=y)")
    x, y, subject = arrays["x"], arrays["y"], arrays.get("subject")
    _check_features(path.name, x)
    _check_labels(path.name, y, len(x))
    if subject is not None:
        if subject.shape != (len(x),):
            raise UserError(f"{path.name}: subject has shape {subject.shape}, expected ({len(x)},): one per row of x")
        # Subjects may be called anything; only who is whom matters.
        subject = np.unique(subject, return_inverse=True)[1]
    return Dataset(path.name, x.astype(np.float32), y.astype(np.int32), subject)


def _check_features(name: str, x: np.ndarray) -> None:
    if x.ndim != 2 or x.shape[1] == 0 or not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x):
        raise UserError(f"{name}: x must be real numbers of shape (examples, features), got {x.dtype} {x.shape}")
    with np.errstate(over="ignore"):  # judged as trained on: a float64 may be beyond float32
        finite = np.isfinite(x.astype(np.float32)).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise UserError(f"{name}: row {row} of x holds NaN or a value beyond float32; drop or fill such rows")


def _check_labels(name: str, y: np.ndarray, rows: int) -> None:
    if y.shape != (rows,):
        raise UserError(f"{name}: y has shape {y.shape}, expected ({rows},): one label per row of x")
    if not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"{name}: y must hold integers 0..C-1, got {y.dtype}; convert it with y.astype(int)")
    if rows and y.min() < 0:
        row = int(np.flatnonzero(y < 0)[0])
        raise UserError(f"{name}: row {row} has label {y[row]}, expected 0..C-1")
    present = np.unique(y)
    if len(present) < 2:
        raise UserError(f"{name}: y holds {len(present)} class(es), expected at least 2")
    if present[-1] != len(present) - 1:
        missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise UserError(
            f"{name}: labels go up to {present[-1]} but no row has label {missing}; number the classes 0..C-1 "
            "without gaps: y = numpy.unique(y, return_inverse=True)[1]"
        )
