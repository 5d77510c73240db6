"""What the user asked for, checked before anything heavy is imported, loaded or compiled."""

from __future__ import annotations

import dataclasses
import difflib
import math
import pathlib
import tempfile
from collections.abc import Collection

from resilinet_jax.errors import UserError
from resilinet_jax.scenarios import Preset, Scenario, load_scenario

SPLITS = ("random", "subject")
_NETWORK_FLAGS = ("hidden_units", "alpha", "image_size")
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
    learning_rate_decay: float | None = None
    hidden_units: int | None = None
    alpha: float | None = None
    image_size: int | None = None
    augment: bool | None = None
    train_examples: int | None = None
    runs_per_pass: int | None = None
    tolerance: float = 0.005
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
        scenario = load_scenario(self.scenario)
        for name in ("runs", "epochs", "batch_size", "hidden_units", "image_size", "train_examples", "runs_per_pass"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be an integer of at least 1, got {value}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed must be in [0, {2**31 - 1}], got {self.seed}")
        if self.failout_rate is not None and not 0 <= self.failout_rate <= 1:
            raise UserError(f"--failout_rate must be in [0, 1], got {self.failout_rate}")
        if not 0 < self.tolerance <= 1:
            raise UserError(f"--tolerance must be in (0, 1], got {self.tolerance}")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise UserError(f"--learning_rate must be positive, got {self.learning_rate}")
        if self.learning_rate_decay is not None and not 0 < self.learning_rate_decay <= 1:
            raise UserError(f"--learning_rate_decay must be in (0, 1], got {self.learning_rate_decay}")
        if self.alpha is not None and not (0 < self.alpha < math.inf):
            raise UserError(f"--alpha must be positive, got {self.alpha}")
        self.preset_of(scenario)
        self._check_dataset(scenario)
        _check_writable(self.scenario_folder)

    def chosen_sweeps(self, sweeps: Collection[str]) -> list[str]:
        """The names of the sweeps to run."""
        return list(sweeps) if self.sweep == "all" else [self.sweep]

    def result_folders(self, sweeps: Collection[str]) -> dict[str, pathlib.Path]:
        """Where each chosen sweep's results go: `<results_dir>/<scenario>/<sweep>`."""
        return {sweep: self.scenario_folder / sweep for sweep in self.chosen_sweeps(sweeps)}

    @property
    def scenario_folder(self) -> pathlib.Path:
        """Where the results of all sweeps of the scenario go."""
        return pathlib.Path(self.results_dir).expanduser() / self.scenario

    @property
    def data_folder(self) -> pathlib.Path | None:
        """Where `--data_dir` points."""
        return None if self.data_dir is None else pathlib.Path(self.data_dir).expanduser()

    def preset_of(self, scenario: Scenario) -> Preset:
        """The scenario's preset with whatever the flags say instead.

        Raises:
          UserError: if a flag is given that this scenario has no use for.
        """
        preset = scenario.presets[self.preset]
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        for name in given:
            unused = name in _NETWORK_FLAGS and name not in preset.network
            if unused or (name == "augment" and preset.augment is None):
                known = ", ".join(f"--{flag}" for flag in _NETWORK_FLAGS if flag in preset.network)
                raise UserError(f"--{name} means nothing to --scenario={scenario.name}; its network has {known}")
        network = {name: given.get(name, value) for name, value in preset.network.items()}
        own = {field.name for field in dataclasses.fields(preset)} - {"network"}
        return dataclasses.replace(preset, network=network, **{name: given[name] for name in own if name in given})

    def _check_dataset(self, scenario: Scenario) -> None:
        suffixes = [name for name in scenario.datasets if name.startswith(".")]
        named = [name for name in scenario.datasets if name not in suffixes]
        if self.dataset not in ("auto", *named):
            if not any(self.dataset.endswith(suffix) for suffix in suffixes):
                known = ", ".join(["auto", *named, *(f"the path of an {suffix} file" for suffix in suffixes)])
                raise UserError(f"--dataset={self.dataset} is unknown to --scenario={scenario.name}; expected {known}")
            if not pathlib.Path(self.dataset).expanduser().is_file():
                raise UserError(f"--dataset={self.dataset}: no such file; give an .npz with arrays x and y")
        if self.data_folder is not None and not self.data_folder.exists():
            raise UserError(f"--data_dir={self.data_dir}: no such folder; make it, or leave the flag out")
        if self.split == "subject" and "alpha" in scenario.presets[self.preset].network:
            raise UserError(f"--split=subject: the images of --scenario={scenario.name} have no subjects")


def _one_of(flag: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown {flag} {value!r}{hint} (known: {', '.join(known)})")


def _check_writable(folder: pathlib.Path) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing):  # nothing but trying tells for sure
            pass
    except OSError as error:
        raise UserError(f"can't write in {existing} ({error.strerror}); choose another --results_dir") from None
