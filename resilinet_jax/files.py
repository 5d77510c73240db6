"""Paths as they are typed; files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from resilinet_jax.errors import DataError, UserError

CHECKSUM = "sha256"  # the field of a JSON file that tells the checksum of all others
LOCK = ".lock"  # of a results folder in which a command is at work
_PART = ".*.????????.part"  # what is left of files whose writing was killed


def typed_path(path: str, what: str) -> pathlib.Path:
    """A path, with a leading ~ or ~user replaced by the home folder.

    Args:
      path: as typed.
      what: the flag or variable that it is from.

    Raises:
      UserError: if there is no such home, or it is no path of this machine.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise UserError(f"{what}={path}: expected a path on this machine, got an address; copy or mount it")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{what}={path}: there is no such home folder; write the path in full") from None


def default_data_dir() -> pathlib.Path:
    """Where TFDS keeps its data sets: $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      DataError: for who has neither.
    """
    if "TFDS_DATA_DIR" not in os.environ and os.path.expanduser("~") == "~":
        raise DataError("there is no home folder to look for data sets in; give --data_dir")
    return typed_path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")


def write_file(path: pathlib.Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file that appears whole or not at all, and survives a loss of power.

    Args:
      path: of the file.
      content: of it.
      mode: who may read and write it, as far as the system's umask allows.
    """
    # A name of its own: processes that share a folder may write the same file at once.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:  # a failed write does not know its file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: pathlib.Path) -> None:
    """Has the system keep the names in a folder, where it can: some file systems refuse."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def digest(content: bytes) -> str:
    """What tells files apart, and a file from the same one damaged."""
    return hashlib.sha256(content).hexdigest()


def checked_json(values: Mapping[str, Any]) -> bytes:
    """JSON text, for people and programs, with a checksum that `read_json` checks."""
    plain = json.loads(json.dumps(values))  # as it would be read back
    return (json.dumps(plain | {CHECKSUM: _checksum(plain)}, indent=2) + "\n").encode()


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `checked_json` made, without its checksum.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it can't be read.
      ValueError: if it is damaged, or something else.
    """
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.pop(CHECKSUM, None) != _checksum(values):
        raise ValueError("its checksum is wrong")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    return digest(json.dumps(values, sort_keys=True).encode())


def beside(folder: pathlib.Path, suffix: str) -> pathlib.Path:
    """The folder whose name has a suffix more, with an underscore between: `results_mine`."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}_{suffix}")


def zip_bytes(entries: Mapping[str, bytes]) -> bytes:
    """A zip file of these entries, which carries a checksum of each; the same bytes whenever it is made."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(zipfile.ZipInfo(name), entry)  # without today's date, which zip can't tell before 1980
    return content.getvalue()


def tensor_bytes(arrays: Mapping[str, Any], **metadata: str) -> bytes:
    """A file of safetensors with these arrays by name, and texts that tell what they belong to."""
    import numpy as np
    from safetensors.numpy import save

    # The library writes memory as it lies.
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata or None)


@contextlib.contextmanager
def only_command_in(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other commands out of a results folder meanwhile; the lock of a process that died does not count.

    Raises:
      UserError: if another command is at work there, or the file system knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        for left in folder.rglob(_PART):
            left.unlink(missing_ok=True)
        yield


def check_free(folder: pathlib.Path) -> None:
    """Refuses a results folder in which another command is at work, and changes nothing there.

    Raises:
      UserError: as `only_command_in` does.
    """
    if (folder / LOCK).exists():
        with _locked(folder):
            pass


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    import filelock  # which a machine that only runs a node can do without

    lock = filelock.FileLock(folder / LOCK)
    try:
        with warnings.catch_warnings(action="ignore"):  # where flock is unknown, filelock says that it has another way
            lock.acquire(timeout=0.2)  # longer than `check_free` holds it
    except filelock.Timeout:
        raise UserError(
            f"another command is at work in {folder}; wait until it ends, or choose another --results_dir"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        raise UserError(
            f"{folder}: its file system keeps no locks, as some network ones don't; choose a --results_dir on a local "
            "disk, and copy the results afterwards"
        ) from None
    try:
        yield
    finally:
        lock.release()


def discard(folder: pathlib.Path) -> None:
    """Removes a folder, at once as far as others can see: half a store must not be taken for a whole one."""
    gone = folder.with_name(f".{folder.name}.discarded")
    for path in (gone, folder):
        if path.exists():
            path.replace(gone)
            shutil.rmtree(gone)


def write_folder(folder: pathlib.Path, files: Mapping[str, bytes], before: Mapping[str, str]) -> None:
    """Writes files into a folder one after another, and touches nothing else in it.

    Args:
      folder: made where it is missing.
      files: content by name, or by path in a folder inside; one that is the same already stays. The last one is the
        last to appear.
      before: digests, by name, of what was written here earlier; it goes where it is neither wanted nor changed since.

    Raises:
      UserError: if a folder inside is a link that leads elsewhere.
    """
    for name, content in files.items():
        path = folder / name
        if not _inside(folder, path):
            raise UserError(f"{path.parent} leads out of {folder}; remove it, or choose another --results_dir")
        path.parent.mkdir(parents=True, exist_ok=True)
        if _content(path) != content:
            write_file(path, content)
    for name in before.keys() - files.keys():
        path = folder / name
        left = _content(path) if _inside(folder, path) else None
        if left is not None and digest(left) == before[name]:
            path.unlink()
            with contextlib.suppress(OSError):  # other files are left in it
                path.parent.rmdir()


def write_whole_folder(folder: pathlib.Path, files: Mapping[str, bytes], mode: int = 0o666) -> None:
    """Writes a folder that appears whole or not at all, in place of one that is there.

    Args:
      folder: its parents are made where they are missing.
      files: content by name; nothing else will be in it.
      mode: of each file, as `write_file` takes it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.????????.part"):  # of a command that was killed
        shutil.rmtree(left)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.mkdir()
        for name, content in files.items():
            write_file(part / name, content, mode)
        discard(folder)
        part.replace(folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _inside(folder: pathlib.Path, path: pathlib.Path) -> bool:
    """Whether a file lies in a folder or below it, wherever links lead; others may have written the path."""
    return "\0" not in str(path) and pathlib.Path(os.path.realpath(path.parent)).is_relative_to(
        os.path.realpath(folder)
    )


def _content(path: pathlib.Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def check_folder(folder: pathlib.Path) -> None:
    """Refuses a path at which a file is in the way of a folder.

    Raises:
      UserError: naming it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; remove it, or choose another --results_dir")


def check_writable(folder: pathlib.Path) -> None:
    """Refuses a folder in which nothing could be written; it need not exist yet.

    Raises:
      UserError: naming the folder and the reason.
    """
    check_folder(folder)
    # A link to nowhere is there, although what it leads to is not.
    parents = (folder, *folder.absolute().parents)
    existing = next(parent for parent in parents if parent.exists() or parent.is_symlink())
    try:
        with tempfile.TemporaryDirectory(dir=existing):  # nothing but trying tells for sure
            pass
    except OSError as error:
        raise UserError(f"can't write in {existing} ({error.strerror}); choose another --results_dir") from None
