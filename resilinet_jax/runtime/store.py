"""Finished runs on disk, by cell and run number, so that no run is ever trained twice.

Every pass leaves one file of arrays, which appears whole or not at all. All runs in a folder rest on the same
settings, data and code; anything else is refused, because such runs must not meet in one table.
"""

from __future__ import annotations

import io
import operator
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from resilinet_jax.errors import UserError
from resilinet_jax.files import digest, write_file, zip_bytes

# A mean cross entropy of an epoch, in nats, that no logits of any use have: such a run has diverged as one has whose
# loss is no number.
DIVERGED_LOSS = 1e6
PARTS_OF_A_CLASS = 3  # true positives, false positives and false negatives; a target has four errors


class Measured(NamedTuple):
    """What remains of finished runs.

    Attributes:
      score: accuracy on the test split under each failure combination, or R² where numbers are predicted; NaN if the
        run diverged.
      loss: mean over each epoch's steps.
      validation_score: after each epoch, by which the best one is selected: with skips as active as in training.
      weight: of each hyperconnection after training, before any survival scaling; 0 where a skip was removed.
      outcomes: true positives, false positives and false negatives of each class on the test split, under each
        failure combination: expectations where nothing reaches the cloud. Or of each target mean squared and mean
        absolute error, and the same of the training mean. NaN if the run diverged; no classes where they are not known.
    """

    score: Float[np.ndarray, "*stack combinations"]
    loss: Float[np.ndarray, "*stack epochs"]
    validation_score: Float[np.ndarray, "*stack epochs"]
    weight: Float[np.ndarray, "*stack hyperconnections"]
    outcomes: Float[np.ndarray, "*stack combinations classes parts"]

    @property
    def diverged(self) -> list[int]:
        """Numbers of the runs that diverged: those without a score under some failure combination."""
        return np.flatnonzero(np.isnan(self.score).any(-1)).tolist()

    def rounded(self) -> Measured:
        """Rounds to the seven digits that results on disk have, so that a report from there is the same."""
        widened = self._replace(outcomes=self.outcomes.astype(np.float64))  # or they have digits of float32
        rounded = Measured(*(np.round(leaf, 7) for leaf in widened))
        # Errors have units of their own: 7 digits behind the point may be none of theirs.
        return rounded if self.outcomes.shape[-1] == PARTS_OF_A_CLASS else rounded._replace(outcomes=widened.outcomes)


Name = tuple[str, int]  # of a run: its cell's key, and its number


class Store:
    """The finished runs of a folder."""

    def __init__(
        self,
        folder: pathlib.Path | None = None,
        warn: Callable[[str], None] = print,
        stamp: str = "",
        machine: str = "",
    ):
        """Reads what is there; a damaged file counts for nothing.

        Args:
          folder: made when the first runs are added; None to keep them in memory alone.
          warn: told of every damaged file, in a line.
          stamp: of what all runs here rest on.
          machine: that measures the runs to come.

        Raises:
          UserError: if a file tells another stamp.
        """
        self._folder, self._stamp, self._machine = folder, stamp, machine
        self._known: dict[Name, Measured] = {}
        self._measured_on: dict[Name, str] = {}
        found = []
        for path in sorted(folder.glob("*.npz")) if folder else []:
            try:
                number, told, measured_on, runs = _read(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                warn(f"{path} is damaged: its runs are trained again.")
                continue
            if told != stamp:
                raise UserError(
                    f"{path} holds runs of other settings, data or code; remove it, choose another --results_dir, or "
                    "add --overwrite to train anew"
                )
            found.append((number, measured_on, runs))
        found.sort(key=operator.itemgetter(0))  # a run that was trained again, to keep its model, replaces the first
        for _, measured_on, runs in found:
            self._hold(runs, measured_on)
        self._last = found[-1][0] if found else 0

    @property
    def machines(self) -> list[str]:
        """Those that measured the runs; single accuracies may differ between them."""
        return sorted({*self._measured_on.values()})

    def __contains__(self, name: Name) -> bool:
        """Whether a run is finished, so that the store holds it."""
        return name in self._known

    def __getitem__(self, name: Name) -> Measured:
        """What a finished run left."""
        return self._known[name]

    def add(self, runs: Mapping[Name, Measured], machine: str | None = None) -> None:
        """Keeps finished runs, all of them or, if this is interrupted, none.

        Args:
          runs: by name.
          machine: that measured them; None for the usual one.
        """
        machine = self._machine if machine is None else machine
        self._hold(runs, machine)
        if self._folder is None or not runs:
            return
        keys, numbers = zip(*runs)
        arrays = {field: np.stack([getattr(each, field) for each in runs.values()]) for field in Measured._fields}
        arrays |= {"cell": np.array(keys), "run": np.array(numbers)}
        self._last += 1
        arrays |= {"number": np.array(self._last), "stamp": np.array(self._stamp), "machine": np.array(machine)}
        content = zip_bytes({f"{name}.npy": _npy(array) for name, array in arrays.items()})
        self._folder.mkdir(parents=True, exist_ok=True)
        write_file(self._folder / f"{digest(content)[:16]}.npz", content)

    def _hold(self, runs: Mapping[Name, Measured], machine: str) -> None:
        self._known |= runs
        self._measured_on |= dict.fromkeys(runs, machine)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _read(path: pathlib.Path) -> tuple[int, str, str, dict[Name, Measured]]:
    """A file's number among those of its folder, its stamp, the machine that measured its runs, and these."""
    content = path.read_bytes()
    if digest(content)[:16] != path.stem:
        raise ValueError("its name is not that of its content")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        columns = [file[field] for field in Measured._fields]
        names = zip(file["cell"].tolist(), file["run"].tolist(), strict=True)
        runs = {name: Measured(*row) for name, *row in zip(names, *columns, strict=True)}
        return int(file["number"]), str(file["stamp"]), str(file["machine"]), runs
