"""What the user asked for, checked before anything heavy is imported, loaded or compiled."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import tempfile
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

from resilinet_jax.errors import UserError, suggest
from resilinet_jax.own_failures import own_folder, parse_failure_probability
from resilinet_jax.paths import typed_path
from resilinet_jax.scenarios import Preset, Scenario, is_own, load_scenario

SPLITS = ("random", "subject")
_NETWORK_FLAGS = ("hidden_units", "alpha", "image_size")
PRESETS = ("quick", "paper")


class _Range(NamedTuple):
    """What a number may be; integers are told by integer ends."""

    low: float
    high: float
    includes_low: bool = True

    def holds(self, value: object) -> bool:
        """Whether the value is a number of this kind and within; NaN is not."""
        kind = int if isinstance(self.low, int) else int | float
        return isinstance(value, kind) and self.low <= value <= self.high and (self.includes_low or value > self.low)

    def __str__(self) -> str:
        """As messages have it, e.g. `an integer in [1, 10000]`."""
        kind = "an integer " if isinstance(self.low, int) else ""
        return f"{kind}in {'[' if self.includes_low else '('}{self.low:.10g}, {self.high:.10g}]"


# Beyond the upper ends there are only typing errors, which would fill memory or overflow before anything failed.
_INT32 = 2**31 - 1
_RANGES = {
    "runs": _Range(1, 10_000),
    "epochs": _Range(1, 1_000_000),
    "batch_size": _Range(1, _INT32),
    "hidden_units": _Range(1, 2**16),
    "image_size": _Range(1, 4096),
    "train_examples": _Range(1, _INT32),
    "runs_per_pass": _Range(1, _INT32),
    "num_processes": _Range(1, 2**16),
    "seed": _Range(0, _INT32),
    "failout_rate": _Range(0.0, 1.0),
    "learning_rate": _Range(1e-30, 1000.0),  # what float32 can still multiply by
    "learning_rate_decay": _Range(0.0, 1.0, includes_low=False),
    "tolerance": _Range(0.0, 1.0, includes_low=False),
    "alpha": _Range(0.0, 10.0, includes_low=False),
}


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
    failure_probability: str | None = None
    seed: int = 0
    results_dir: str = "results"
    overwrite: bool = False
    tensorboard: bool = False

    def check(self, sweeps: Collection[str], scenarios: Collection[str]) -> None:
        """Refuses what can't work.

        Args:
          sweeps: the names of all sweeps.
          scenarios: the names of the project's scenarios; a file of the user's own may be one as well.

        Raises:
          UserError: for the first such value, or for a mistake in the user's file.
        """
        self.check_scenario(scenarios)
        _one_of("sweep", self.sweep, [*sweeps, "all"], told="--sweep=list shows them")
        if self.failure_probability is not None:
            parse_failure_probability(self.failure_probability)
        self._check_dataset(load_scenario(self.scenario))
        _check_writable(self.scenario_folder)
        for folder in self.result_folders(sweeps).values():
            _check_folder(folder)
            _check_folder(own_folder(folder))
            kept = any(self.scenario_folder.glob(f"{self.runs_folder.name}*"))
            if folder.exists() and not kept and not self.overwrite:
                raise UserError(
                    f"{folder} holds results whose runs are gone; add --overwrite, or choose another --results_dir"
                )

    def check_scenario(self, scenarios: Collection[str]) -> None:
        """The same without what only training needs: sweeps, their results, and data.

        Raises:
          UserError: for the first value that can't work.
        """
        for name, value in dataclasses.asdict(self).items():
            check_flag(name, value)
        own = is_own(self.scenario)
        if not own:
            _one_of("scenario", self.scenario, scenarios)
            _one_of("preset", self.preset, PRESETS)
        _one_of("split", self.split, SPLITS)
        scenario = load_scenario(self.scenario)
        if own and self.preset not in scenario.presets:
            known = ", ".join(scenario.presets)
            raise UserError(
                f"{self.scenario}: SCENARIO.presets has no {self.preset!r} (known: {known}); add it, or choose one "
                "by --preset"
            )
        self.preset_of(scenario)

    def chosen_sweeps(self, sweeps: Collection[str]) -> list[str]:
        """The names of the sweeps to run."""
        return list(sweeps) if self.sweep == "all" else [self.sweep]

    def result_folders(self, sweeps: Collection[str]) -> dict[str, pathlib.Path]:
        """Where each chosen sweep's results go: `<results_dir>/<scenario>/<sweep>`."""
        return {sweep: self.scenario_folder / sweep for sweep in self.chosen_sweeps(sweeps)}

    @property
    def scenario_folder(self) -> pathlib.Path:
        """Where the results of all sweeps of the scenario go."""
        own = is_own(self.scenario)
        name = load_scenario(self.scenario).name if own else self.scenario
        return typed_path(self.results_dir, "--results_dir") / name

    @property
    def runs_folder(self) -> pathlib.Path:
        """Where finished runs are kept, for all sweeps of the scenario."""
        return self.scenario_folder / "runs"

    @property
    def checkpoints_folder(self) -> pathlib.Path:
        """Where each process keeps the pass under way."""
        return self.scenario_folder / "checkpoints"

    @property
    def tensorboard_folder(self) -> pathlib.Path:
        """Where TensorBoard finds the curves of each run."""
        return self.scenario_folder / "tensorboard"

    @property
    def data_folder(self) -> pathlib.Path | None:
        """Where `--data_dir` points."""
        return None if self.data_dir is None else typed_path(self.data_dir, "--data_dir")

    def preset_of(self, scenario: Scenario) -> Preset:
        """The scenario's preset with whatever the flags say instead.

        Raises:
          UserError: if a flag is given that this scenario has no use for, or a number of the preset is out of range.
        """
        preset = scenario.presets[self.preset]
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        for name in given:
            unused = name in _NETWORK_FLAGS and name not in preset.network
            if unused or (name == "augment" and preset.augment is None):
                known = ", ".join(f"--{flag}" for flag in _NETWORK_FLAGS if flag in preset.network) or "no such flag"
                raise UserError(f"--{name} means nothing to --scenario={self.scenario}; its network has {known}")
        network = {name: given.get(name, value) for name, value in preset.network.items()}
        own = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)} | {"network": network}
        own |= {name: given[name] for name in own if name in given}
        for name, value in {**network, **own}.items():
            optional = name == "train_examples" and value is None
            if name in _RANGES and not optional and not _RANGES[name].holds(value):
                field = f"presets[{self.preset!r}].{'network.' if name in network else ''}{name}"
                raise UserError(f"{self.scenario}: SCENARIO.{field} must be {_RANGES[name]}, got {value!r}")
        return dataclasses.replace(preset, **own)

    def _check_dataset(self, scenario: Scenario) -> None:
        suffixes = [name for name in scenario.datasets if name.startswith(".")]
        named = [name for name in scenario.datasets if name not in suffixes]
        if self.dataset not in ("auto", *named):
            if not any(self.dataset.endswith(suffix) for suffix in suffixes):
                known = ", ".join(["auto", *named, *(f"the path of an {suffix} file" for suffix in suffixes)])
                raise UserError(f"--dataset={self.dataset} is unknown to --scenario={self.scenario}; expected {known}")
            if not typed_path(self.dataset, "--dataset").is_file():
                raise UserError(f"--dataset={self.dataset}: no such file; give an .npz with arrays x and y")
        if self.data_folder is not None and not self.data_folder.exists():
            raise UserError(f"--data_dir={self.data_dir}: no such folder; make it, or leave the flag out")
        if self.split == "subject" and scenario.presets[self.preset].augment is not None:
            raise UserError(f"--split=subject: the images of --scenario={self.scenario} have no subjects")


def check_processes(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, distributed: bool = False
) -> None:
    """Refuses flags about several processes that can't work, before anything is waited for.

    Raises:
      UserError: naming the flag.
    """
    if coordinator_address is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes and --process_id need --coordinator_address=host:port of process 0")
        return
    if distributed:
        raise UserError("--distributed finds the other processes by itself; leave it or --coordinator_address out")
    check_flag("coordinator_address", coordinator_address)
    port = re.fullmatch(r"[^\s:]+:(\d{1,5})|\[[^\s\]]+\]:(\d{1,5})", coordinator_address, re.ASCII)
    if not port or not 1 <= int(port[1] or port[2]) < 2**16:
        raise UserError(f"--coordinator_address must be host:port, got {coordinator_address!r}")
    if num_processes is None or process_id is None:
        raise UserError("--coordinator_address needs --num_processes and --process_id as well")
    check_flag("num_processes", num_processes)
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id must be in [0, {num_processes - 1}], got {process_id}")


def check_flag(name: str, value: object) -> None:
    """Refuses a number out of its range, NaN among them, and text that can be no name.

    Raises:
      UserError: naming the flag.
    """
    if name in _RANGES and value is not None and not _RANGES[name].holds(value):
        raise UserError(f"--{name} must be {_RANGES[name]}, got {value}")
    if isinstance(value, str):
        if not value:
            raise UserError(f"--{name} is empty; give it a value, or leave it out")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
            raise UserError(f"--{name} must be plain text, without control characters, got {value!r}")


def _one_of(flag: str, value: str, known: Collection[str], told: str = "") -> None:
    """Refuses what is not known; `told` stands for the known ones where they are too many for a line."""
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        short = f"{f'; did you mean {close[0]}?' if close else ''} ({told})"
        raise UserError(f"unknown {flag} {value!r}{short if told else suggest(value, known)}")


def _check_folder(folder: pathlib.Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; remove it, or choose another --results_dir")


def _check_writable(folder: pathlib.Path) -> None:
    _check_folder(folder)
    # A link to nowhere is there, although what it leads to is not.
    parents = (folder, *folder.absolute().parents)
    existing = next(parent for parent in parents if parent.exists() or parent.is_symlink())
    try:
        with tempfile.TemporaryDirectory(dir=existing):  # nothing but trying tells for sure
            pass
    except OSError as error:
        raise UserError(f"can't write in {existing} ({error.strerror}); choose another --results_dir") from None
