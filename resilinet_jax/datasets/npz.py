"""A user's own data: a NumPy archive with `x`, `y` and, if known, `subject`, or what others call these."""

import pathlib
import warnings
import zipfile
from collections.abc import Callable, Collection, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from resilinet_jax.datasets.labels import decoded, number_classes
from resilinet_jax.datasets.naming import ABSENT, ROLES, part_of, role_of
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
    """The arrays that are of use, the names of those that hold Python objects, and the names of all that are there."""

    arrays: dict[str, np.ndarray]
    objects: list[str]
    names: list[str]


def load_npz(path: pathlib.Path) -> Dataset:
    """Reads `x` (real numbers, examples x features or examples x time x channels), `y` and optionally `subject`.

    Labels are whole numbers or texts. Other usual names are recognised, and a published split by them: `x_train`,
    `y_train`, `x_test`, `y_test`. A subject that can't be read is told when a split asks for it.

    Raises:
      UserError: if the file is missing, no archive, or holds anything else.
    """
    parts, no_subject = read_parts(path, _check_readings)
    x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in "xy")
    subjects = [part.subject for part in parts if part.subject is not None]
    subject = np.concatenate(subjects) if len(subjects) == len(parts) else None
    texts, codes = np.unique(np.char.strip(y) if y.dtype.kind == "U" else y, return_inverse=True)
    missing = np.flatnonzero(np.isin(codes, [number for number, text in enumerate(texts) if str(text) in ABSENT]))
    if len(missing):
        raise DataError(
            f"{path.name}: row {missing[0]} of y is {str(texts[codes[missing[0]]])!r}, no label; leave it out"
        )
    classes = number_classes(path.name, list(map(str, texts)), len(y))
    test = test_rows(parts)
    return Dataset(path.name, x, classes.number[codes], subject, no_subject, classes.names, test=test)


class Part(NamedTuple):
    """Arrays of one part, checked: inputs, labels and, if there are any, subjects; and whether it is for the test."""

    x: np.ndarray
    y: np.ndarray
    subject: np.ndarray | None
    test: bool


def test_rows(parts: Sequence[Part]) -> np.ndarray | None:
    """Whether each row of all parts together is for the test; None where no split is published."""
    of_test = [part.test for part in parts]
    return np.repeat(of_test, [len(part.y) for part in parts]) if len(set(of_test)) > 1 else None


def read_parts(
    path: pathlib.Path, check: Callable[[str, np.ndarray, np.ndarray], None]
) -> tuple[list[Part], str | None]:
    """The arrays of a file: in one part, or in those for training and for the test.

    Args:
      path: of the file.
      check: refuses inputs and labels by their shapes, called with what to call the file.

    Returns:
      The parts, and what to tell whoever wants to split by subjects that can't be read.

    Raises:
      UserError: if the file is missing, no archive, or holds anything else.
    """
    if not path.is_file():
        raise DataError(f"--dataset={path}: no such file; give an .npz with arrays x and y")
    with path.open("rb") as file:
        found = _read_arrays(path.name, file)
    parts = [_part(path.name, found, part, check) for part in _parts(found.names)]
    shapes = {part.x.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise DataError(
            f"{path.name}: examples of its parts have shapes {' and '.join(map(str, shapes))}; save one shape"
        )
    return parts, _of_objects("subject") if any(role_of(name) == "subject" for name in found.objects) else None


def _parts(names: Collection[str]) -> list[str | None]:
    """The parts that there are, those for the test last; None stands for arrays without one."""
    there = {part_of(name) for name in names if role_of(name) == "features"}
    if "test" not in there or len(there) == 1:
        return [None] if None in there or not there else [*sorted(filter(None, there))]
    return sorted(there, key=lambda part: (part == "test", str(part)))


def _member(file: str, names: Collection[str], role: str, part: str | None) -> str | None:
    """The name of the array with a role; our own name for it comes before others.

    Args:
      file: whose arrays they are.
      names: of all of them.
      role: one of `ROLES`.
      part: of the split; None for arrays without one.

    Raises:
      DataError: if several may be meant.
    """
    fit = [name for name in names if role_of(name) == role and part_of(name) == part]
    own = [name for name in fit if name in ARRAYS]
    if len(fit) > 1 and not own:
        raise DataError(f"{file}: {' and '.join(fit)} may each be the {role}; save only one of them")
    return next(iter(own or fit), None)


def _part(name: str, found: _Found, part: str | None, check: Callable[[str, np.ndarray, np.ndarray], None]) -> Part:
    """The arrays of one part, checked.

    Args:
      name: of the file.
      found: in it.
      part: which; None for arrays without one.
      check: as in `read_parts`.
    """
    called = {array: _member(name, found.names, role, part) for array, role in zip(ARRAYS, ROLES)}
    for array in ("x", "y"):
        if called[array] in found.objects:
            raise DataError(f"{name}: {_of_objects(array)}")
        if called[array] is None:
            there = ", ".join(found.names) or "nothing"
            raise DataError(f"{name}: no array {array!r}, found {there}; save it with numpy.savez(path, x=x, y=y)")
    x, y, subject = (found.arrays.get(called[array] or "") for array in ARRAYS)
    assert x is not None
    assert y is not None
    y, subject = decoded(y), None if subject is None else decoded(subject)
    others = [f"{array} is {own}" for array, own in called.items() if own not in (None, array)]
    told = f"{name} ({', '.join(others)})" if others else name
    _check_numbers(told, x)
    check(told, x, y)
    _check_finite(told, x)
    _check_labels(told, y)
    if subject is not None and subject.shape != (len(x),):
        remedy = "subject=numpy.ravel(subject)" if subject.size == len(x) else "one name or number for each row"
        raise DataError(
            f"{told}: subject has shape {subject.shape}, expected ({len(x)},): one per row of x; save {remedy}"
        )
    if subject is not None:
        _check_subject(told, subject)
    return Part(x, y, subject, part == "test")


def _check_subject(name: str, subject: np.ndarray) -> None:
    missing = np.isin(np.char.strip(subject.astype(str)), ABSENT)
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(f"{name}: row {row} of subject is {str(subject[row])!r}, nobody; leave it out")


def _of_objects(name: str) -> str:
    return f"{name} holds Python objects, which could run code; expected a plain array; save it with {_PLAIN[name]}"


def _read_arrays(name: str, file: BinaryIO) -> _Found:
    if file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE:
        raise DataError(f"{name}: not the data but what macOS keeps beside them; give {name.removeprefix('._')}")
    arrays, objects = {}, []
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        unpacked, memory = sum(size for array, size in sizes.items() if role_of(array)), memory_left()
        if memory is not None and unpacked > memory:
            raise DataError(f"{name}: unpacks to {unpacked:,} bytes, but memory has {memory:,}; bring less data")
        file.seek(0)
        # Pickles can run code: never from a data file. What NumPy warns about, it reads all the same.
        with warnings.catch_warnings(action="ignore"), np.load(file, allow_pickle=False) as members:
            for array in filter(role_of, members.files):
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


def _check_readings(name: str, x: np.ndarray, y: np.ndarray) -> None:
    """Refuses shapes; a remedy that is given has been tried."""
    if x.ndim not in (2, 3) or 0 in x.shape:
        flat = x.ndim and 0 not in x.shape
        remedy = "save x=x.reshape(len(x), -1)" if flat else "give a row for each example, a column for each feature"
        raise DataError(
            f"{name}: x must be of shape (examples, features) or (examples, time, channels), got {x.dtype} {x.shape}; "
            f"{remedy}"
        )
    if y.shape == (len(x),):
        return
    if y.ndim == 1 and len(y) in x.shape:
        kept, remedy = "features", "x.T"
        if x.ndim == 3:
            kept, remedy = "time, channels", f"numpy.moveaxis(x, {x.shape.index(len(y))}, 0)"
        raise DataError(
            f"{name}: x has shape {x.shape}, expected ({len(y)}, {kept}): one row per label of y; save x={remedy}"
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
        finite = np.isfinite(x.astype(np.float32)).reshape(len(x), -1).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"{name}: row {row} of x holds NaN or a value beyond float32; drop or fill such rows: "
            "k = (abs(x) < 3e38).reshape(len(x), -1).all(1); x=x[k], y=y[k]"
        )


def _check_labels(name: str, y: np.ndarray) -> None:
    if y.dtype.kind not in "iuU":
        raise DataError(f"{name}: y must hold whole numbers or texts, got {y.dtype}; number the classes: y={_NUMBERED}")
