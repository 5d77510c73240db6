"""Paths as they are typed; files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping

import filelock

from resilinet_jax.errors import UserError


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
    """Where TFDS keeps its data sets: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    return typed_path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")


def write_file(path: pathlib.Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all, and survives a loss of power."""
    # A name of its own: processes that share a folder may write the same file at once.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # a failed write does not know its file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def only_command_in(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other commands out of a results folder meanwhile; the lock of a process that died does not count.

    Raises:
      UserError: if another command is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"another command is at work in {folder}; wait until it ends, or choose another --results_dir"
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


def write_folder(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, which appears whole or not at all, in place of one that was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a command that was killed
        shutil.rmtree(left, ignore_errors=True)
    fresh = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)  # mkdtemp keeps others out
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if folder.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            folder.replace(old)
            fresh.replace(folder)
            shutil.rmtree(old)
        else:
            fresh.replace(folder)
    except OSError as error:  # a failed write does not know its file
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


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
