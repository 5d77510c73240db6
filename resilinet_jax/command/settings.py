"""What the user asked for, checked before anything heavy is imported, loaded or compiled.

The fields of `Settings` and `Mode` are the flags: name, default, kind, range and help stand here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from resilinet_jax.datasets.readings import BY_NAME, FOLDER, TABLE_FLAGS
from resilinet_jax.datasets.split_settings import KINDS, LEAVE_ONE_OUT
from resilinet_jax.datasets.table_settings import MISSING, WINDOW_LABELS
from resilinet_jax.errors import UserError, suggest
from resilinet_jax.failures.user_failures import parse_failure_probability, user_report_folder
from resilinet_jax.files import check_folder, check_writable, typed_path
from resilinet_jax.results.metric_names import ACCURACY, METRIC_NAMES, metric_folder
from resilinet_jax.runtime.user_code import checked_result, errors_in, is_user_file
from resilinet_jax.scenarios import load_scenario, scenario_names
from resilinet_jax.scenarios._base import Data, Preset, Scenario

SELECTIONS = ("no_failure", "average", "last")
PRESETS = ("quick", "paper")
PRECISIONS = ("bfloat16", "tensorfloat32", "float32")
PROGRAM = "python -m resilinet_jax"  # starts the command line wherever it is installed
_NETWORK_FLAGS = ("hidden_units", "alpha", "image_size")
_NO_MATTER = (
    "results_dir",
    "overwrite",
    "runs_per_pass",
    "tensorboard",
    "mix_devices",
    "keep_models",
    "paper_output",
)  # where things go and how fast they get there
# How the names of reports end that stand beside a sweep's own.
_BESIDE = ("_your_own", *(f"_{metric}" for metric in METRIC_NAMES if metric != ACCURACY))
_TAKEN = ("all", "list", "runs", "checkpoints", "tensorboard")  # names that no user's sweep may have


class Range(NamedTuple):
    """What a number may be; integers are told by integer ends."""

    low: float
    high: float
    includes_low: bool = True

    def holds(self, value: object) -> bool:
        """Whether a value is a number of the range's kind and within it; NaN is not."""
        kind = int if isinstance(self.low, int) else int | float
        return isinstance(value, kind) and self.low <= value <= self.high and (self.includes_low or value > self.low)

    def __str__(self) -> str:
        """The range in words, as messages have it, e.g. `an integer in [1, 10000]`."""
        kind = "an integer " if isinstance(self.low, int) else ""
        return f"{kind}in {'[' if self.includes_low else '('}{self.low:.10g}, {self.high:.10g}]"


_INT32 = 2**31 - 1


def _flag(default: Any, text: str, allowed: Range | None = None) -> Any:
    """A field that is a flag. Beyond the upper ends of a range there are only typing errors."""
    return dataclasses.field(default=default, metadata={"help": text, "allowed": allowed})


def _datasets() -> str:
    """`cifar10: digits, cifar10; health: ...`."""
    return "; ".join(f"{name}: {', '.join(load_scenario(name).datasets)}" for name in scenario_names())


@dataclasses.dataclass(frozen=True)
class Settings:
    """What results may depend on, where they go, and how they are made; None where the preset decides."""

    sweep: str = dataclasses.field(
        metadata={"help": "Which ablation to run: a name, all, list, or the path of a .py file of yours."}
    )
    scenario: str = _flag(
        "health", f"Which network: {', '.join(scenario_names())}, or the path of a .py file of yours."
    )
    dataset: str = _flag("auto", f"auto, or one that the scenario knows; a suffix means a file. {_datasets()}.")
    data_dir: str | None = _flag(None, "TFDS' folder, or where the files of a published data set lie.")
    split: str = _flag(
        "random",
        "What is split 80/10/10: random rows, blocks of rows that follow each other (block), whole subjects (subject); "
        "or each subject is the test subject once (leave_one_subject_out).",
    )
    splits: int = _flag(1, "How many splits are drawn; every cell has --runs on each.", Range(1, 1_000))
    test_subject: str | None = _flag(None, "The only test subject of --split=leave_one_subject_out.")
    label: str | None = _flag(
        None,
        "Of tables: the column of the class; folder for the name of a file's folder, file:REGEX for part of its path.",
    )
    subject: str | None = _flag(None, "Of tables: who was recorded, as --label says the class.")
    recording: str | None = _flag(
        None, "Of tables: the column that tells recordings apart; each file is one without it."
    )
    features: str | None = _flag(None, "Of tables: the columns to learn from, as a,b,c; all others without it.")
    drop: str | None = _flag(None, "Of tables: columns to leave out, as a,b.")
    columns: str | None = _flag(None, "Of tables without a header: names of all columns, as a,b,c.")
    missing: str = _flag("refuse", "What happens to rows of tables that lack a value: refuse, or drop.")
    window: int | None = _flag(None, "Rows that make up an example, within a person and recording.", Range(1, 2**20))
    hop: int | None = _flag(None, "Rows from one window to the next; --window without it.", Range(1, 2**20))
    window_label: str = _flag("majority", "Which label a window has: that of the majority of its rows, or the last.")
    preset: str = _flag("quick", f"Size of everything: {', '.join(PRESETS)}; other flags change it.")
    runs: int | None = _flag(None, "Seeds per cell, on each split.", Range(1, 10_000))
    epochs: int | None = _flag(None, "Passes over the training split.", Range(1, 1_000_000))
    batch_size: int | None = _flag(None, "Examples per training step.", Range(1, _INT32))
    # What float32 can still multiply by.
    learning_rate: float | None = _flag(None, "Adam's step size.", Range(1e-30, 1000.0))
    failout_rate: float | None = _flag(None, "Where the sweep does not vary it.", Range(0.0, 1.0))
    learning_rate_decay: float | None = _flag(
        None, "Factor on the step size after each epoch.", Range(0.0, 1.0, includes_low=False)
    )
    hidden_units: int | None = _flag(None, "Width of the dense layers.", Range(1, 2**16))
    alpha: float | None = _flag(None, "Width of MobileNet.", Range(0.0, 10.0, includes_low=False))
    image_size: int | None = _flag(None, "Height and width of the images, in pixels.", Range(1, 4096))
    augment: bool | None = _flag(None, "Rotate, shift and flip images at random in training.")
    train_examples: int | None = _flag(None, "At most so many examples for training.", Range(1, _INT32))
    runs_per_pass: int | None = _flag(
        None, "Runs in one compiled call; what memory allows without it.", Range(1, _INT32)
    )
    select_by: str = _flag(
        "no_failure",
        "Which epoch of a run counts: the best on the validation split without failures (no_failure), by its average "
        "under the scenario's usual failures (average), or the last (last).",
    )
    matmul_precision: str | None = _flag(
        None,
        f"How precisely GPUs and TPUs multiply at least, by JAX's names: {', '.join(PRECISIONS)}; JAX's default "
        "without it. CPUs always take float32.",
    )
    tolerance: float = _flag(
        0.005, "Width of the intervals if a graph is too large to enumerate.", Range(0.0, 1.0, includes_low=False)
    )
    failure_probability: str | None = _flag(
        None,
        "Of your own network, as n1:0.1,n2:0.02; what is not named never fails. With --report or --sweep, a report "
        "with this failure setting beside the scenario's goes to <sweep>_your_own. Nothing is trained for it.",
    )
    metric: str = _flag(
        ACCURACY,
        f"By which results of classes are told: {', '.join(METRIC_NAMES)}. With --report or --sweep, a report by "
        "another metric than accuracy goes to <sweep>_<metric>. Neither training nor choice of epochs depends on it.",
    )
    seed: int = _flag(0, "Of the split, initialisation, batch order and failout.", Range(0, _INT32))
    results_dir: str = _flag("results", "Results go to <results_dir>/<scenario>/<sweep>.")
    overwrite: bool = _flag(False, "Train anew, and replace results that are there.")
    tensorboard: bool = _flag(False, "Write live curves to <results_dir>/<scenario>/tensorboard.")
    mix_devices: bool = _flag(False, "Compare runs even if devices of several kinds measured them.")
    keep_models: bool = _flag(False, "Keep the trained networks beside the runs' measurements, for --export.")
    paper_output: bool = _flag(
        False, "Write LaTeX tables, a macro for each number, PDF figures and references to <sweep>/paper."
    )

    @property
    def data_folder(self) -> pathlib.Path | None:
        """Where `--data_dir` points."""
        return None if self.data_dir is None else typed_path(self.data_dir, "--data_dir")

    def command_line(self, sweep: str) -> str:
        """The command with these settings, for what `--sweep` takes; its flags are those that differ from defaults."""
        given = dataclasses.asdict(self) | {"sweep": sweep}
        flags = [
            _typed(field.name, given[field.name])
            for field in dataclasses.fields(self)
            if field.name not in _NO_MATTER and given[field.name] not in (None, field.default)
        ]
        return f"{PROGRAM} {shlex.join(flags)}"


@dataclasses.dataclass(frozen=True)
class Mode:
    """What else the command line says: what to do instead of training, and by which means. No number depends on it."""

    report: str | None = _flag(None, "Makes the report in this results folder again, without training.")
    draw: bool = _flag(False, "Makes a picture of the scenario's graph, without training.")
    describe: bool = _flag(False, "Tells what the data hold and what may be wrong with them, without training.")
    export: str | None = _flag(
        None,
        "Makes an artefact, for nodes to run, from a cell of this finished sweep's folder; in an artefact's folder, "
        "its programs again from its weights.",
    )
    cell: str | None = _flag(None, "Which cell --export takes, by its name in accuracies.csv.")
    run: int | None = _flag(None, "Which run of that cell; the first without it.", Range(0, 10_000))
    deploy: str | None = _flag(None, "Runs the nodes of this artefact here, kills them, and compares with predictions.")
    chaos_seconds: float | None = _flag(
        None, "So long --deploy also fails nodes and hyperconnections at random and brings them back.", Range(0.0, 1e6)
    )
    strikes: int | None = _flag(
        None, "How often --deploy kills, stops and cuts off each fallible node; once without it.", Range(1, 10_000)
    )
    engine: str | None = _flag(
        None, "What computes all nodes of --deploy; without it NumPy where it can, and JAX elsewhere."
    )
    onnx: bool | None = _flag(None, "Makes --export write programs in ONNX as well, for nodes without JAX.")
    artefact: str | None = _flag(
        None, "Where it goes; <results_dir>/<scenario>/artefacts/<sweep>/<cell>/run_<n> without it."
    )
    dry_run: bool = _flag(
        False, "Tells how many runs the sweep has, and what they take in time and memory, without training."
    )
    huge_pages: bool = _flag(True, "Start anew with memory settings that make training on CPU faster.")
    compilation_cache: bool = _flag(True, "Keep compiled programs in the user's cache folder.")
    ray: str | None = _flag(
        None,
        "Train on the machines of a Ray cluster: its address, auto for the one that runs here, or --ray alone for one "
        "of this command's own.",
    )

    def check_one_job(self, sweep: str | None) -> None:
        """Refuses more than one thing to do; `--sweep` beside `--report` or `--export` may name a user's file.

        Args:
          sweep: `--sweep`.

        Raises:
          UserError: naming the flags.
        """
        jobs = {"report": self.report is not None, "export": self.export is not None, "deploy": self.deploy is not None}
        jobs |= {"draw": self.draw, "describe": self.describe}
        asked = [f"--{name}" for name, given in jobs.items() if given]
        if sweep is not None and not (asked and is_user_file(sweep)):
            asked.append("--sweep")
        if len(asked) > 1:
            raise UserError(f"{' and '.join(asked)} are two things to do; give one of them")
        if self.dry_run and asked not in ([], ["--sweep"]):
            raise UserError(f"--dry_run is about training, and {asked[0]} trains nothing; leave it out")
        owners = {
            "export": ("a sweep's results", ("cell", "run", "artefact", "onnx")),
            "deploy": ("an artefact", ("chaos_seconds", "strikes", "engine")),
        }
        for job, (what, names) in owners.items():
            for name in names:
                if getattr(self, name) is not None and not jobs[job]:
                    raise UserError(f"--{name} belongs to --{job}=<{what}>; add that, or leave --{name} out")


RANGES: dict[str, Range] = {
    field.name: field.metadata["allowed"]
    for kind in (Settings, Mode)
    for field in dataclasses.fields(kind)
    if field.metadata.get("allowed") is not None
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """The scenario that the settings name, and its preset as the flags changed it; made by `choose`.

    Attributes:
      settings: what the user asked for.
      scenario: the project's, or a user's own.
      preset: the numbers that count.
    """

    settings: Settings
    scenario: Scenario
    preset: Preset

    @property
    def folder(self) -> pathlib.Path:
        """Where the results of all sweeps of the scenario go: `<results_dir>/<scenario>`."""
        return typed_path(self.settings.results_dir, "--results_dir") / self.scenario.name

    @property
    def runs_folder(self) -> pathlib.Path:
        """Where finished runs are kept, for all sweeps of the scenario."""
        return self.folder / "runs"

    @property
    def checkpoints_folder(self) -> pathlib.Path:
        """Where each process keeps the pass under way."""
        return self.folder / "checkpoints"

    @property
    def tensorboard_folder(self) -> pathlib.Path:
        """Where TensorBoard finds the curves of each run."""
        return self.folder / "tensorboard"

    def with_network(self, changes: Mapping[str, Any]) -> Choice:
        """This choice with further or changed arguments of the scenario's `build_network`."""
        network = {**self.preset.network, **changes}
        return dataclasses.replace(self, preset=dataclasses.replace(self.preset, network=network))

    @property
    def rests_on_more_than_data(self) -> bool:
        """Whether something else may be refused as well before data are loaded: code of a user's, or finished runs."""
        own = self.scenario.file is not None or is_user_file(self.settings.sweep)
        return own or any(self.folder.glob(f"{self.runs_folder.name}*"))

    def load_data(self, trains: bool = True) -> Data:
        """The scenario's data.

        Args:
          trains: whether they must be enough to train on.

        Raises:
          UserError: for what only the data can tell, or for a mistake in a user's own scenario.
        """
        scenario, preset = self.scenario, self.preset
        with errors_in(scenario.file, scenario.load):
            data: Data = checked_result(scenario.load, scenario.load(self.settings, preset), Data)
        if len(data.feed.labels) < self.settings.splits:
            raise UserError(
                f"--splits={self.settings.splits}: {self.settings.scenario}'s load() makes one split; have it call "
                "rj.draw_splits(dataset, settings, preset.train_examples)"
            )
        examples = min(data.feed.sizes["train"])
        if trains and preset.batch_size > examples:
            raise UserError(
                f"--batch_size must be at most the {examples:,} training examples, got {preset.batch_size:,}"
            )
        return data

    def check_training(self, sweeps: Collection[str]) -> None:
        """Refuses data and folders with which these sweeps can't be trained.

        Args:
          sweeps: their names.

        Raises:
          UserError: for the first such value.
        """
        if self.settings.failure_probability is not None:
            parse_failure_probability(self.settings.failure_probability)
        self._check_dataset()
        check_writable(self.folder)
        kept = any(self.folder.glob(f"{self.runs_folder.name}*"))
        for folder in (self.folder / sweep for sweep in sweeps):
            for place in (folder, user_report_folder(folder)):
                check_folder(place)
                check_folder(metric_folder(place, self.settings.metric))
            if folder.exists() and not kept and not self.settings.overwrite:
                raise UserError(
                    f"{folder} holds results whose runs are gone; add --overwrite, or choose another --results_dir"
                )

    def _check_dataset(self) -> None:
        asked, scenario = self.settings, self.scenario
        suffixes = [name for name in scenario.datasets if name.startswith(".")]
        folders = ["a folder"] * (FOLDER in scenario.datasets)
        named = [name for name in scenario.datasets if name not in (*suffixes, FOLDER, BY_NAME)]
        is_folder = folders and asked.dataset not in named and typed_path(asked.dataset, "--dataset").is_dir()
        by_name = BY_NAME in scenario.datasets and asked.dataset.startswith(BY_NAME)
        if asked.dataset not in ("auto", *named) and not is_folder and not by_name:
            if not any(asked.dataset.lower().endswith(suffix) for suffix in suffixes):
                files = [f"a file ({' '.join(suffixes)})"] * bool(suffixes)
                known = ", ".join(["auto", *named, *files, *folders])
                raise UserError(
                    f"--dataset={asked.dataset} is unknown to --scenario={asked.scenario}; expected {known}"
                )
            if not typed_path(asked.dataset, "--dataset").is_file():
                raise UserError(
                    f"--dataset={asked.dataset}: no such file; give an .npz with arrays x and y, or a table"
                )
        given = next((flag for flag in (*TABLE_FLAGS, "window") if getattr(asked, flag) is not None), None)
        if given is not None and scenario.presets[asked.preset].augment is not None:
            raise UserError(f"--{given}: --scenario={asked.scenario} takes images, and no tables; leave it out")
        if asked.data_folder is not None and not asked.data_folder.exists():
            raise UserError(f"--data_dir={asked.data_dir}: no such folder; make it, or leave the flag out")
        if (asked.split != "random" or asked.splits > 1) and scenario.presets[asked.preset].augment is not None:
            what = f"--split={asked.split}" if asked.split != "random" else f"--splits={asked.splits}"
            raise UserError(f"{what}: the images of --scenario={asked.scenario} come as they were split; leave it out")

    def settings_for(self, dataset: str) -> Settings:
        """The settings with the name of the data set that `--dataset=auto` has found, as reports call it."""
        found = self.settings.dataset == "auto" and dataset in self.scenario.datasets
        return dataclasses.replace(self.settings, dataset=dataset) if found else self.settings


def choose(settings: Settings) -> Choice:
    """Resolves what the settings name, once.

    Raises:
      UserError: for the first value that can't work, or for a mistake in a user's own scenario.
    """
    for name, value in dataclasses.asdict(settings).items():
        check_flag(name, value)
    own = is_user_file(settings.scenario)
    if not own:
        _check_known("scenario", settings.scenario, scenario_names())
        _check_known("preset", settings.preset, PRESETS)
    _check_known("split", settings.split, KINDS)
    if settings.split == LEAVE_ONE_OUT and settings.splits > 1:
        raise UserError(
            f"--splits={settings.splits}: --split={LEAVE_ONE_OUT} has a split for each subject; leave it out"
        )
    if settings.test_subject is not None and settings.split != LEAVE_ONE_OUT:
        raise UserError(f"--test_subject={settings.test_subject} belongs to --split={LEAVE_ONE_OUT}; add that")
    _check_known("select_by", settings.select_by, SELECTIONS)
    if settings.matmul_precision is not None:
        _check_known("matmul_precision", settings.matmul_precision, PRECISIONS)
    _check_known("missing", settings.missing, MISSING)
    if settings.hop is not None and settings.window is None:
        raise UserError(f"--hop={settings.hop} belongs to --window; add that")
    _check_known("window_label", settings.window_label, WINDOW_LABELS)
    check_metric(settings.metric)
    scenario = load_scenario(settings.scenario)
    if settings.preset not in scenario.presets:
        known = ", ".join(scenario.presets)
        raise UserError(
            f"{settings.scenario}: SCENARIO.presets has no {settings.preset!r} (known: {known}); add it, or choose "
            "one by --preset"
        )
    return Choice(settings, scenario, _preset(settings, scenario))


def _preset(settings: Settings, scenario: Scenario) -> Preset:
    """The scenario's preset with whatever the flags say instead."""
    preset = scenario.presets[settings.preset]
    given = {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}
    for name in given:
        unused = name in _NETWORK_FLAGS and name not in preset.network
        if unused or (name == "augment" and preset.augment is None):
            known = ", ".join(f"--{flag}" for flag in _NETWORK_FLAGS if flag in preset.network) or "no such flag"
            raise UserError(f"--{name} means nothing to --scenario={settings.scenario}; its network has {known}")
    sizes = {name: given.get(name, preset.network[name]) for name in _NETWORK_FLAGS if name in preset.network}
    numbers = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
    numbers |= {name: given[name] for name in numbers if name in given} | {"network": {**preset.network, **sizes}}
    for name, value in {**sizes, **numbers}.items():
        optional = name == "train_examples" and value is None
        if name in RANGES and not optional and not RANGES[name].holds(value):
            field = f"presets[{settings.preset!r}].{'network.' if name in sizes else ''}{name}"
            raise UserError(f"{settings.scenario}: SCENARIO.{field} must be {RANGES[name]}, got {value!r}")
    return dataclasses.replace(preset, **numbers)


def chosen_sweeps(asked: str, known: Collection[str]) -> dict[str, str]:
    """The sweeps to run: by name, what `--sweep` takes for each.

    Args:
      asked: `--sweep`.
      known: the names of the project's sweeps.

    Raises:
      UserError: for an unknown name, or a user's file whose name would be mixed up with another.
    """
    check_flag("sweep", asked)
    if is_user_file(asked):
        name = pathlib.Path(asked).stem
        if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", name, re.ASCII):
            raise UserError(f"--sweep={asked}: the file's name must be letters, digits, _ - or ., got {name!r}")
        if name in (*known, *_TAKEN) or name.startswith(("runs_", "checkpoints_")) or name.endswith(_BESIDE):
            raise UserError(f"--sweep={asked}: {name!r} names results of the project's own; give the file another name")
        return {name: asked}
    _check_known("sweep", asked, [*known, "all"], hint="--sweep=list shows them")
    return {name: name for name in known} if asked == "all" else {asked: asked}


def check_metric(metric: str) -> None:
    """Refuses what `--metric` does not know.

    Raises:
      UserError: naming the nearest metric, and all of them.
    """
    _check_known("metric", metric, METRIC_NAMES)


def check_flag(name: str, value: object) -> None:
    """Refuses a number out of its range, NaN among them, and text that can be no name.

    Raises:
      UserError: naming the flag.
    """
    if name in RANGES and value is not None and not RANGES[name].holds(value):
        raise UserError(f"--{name} must be {RANGES[name]}, got {value}")
    if isinstance(value, str):
        if not value:
            raise UserError(f"--{name} is empty; give it a value, or leave it out")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
            raise UserError(f"--{name} must be plain text, without control characters, got {value!r}")


def _check_known(flag: str, value: str, known: Collection[str], hint: str = "") -> None:
    """Refuses what is not known; `hint` stands for the known ones where they are too many for a line."""
    if value not in known:
        raise UserError(f"unknown {flag} {value!r}{suggest(value, known, hint)}")


def _typed(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={value}"
