"""Finished runs on disk, by cell and run number, so that no run is ever trained twice.

Every pass leaves one file of arrays, which appears whole or not at all. All runs in a folder rest on the same
settings, data and code; anything else is refused, because such runs must not meet in one table.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import filelock
import numpy as np
from jaxtyping import Float

from resilinet_jax.errors import UserError

IDENTITY = "identity.json"
# Modules that can change no number of a run; any other does count as the code's version.
_AROUND = (
    "bandwidth", "best", "checkpoints", "comparisons", "compilation", "drawing", "engine", "errors", "experiment",
    "finished", "hosts", "html_report", "ingredients", "markup", "memory", "own_failures", "paper", "paths", "plots",
    "progress", "rehearsal", "repeat", "report", "results", "scaled_failures", "settings", "shapley", "store",
    "supervision", "tensorboard", "user_code",
)  # fmt: skip


class Measured(NamedTuple):
    """What remains of finished runs.

    Attributes:
      accuracy: on the test split, under each failure combination; NaN if the run diverged.
      loss: mean over each epoch's steps.
      validation_accuracy: after each epoch, without failures, at the cell's own inference activity.
      weight: of each hyperconnection after training, before any survival scaling; 0 where a skip was removed.
    """

    accuracy: Float[np.ndarray, "*stack combinations"]
    loss: Float[np.ndarray, "*stack epochs"]
    validation_accuracy: Float[np.ndarray, "*stack epochs"]
    weight: Float[np.ndarray, "*stack hyperconnections"]

    @property
    def diverged(self) -> list[int]:
        """Which of the runs."""
        return np.flatnonzero(np.isnan(self.accuracy).all(-1)).tolist()

    def rounded(self) -> Measured:
        """To the seven digits that results on disk have, so that a report from there is the same."""
        return Measured(*(np.round(leaf, 7) for leaf in self))


Name = tuple[str, int]  # of a run: its cell's key, and its number


class Store:
    """The finished runs of a folder."""

    def __init__(self, folder: pathlib.Path | None = None, warn: Callable[[str], None] = print):
        """Reads what is there; a damaged file counts for nothing.

        Args:
          folder: made when the first runs are added; None to keep them in memory alone.
          warn: told of every damaged file, in a line.
        """
        self._folder = folder
        self._known: dict[Name, Measured] = {}
        for path in sorted(folder.glob("*.npz")) if folder else []:
            try:
                self._known |= _read(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
                warn(f"{path} is damaged: its runs are trained again.")

    def __contains__(self, name: Name) -> bool:
        """Whether this run is finished."""
        return name in self._known

    def __getitem__(self, name: Name) -> Measured:
        """What a finished run left."""
        return self._known[name]

    def add(self, runs: Mapping[Name, Measured], on_disk: bool = True) -> None:
        """Keeps finished runs, all of them or, if this is interrupted, none."""
        self._known |= runs
        if self._folder is None or not runs or not on_disk:
            return
        keys, numbers = zip(*runs)
        arrays: dict[str, Any] = {
            field: np.stack([getattr(each, field) for each in runs.values()]) for field in Measured._fields
        }
        buffer = io.BytesIO()
        np.savez(buffer, cell=np.array(keys), run=np.array(numbers), **arrays)
        content = buffer.getvalue()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_file(self._folder / f"{hashlib.sha256(content).hexdigest()[:16]}.npz", content)


def _read(path: pathlib.Path) -> dict[Name, Measured]:
    with np.load(
        io.BytesIO(path.read_bytes()), allow_pickle=False
    ) as file:  # zip files carry a checksum of every array
        columns = [file[field] for field in Measured._fields]
        names = zip(file["cell"].tolist(), file["run"].tolist(), strict=True)
        return {name: Measured(*row) for name, *row in zip(names, *columns, strict=True)}


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


def check_identity(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Refuses to mix runs that rest on different settings, data or code.

    Args:
      folder: of the store; it may not exist yet.
      identity: by a name that a user knows, what every run here rests on, or so much of it as is known yet.

    Raises:
      UserError: naming what differs, and the remedies.
    """
    path = folder / IDENTITY
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise UserError(f"{path} is damaged; choose another --results_dir, or add --overwrite to train anew")
    wanted = json.loads(json.dumps(identity))  # as it would be read back
    differences = [
        f"{name} {known.get(name)!s}, not {value!s}" for name, value in wanted.items() if known.get(name) != value
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"{folder.parent} holds runs made with {', '.join(differences[:3])}{more}; "
            "go back to that, choose another --results_dir, or add --overwrite to train anew"
        )


def write_identity(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Says what all runs of a folder rest on, for `check_identity`; what is there already stays."""
    if (folder / IDENTITY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / IDENTITY, (json.dumps(identity, indent=2) + "\n").encode())


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


def code_version() -> dict[str, str]:
    """Of everything that can change a number: this project's code, whatever its comments say, and its libraries."""
    root = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.parent == root and path.stem in _AROUND:
            continue
        digest.update(f"{path.relative_to(root)}\n{_without_comments(path.read_bytes())}\n".encode())
    libraries = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"code": digest.hexdigest()[:12], **libraries}


def own_version(source: bytes) -> dict[str, str]:
    """Of a user's file with a scenario, which counts beside the project's code."""
    return {"SCENARIO's code": hashlib.sha256(_without_comments(source).encode()).hexdigest()[:12]}


def _without_comments(source: bytes) -> str:
    return ast.dump(ast.parse(source))
