"""Runs many cells: what to train once, passes that fit memory, devices. The only place where training meets I/O."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from resilinet_jax import hosts
from resilinet_jax.cells import Cell, Numbers, Wiring, draw_weight, inference_wiring, stack_cells
from resilinet_jax.combinations import Combinations, all_combinations
from resilinet_jax.datasets.splits import Examples
from resilinet_jax.errors import UserError
from resilinet_jax.evaluation import Tally, accuracy_of, count_correct, empty_tally
from resilinet_jax.feed import Feed
from resilinet_jax.network import Network
from resilinet_jax.plan import plan_applications, without_failures
from resilinet_jax.progress import Progress
from resilinet_jax.training import (
    RunKeys,
    RunState,
    batch_order,
    finish_epoch,
    initial_state,
    run_keys,
    train_chunk,
    validate_chunk,
)

PASS_BYTES = 4 * 2**30  # memory that the parameters of one pass may take
PASS_FLOPS = 2e13  # of one epoch of a pass: a few minutes on a laptop between two signs of life


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
      runs_per_pass: how many models one compiled call trains, over all devices; None for what memory allows.
      compiler_options: of XLA, besides the backend's (`default_compiler_options`).
    """

    runs: int
    epochs: int
    batch_size: int
    seed: int
    stack: int | None = None
    devices: int | None = None
    runs_per_pass: int | None = None
    compiler_options: Mapping[str, bool | str] = dataclasses.field(default_factory=dict)


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


class Models(NamedTuple):
    """The models of one pass, cells x runs, along a leading axis: what training and evaluation need of each."""

    cell: Cell
    selection: Float[Numbers, "*models selections"]
    variant_selection: Int[Numbers, "*models variants"]
    variant: Cell  # leaves [models, variants, ...]
    keys: RunKeys  # leaves [models]
    order: Int[Numbers, "*models"]  # models of the same run number share their batches: which of the orders is theirs


def run_cells(
    network: Network,
    feed: Feed,
    cells: Mapping[str, Cell],
    settings: TrainingSettings,
    progress: Progress,
    combinations: Combinations | None = None,
) -> dict[str, Float[np.ndarray, "runs combinations"]]:
    """Trains and evaluates every cell, each `settings.runs` times.

    Returns:
      By cell name, the test accuracy of each run under each of `combinations`, which are all if None is given.
    """
    combinations = combinations or all_combinations(network.graph)
    trainings = plan_trainings(cells)
    # Model number m is run m % runs of training m // runs.
    models = [(training, run) for training in trainings for run in range(settings.runs)]
    selections = max(len(training.selections) for training in trainings)
    variants = max(len(training.variants) for training in trainings)
    program = Program(network, feed, settings, selections, combinations)
    share = hosts.own_share(len(models))
    progress.start(models=len(share), epochs=settings.epochs, examples=program.examples_per_epoch)
    own = np.empty((len(share), variants, len(combinations.survival)))
    try:
        waiting = collections.deque(_passes(range(len(share)), settings.runs_per_pass or program.models_per_pass()))
        while waiting:
            members = waiting.popleft()
            batch = assemble([models[share[m]] for m in members], selections, variants, settings.seed)
            try:
                own[members.start : members.stop] = program.run(batch, progress)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                if len(members) == 1:
                    raise UserError("not even one run fits memory; take a smaller network or --batch_size") from None
                progress.too_many(len(members))
                waiting.extendleft(reversed(list(_passes(members, -(-len(members) // 2)))))
    finally:
        progress.finish()
    measured = hosts.gather(own, len(models))
    accuracy = {}
    for t, training in enumerate(trainings):
        of_training = measured[t * settings.runs : (t + 1) * settings.runs]
        for v, names in enumerate(training.names):
            accuracy.update(dict.fromkeys(names, of_training[:, v]))
    return {name: accuracy[name] for name in cells}


class Program:
    """The compiled functions of a sweep: one each to start, train, validate, finish an epoch and test."""

    def __init__(
        self,
        network: Network,
        feed: Feed,
        settings: TrainingSettings,
        selections: int,
        combinations: Combinations,
    ):
        """Prepares the functions; nothing compiles before `run`."""
        self._network, self._feed, self._settings, self._selections = network, feed, settings, selections
        self._stack = settings.stack or default_stack()
        self._devices = jax.local_devices()[: settings.devices]
        self._plan = plan_applications(network.graph, combinations.survival)
        self._compiled: dict[tuple[int, int], dict[str, Callable]] = {}
        chunk = feed.spec("train").y.shape[0]
        self.examples_per_epoch = feed.chunks * (chunk // settings.batch_size * settings.batch_size)

    # What is compiled, for one model.

    def _start(self, keys: RunKeys) -> RunState:
        spec = self._feed.spec("train").x
        return initial_state(self._network, keys, jnp.zeros((1, *spec.shape[1:]), spec.dtype), self._selections)

    def _order(self, chunks_key: Key[Array, ""], number: Int[Array, ""]) -> Int[Array, "steps batch"]:
        return batch_order(chunks_key, number, self._feed.spec("train").y.shape[0], self._settings.batch_size)

    def _train(
        self, state: RunState, models: Models, chunk: Examples, orders: Int[Array, "runs steps batch"]
    ) -> tuple[RunState, Float[Array, ""]]:
        order = orders[models.order]
        return train_chunk(self._network, self._feed.augment, state, models.cell, models.keys, chunk, order)

    def _validate(self, tally: Tally, state: RunState, models: Models, chunk: Examples) -> Tally:
        return validate_chunk(self._network, state, models.cell, models.selection, models.keys, tally, chunk)

    def _test(self, tally: Tally, state: RunState, models: Models, chunk: Examples) -> Tally:
        weight = draw_weight(models.cell, models.keys.weight)

        def one(variant: tuple[Array, Cell, Tally]) -> Tally:
            selection, cell, before = variant
            best = jax.tree.map(lambda leaf: leaf[selection], state.best)
            return count_correct(
                self._network, best, inference_wiring(cell, weight), self._plan, before, chunk, self._stack
            )

        return jax.lax.map(one, (models.variant_selection, models.variant, tally))

    # What a pass may hold.

    def models_per_pass(self) -> int:
        """As many as fit memory and give a sign of life every few minutes; enough to keep every device busy."""
        state = jax.eval_shape(self._start, run_keys(0, 0))
        # What one model keeps between chunks, twice: XLA may copy it once.
        size = 2 * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        fit = min(PASS_BYTES // size, int(PASS_FLOPS / (self.examples_per_epoch * self._flops(state))))
        return max(len(self._devices) * self._stack, fit)

    def _flops(self, state: RunState) -> float:
        """Of training on one example: a forward pass and a backward one of twice the size."""
        edges, nodes = len(self._network.graph.hyperconnections), len(self._network.graph.fallible)
        x = self._feed.spec("train").x
        arguments = (state.variables, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))
        masks = (jnp.ones(nodes), Wiring(*(jnp.ones(edges) for _ in Wiring._fields)))
        analysis: Any = jax.jit(self._network.apply).lower(*arguments, *masks).cost_analysis()
        return 3 * max(1.0, analysis["flops"])

    def place(self, models: Models) -> tuple[Models, Mesh]:
        """Models on as many devices as they keep busy; the last is repeated until all devices have equally many."""
        count = len(models.selection)
        mesh = _mesh(count, self._devices)
        padded = -(-count // mesh.size) * mesh.size
        models = jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(padded), count - 1)], models)
        return jax.device_put(models, NamedSharding(mesh, PartitionSpec("models"))), mesh

    def run(self, models: Models, progress: Progress) -> Float[np.ndarray, "models variants combinations"]:
        """Trains one pass of models for all epochs and evaluates them."""
        count = len(models.selection)
        models, mesh = self.place(models)
        padded = len(models.selection)
        orders_keys = self.orders_keys(models, mesh)
        split, whole = NamedSharding(mesh, PartitionSpec("models")), NamedSharding(mesh, PartitionSpec())
        with progress.phase(f"compiling for {count} runs"):
            call = self.compile(mesh, models)
        state = call["start"](models.keys)
        chunks, number_of_chunk = self._feed.train(0, whole), 0
        for number in range(1, self._settings.epochs + 1):
            loss = 0.0
            for done in range(1, self._feed.chunks + 1):
                orders = call["order"](orders_keys, jax.device_put(np.int32(number_of_chunk), whole))
                state, losses = call["train"](state, models, next(chunks), jax.device_put(orders, whole))
                number_of_chunk += 1
                loss += float(np.mean(losses[:count])) / self._feed.chunks  # waits: at most one chunk is under way
                if done < self._feed.chunks:
                    progress.part(number, done / self._feed.chunks, models=count, loss=float(np.mean(losses[:count])))
            tally = jax.device_put(empty_tally(padded, self._selections, 1), split)
            for chunk in self._feed.held_out("validation", whole):
                tally = call["validate"](tally, state, models, chunk)
            nothing_failed = without_failures(self._network.graph)
            accuracy = accuracy_of(tally, nothing_failed, self._feed.sizes["validation"], chance=0.0)[..., 0]
            state = call["finish"](state, jax.device_put(accuracy.astype(np.float32), split))
            progress.epoch(number, models=count, loss=loss, validation_accuracy=accuracy[:count])
        with progress.phase(f"evaluating {count} runs under every failure combination"):
            tally = jax.device_put(empty_tally(*models.variant_selection.shape, self._plan.answers), split)
            for chunk in self._feed.held_out("test", whole):
                tally = call["test"](tally, state, models, chunk)
            accuracy = accuracy_of(tally, self._plan, self._feed.sizes["test"], self._feed.chance())
        # A run that diverged before its first validation has no model to report on.
        best_epoch = np.take_along_axis(np.asarray(state.best_epoch), np.asarray(models.variant_selection), 1)
        return np.where(best_epoch[..., None] > 0, accuracy, np.nan)[:count]

    def orders_keys(self, models: Models, mesh: Mesh) -> Key[Array, " orders"]:
        """The key of each order of batches that the models have, spread over the devices."""
        _, first = np.unique(np.asarray(models.order), return_index=True)
        padded = np.resize(first, -(-len(first) // mesh.size) * mesh.size)
        return jax.device_put(models.keys.chunks[padded], NamedSharding(mesh, PartitionSpec("models")))

    def compile(self, mesh: Mesh, models: Models) -> dict[str, Callable]:
        """Compiles ahead of the first call, once per stack shape, so that no epoch's time holds a compilation."""
        padded, variants = models.variant_selection.shape
        orders_keys = self.orders_keys(models, mesh)
        shape = (padded, len(orders_keys))
        if shape not in self._compiled:
            whole = NamedSharding(mesh, PartitionSpec())

            def spec(split: str) -> Examples:
                return jax.tree.map(
                    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), self._feed.spec(split)
                )

            def stacked(function: Callable, mapped: int, shared: int, stack: int = 1, **kwargs: Any) -> Any:
                return jax.jit(over_models(mesh, stack, function, mapped, shared), **kwargs)

            start = stacked(self._start, 1, 0)
            state = jax.eval_shape(start, models.keys)
            validation = empty_tally(padded, self._selections, 1)
            test = empty_tally(padded, variants, self._plan.answers)
            order, number = stacked(self._order, 1, 1), jax.ShapeDtypeStruct((), np.int32, sharding=whole)
            orders = jax.eval_shape(order, orders_keys, number)
            orders = jax.ShapeDtypeStruct(orders.shape, orders.dtype, sharding=whole)
            lowered = {
                "order": order.lower(orders_keys, number),
                "start": start.lower(models.keys),
                "train": stacked(self._train, 2, 2, self._stack, donate_argnums=0).lower(
                    state, models, spec("train"), orders
                ),
                "validate": stacked(self._validate, 3, 1, self._stack).lower(
                    validation, state, models, spec("validation")
                ),
                "finish": stacked(finish_epoch, 2, 0, donate_argnums=0).lower(state, validation.correct[..., 0] * 1.0),
                "test": stacked(self._test, 3, 1, self._stack).lower(test, state, models, spec("test")),
            }
            options = default_compiler_options() | dict(self._settings.compiler_options)
            self._compiled[shape] = {name: each.compile(options) for name, each in lowered.items()}
        return self._compiled[shape]


def over_models(mesh: Mesh, stack: int, function: Callable, mapped: int, shared: int) -> Callable:
    """Maps `function` over a leading axis of its first `mapped` arguments: devices side by side, stacks in turn.

    The `shared` arguments after them are the same for all models.
    """

    def on_device(*arguments: Any) -> Any:
        each = arguments[:mapped]
        call = lambda model: function(*model, *arguments[mapped:])  # noqa: E731
        # A batch size of one would still trace a vmap; without it every model runs the very same operations.
        return jax.lax.map(call, each, batch_size=stack if stack > 1 else None)

    sharded, whole = PartitionSpec("models"), PartitionSpec()
    wrapped = jax.shard_map(
        on_device, mesh=mesh, in_specs=(sharded,) * mapped + (whole,) * shared, out_specs=sharded, check_vma=False
    )
    wrapped.__name__ = function.__name__.lstrip("_")
    return wrapped


def default_stack() -> int:
    """Models at once per device. On CPU one after another is as fast, needs less memory and repeats bit for bit."""
    return 1 if jax.default_backend() == "cpu" else 64


def default_compiler_options() -> dict[str, bool | str]:
    """Of XLA. On CPU its kernel library gets single matrix products, and no reductions.

    Training is faster without those: by 7 % for 32 units, by 5 % for MobileNet at alpha 0.25.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def _mesh(models: int, devices: Sequence[jax.Device]) -> Mesh:
    """As many devices as the models keep busy evenly."""
    per_device = -(-models // len(devices))
    return Mesh(np.array(devices[: -(-models // per_device)]), ("models",))


def _passes(models: range, most: int) -> Iterator[range]:
    """Splits model numbers into passes of (nearly) equal size, of at most `most` models."""
    count = max(1, -(-len(models) // most))
    size = max(1, -(-len(models) // count))
    return (models[first : first + size] for first in range(0, len(models), size))


def assemble(chosen: Sequence[tuple[Training, int]], selections: int, variants: int, seed: int) -> Models:
    """Stacks models; those with fewer selections or variants than others repeat their first."""

    def fill(values: list, length: int) -> list:
        return values + values[:1] * (length - len(values))

    filled = [fill(training.variants, variants) for training, _ in chosen]
    _, order = np.unique([run for _, run in chosen], return_inverse=True)
    return Models(
        order=order.astype(np.int32),
        cell=stack_cells([training.cell for training, _ in chosen]),
        selection=np.array([fill(training.selections, selections) for training, _ in chosen], np.float32),
        variant_selection=np.array([[selection for selection, _ in each] for each in filled], np.int32),
        variant=stack_cells([stack_cells([cell for _, cell in each]) for each in filled]),
        keys=jax.vmap(functools.partial(run_keys, seed))(np.array([run for _, run in chosen])),
    )
