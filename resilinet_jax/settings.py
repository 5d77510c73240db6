"""What the user asked for, checked before anything heavy is imported, loaded or compiled."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import tempfile
from collections.abc import Collection
from typing import Any

from resilinet_jax.errors import UserError

SPLITS = ("random", "subject")
PRESETS = ("quick", "paper")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The command line's flags; None where the preset decides.

    `check` holds what can be known from the values alone.
    """

    sweep: str
    scenario: str = "health"
    dataset: str = "auto"
    data_dir: str | None = None
    split: str = "random"
    preset: str = "quick"
    runs: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    failout_rate: float | None = None
    hidden_units: int | None = None
    train_examples: int | None = None
    seed: int = 0
    results_dir: str = "results"
    overwrite: bool = False

    def check(self, sweeps: Collection[str], scenarios: Collection[str]) -> None:
        """Refuses what can't work.

        Args:
          sweeps: the names of all sweeps.
          scenarios: the names of all scenarios.

        Raises:
          UserError: for the first such value.
        """
        _one_of("sweep", self.sweep, [*sweeps, "all"])
        _one_of("scenario", self.scenario, scenarios)
        _one_of("split", self.split, SPLITS)
        _one_of("preset", self.preset, PRESETS)
        for name in ("runs", "epochs", "batch_size", "hidden_units", "train_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be an integer of at least 1, got {value}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed must be in [0, {2**31 - 1}], got {self.seed}")
        if self.failout_rate is not None and not 0 <= self.failout_rate <= 1:
            raise UserError(f"--failout_rate must be in [0, 1], got {self.failout_rate}")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise UserError(f"--learning_rate must be positive, got {self.learning_rate}")
        self._check_dataset()
        for folder in self.result_folders(sweeps).values():
            _check_free(folder, self.overwrite)

    def chosen_sweeps(self, sweeps: Collection[str]) -> list[str]:
        """The names of the sweeps to run."""
        return list(sweeps) if self.sweep == "all" else [self.sweep]

    def result_folders(self, sweeps: Collection[str]) -> dict[str, pathlib.Path]:
        """Where each chosen sweep's results go: `<results_dir>/<scenario>/<sweep>`."""
        base = pathlib.Path(self.results_dir).expanduser() / self.scenario
        return {sweep: base / sweep for sweep in self.chosen_sweeps(sweeps)}

    def over(self, preset: Any) -> Any:
        """`preset` with whatever the flags say instead."""
        names = [field.name for field in dataclasses.fields(preset)]
        return dataclasses.replace(
            preset, **{name: getattr(self, name) for name in names if getattr(self, name) is not None}
        )

    def _check_dataset(self) -> None:
        if self.dataset not in ("auto", "synthetic", "mhealth"):
            if not self.dataset.endswith(".npz"):
                raise UserError(
                    f"unknown --dataset={self.dataset}; expected auto, synthetic, mhealth or the path of an .npz file"
                )
            if not pathlib.Path(self.dataset).expanduser().is_file():
                raise UserError(f"--dataset={self.dataset}: no such file; give an .npz with arrays x and y")
        if self.data_dir is not None and not pathlib.Path(self.data_dir).expanduser().exists():
            raise UserError(f"--data_dir={self.data_dir}: no such folder; make it, or leave the flag out")


def _one_of(flag: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown {flag} {value!r}{hint} (known: {', '.join(known)})")


def _check_free(folder: pathlib.Path, overwrite: bool) -> None:
    """Refuses a folder that holds results already, or where none can be written."""
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} holds results already; add --overwrite, or choose another --results_dir")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing):  # nothing but trying tells for sure
            pass
    except OSError as error:
        raise UserError(f"can't write in {existing} ({error.strerror}); choose another --results_dir") from None
