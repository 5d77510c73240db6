"""Finished runs on disk, by cell and run number, so that no run is ever trained twice.

Every pass leaves one file of arrays, which appears whole or not at all. All runs in a folder rest on the same
settings, data and code; anything else is refused, because such runs must not meet in one table.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from resilinet_jax.files import write_file


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
        """Numbers of the runs that diverged: those with no accuracy at all."""
        return np.flatnonzero(np.isnan(self.accuracy).all(-1)).tolist()

    def rounded(self) -> Measured:
        """Rounds to the seven digits that results on disk have, so that a report from there is the same."""
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
        """Whether a run is finished, so that the store holds it."""
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
