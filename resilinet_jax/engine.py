"""Runs many cells: what to train once, passes that fit memory, devices. The only place where training meets I/O."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from resilinet_jax.cells import Cell, draw_weight, inference_wiring, stack_cells
from resilinet_jax.datasets.splits import Splits
from resilinet_jax.evaluation import Examples, accuracy_under
from resilinet_jax.failout import failure_combinations
from resilinet_jax.network import Network
from resilinet_jax.progress import Progress
from resilinet_jax.training import EVALUATION_BATCH, RunKeys, RunState, initial_state, run_keys, train_epoch

PASS_BYTES = 4 * 2**30  # memory that the parameters of one pass may take
PASS_EXAMPLES = (
    5_000_000  # models x examples in one epoch of a pass: a few minutes on a laptop between two signs of life
)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How every run of a sweep is trained.

    Attributes:
      runs: seeds per cell, numbered from 0.
      epochs: passes over the training split.
      batch_size: examples per step.
      seed: of everything random in training.
      stack: how many models of a device train at once inside the compiled program; None for the backend's
        measured default (`python -m benchmarks.stacking`). The results do not depend on it but for rounding.
      devices: at most so many of the local devices, side by side; None for all. The results do not depend on it.
    """

    runs: int
    epochs: int
    batch_size: int
    seed: int
    stack: int | None = None
    devices: int | None = None


class Training(NamedTuple):
    """A cell to train once, and all that is read off it.

    Attributes:
      cell: its training numbers.
      selections: inference activities for each of which the best epoch is kept.
      variants: cells that differ from `cell` at inference only, each with the index of its selection.
      names: for each variant, the names under which it was asked for.
    """

    cell: Cell
    selections: list[float]
    variants: list[tuple[int, Cell]]
    names: list[list[str]]


def plan_trainings(cells: Mapping[str, Cell]) -> list[Training]:
    """Groups cells by what training does for them, so that no training is done twice."""
    trainings: dict[bytes, Training] = {}
    for name, cell in cells.items():
        training = trainings.setdefault(cell.training_key(), Training(cell, [], [], []))
        activity = float(cell.inference_activity)
        if activity not in training.selections:
            training.selections.append(activity)
        selection = training.selections.index(activity)
        for (known, variant), names in zip(training.variants, training.names):
            if known == selection and np.array_equal(variant.inference_scale, cell.inference_scale):
                names.append(name)
                break
        else:
            training.variants.append((selection, cell))
            training.names.append([name])
    return list(trainings.values())


SplitArrays = tuple[Examples, Examples, Examples]  # training, validation, test


class Models(NamedTuple):
    """The models of one pass, cells x runs, along a leading axis: what training and evaluation need of each."""

    cell: Cell
    selection: Float[np.ndarray, "models selections"]
    variant_selection: Any  # Int[np.ndarray, "models variants"]
    variant: Cell  # leaves [models, variants, ...]
    keys: RunKeys  # leaves [models]


def run_cells(
    network: Network,
    splits: Splits,
    cells: Mapping[str, Cell],
    settings: TrainingSettings,
    progress: Progress,
) -> dict[str, Float[np.ndarray, "runs combinations"]]:
    """Trains and evaluates every cell, each `settings.runs` times.

    Returns:
      By cell name, the test accuracy of each run under each of `failure_combinations(network.graph.fallible)`.
    """
    trainings = plan_trainings(cells)
    # Model number m is run m % runs of training m // runs.
    models = [(training, run) for training in trainings for run in range(settings.runs)]
    selections = max(len(training.selections) for training in trainings)
    variants = max(len(training.variants) for training in trainings)
    program = Program(network, splits, settings, selections)
    stacked = len(_devices(settings)) * (settings.stack or _default_stack())
    fit = min(PASS_BYTES // program.bytes_per_model(), PASS_EXAMPLES // program.examples_per_epoch)
    progress.start(models=len(models), epochs=settings.epochs, examples=program.examples_per_epoch)
    measured: list[np.ndarray] = []
    try:
        for members in _passes(len(models), max(stacked, fit)):
            chosen = [models[m] for m in members]
            batch = _assemble(chosen, selections, variants, settings.seed)
            measured += list(program.run(batch, progress))
    finally:
        progress.finish()
    accuracy = {}
    for t, training in enumerate(trainings):
        of_training = np.stack(measured[t * settings.runs : (t + 1) * settings.runs])
        for v, names in enumerate(training.names):
            accuracy.update(dict.fromkeys(names, of_training[:, v]))
    return {name: accuracy[name] for name in cells}


class Program:
    """The compiled functions of a sweep: one each to start, to train an epoch and to evaluate a stack of models."""

    def __init__(self, network: Network, splits: Splits, settings: TrainingSettings, selections: int):
        """Prepares the functions; nothing compiles before `run`."""
        self._settings = settings
        self._selections = selections
        self._chance = splits.chance
        self.examples_per_epoch = len(splits.train.y) // settings.batch_size * settings.batch_size
        self._splits = splits
        survival = failure_combinations(network.graph.fallible)

        def start(keys: RunKeys, splits: SplitArrays) -> RunState:
            return initial_state(network, keys, splits[0].x[:1], selections)

        def epoch(state: RunState, models: Models, splits: SplitArrays) -> Any:
            train, validation, _ = splits
            return train_epoch(
                network, settings.batch_size, state, models.cell, models.selection, models.keys, train, validation
            )

        def evaluate(state: RunState, models: Models, splits: SplitArrays) -> Any:
            weight = draw_weight(models.cell, models.keys.weight)

            def one(variant: tuple[Any, Cell]) -> Float[Array, " combinations"]:
                selection, cell = variant
                params = jax.tree.map(lambda leaf: leaf[selection], state.best_params)
                wiring = inference_wiring(cell, weight)
                accuracy = accuracy_under(
                    network, params, splits[2], jnp.asarray(survival), wiring, self._chance, EVALUATION_BATCH
                )
                # A run that diverged before its first validation has no model to report on.
                return jnp.where(state.best_epoch[selection] > 0, accuracy, jnp.nan)

            return jax.lax.map(one, (models.variant_selection, models.variant))

        self._start, self._epoch, self._evaluate = start, epoch, evaluate
        self._compiled: dict[tuple[int, ...], tuple[Callable, Callable, Callable]] = {}

    def bytes_per_model(self) -> int:
        """What one model keeps between epochs, twice: XLA may copy it once."""
        data = tuple(Examples(s.x[:1], s.y[:1]) for s in (self._splits.train,) * 3)
        state = jax.eval_shape(self._start, run_keys(0, 0), data)
        return 2 * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))

    def run(self, models: Models, progress: Progress) -> Float[np.ndarray, "models variants combinations"]:
        """Trains one pass of models for all epochs and evaluates them."""
        count = len(models.selection)
        mesh = _mesh(count, _devices(self._settings))
        padded = -(-count // mesh.size) * mesh.size
        models = jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(padded), count - 1)], models)
        models = jax.device_put(models, NamedSharding(mesh, PartitionSpec("models")))
        splits = jax.device_put(
            (self._splits.train, self._splits.validation, self._splits.test), NamedSharding(mesh, PartitionSpec())
        )
        with progress.phase(f"compiling for {count} runs"):
            start, epoch, evaluate = self._compile(mesh, models, splits)
        state = start(models.keys, splits)
        for number in range(self._settings.epochs):
            state, metrics = epoch(state, models, splits)
            progress.epoch(
                number + 1,
                models=count,
                loss=float(np.mean(metrics.loss[:count])),
                validation_accuracy=np.asarray(metrics.validation_accuracy[:count]),
            )
        with progress.phase(f"evaluating {count} runs under every failure combination"):
            return np.asarray(evaluate(state, models, splits), np.float64)[:count]

    def _compile(self, mesh: Mesh, models: Models, splits: SplitArrays) -> tuple[Callable, Callable, Callable]:
        """Compiles ahead of the first call, once per stack shape, so that no epoch's time holds a compilation."""
        shape = models.selection.shape
        if shape not in self._compiled:
            stack = functools.partial(_over_models, mesh, self._settings.stack or _default_stack())
            start = jax.jit(stack(self._start, 1)).lower(models.keys, splits).compile()
            state = jax.eval_shape(jax.jit(stack(self._start, 1)), models.keys, splits)
            epoch = jax.jit(stack(self._epoch, 2), donate_argnums=0).lower(state, models, splits).compile()
            evaluate = jax.jit(stack(self._evaluate, 2)).lower(state, models, splits).compile()
            self._compiled[shape] = (start, epoch, evaluate)
        return self._compiled[shape]


def _over_models(mesh: Mesh, stack: int, function: Callable, mapped: int) -> Callable:
    """Maps `function` over a leading axis of its first `mapped` arguments: devices side by side, stacks in turn."""

    def on_device(*arguments: Any) -> Any:
        each = arguments[:mapped]
        call = lambda model: function(*model, *arguments[mapped:])  # noqa: E731
        # A batch size of one would still trace a vmap; without it every model runs the very same operations.
        return jax.lax.map(call, each, batch_size=stack if stack > 1 else None)

    sharded, whole = PartitionSpec("models"), PartitionSpec()
    wrapped = jax.shard_map(
        on_device, mesh=mesh, in_specs=(sharded,) * mapped + (whole,), out_specs=sharded, check_vma=False
    )
    wrapped.__name__ = function.__name__
    return wrapped


def _default_stack() -> int:
    """Models at once per device. On CPU one after another is as fast, needs less memory and repeats bit for bit."""
    return 1 if jax.default_backend() == "cpu" else 64


def _devices(settings: TrainingSettings) -> list[jax.Device]:
    return jax.local_devices()[: settings.devices]


def _mesh(models: int, devices: Sequence[jax.Device]) -> Mesh:
    """As many devices as the models keep busy evenly."""
    per_device = -(-models // len(devices))
    return Mesh(np.array(devices[: -(-models // per_device)]), ("models",))


def _passes(models: int, most: int) -> Iterator[range]:
    """Splits model numbers into passes of (nearly) equal size, of at most `most` models."""
    count = -(-models // most)
    size = -(-models // count)
    return (range(first, min(first + size, models)) for first in range(0, models, size))


def _assemble(chosen: Sequence[tuple[Training, int]], selections: int, variants: int, seed: int) -> Models:
    """Stacks models; those with fewer selections or variants than others repeat their first."""

    def fill(values: list, length: int) -> list:
        return values + values[:1] * (length - len(values))

    filled = [fill(training.variants, variants) for training, _ in chosen]
    return Models(
        cell=stack_cells([training.cell for training, _ in chosen]),
        selection=np.array([fill(training.selections, selections) for training, _ in chosen], np.float32),
        variant_selection=np.array([[selection for selection, _ in each] for each in filled], np.int32),
        variant=stack_cells([stack_cells([cell for _, cell in each]) for each in filled]),
        keys=jax.vmap(functools.partial(run_keys, seed))(np.array([run for _, run in chosen])),
    )
