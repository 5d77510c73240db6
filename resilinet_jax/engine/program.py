"""The compiled functions of a sweep: models stacked in one program, over devices."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from resilinet_jax.cells import Cell, draw_weight, inference_wiring
from resilinet_jax.datasets.feed import Feed
from resilinet_jax.datasets.splits import PADDING, SPLITS, Examples, Members, Standardisation
from resilinet_jax.engine.evaluation import BATCH, AnyTally, Errors, Tally, count_correct, empty_tally
from resilinet_jax.engine.plan import plan_applications
from resilinet_jax.engine.recalibration import count_recalibrated, recalibrate, representatives
from resilinet_jax.engine.training import (
    CROSS_ENTROPY,
    Loss,
    RunKeys,
    RunState,
    batch_order,
    chunk_keys,
    finish_epoch,
    initial_state,
    run_keys,
    squared_error,
    train_chunk,
    validate_chunk,
)
from resilinet_jax.errors import UserError
from resilinet_jax.failures.averages import usual_setting
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.network.forward import Network, Numbers, Statistics, Variables
from resilinet_jax.runtime.compilation import Traceable, lowered

MOST_RUNS = 10_000  # on one split: run number 20_003 is number 3 on split 2
MOST_CALLS = 32  # in which a chunk is tested: what fills up the last one is at most so small a part of it


class Selection(NamedTuple):
    """What makes an epoch of a run the one whose variables count.

    Attributes:
      survival: failure combinations under which it is validated, a mask per row in the order of `Graph.fallible`; None
        for the one in which nothing fails.
      probability: of each of them; the score is the average accuracy.
      last: whether the score is the number of the epoch instead, so that the last one counts.
    """

    survival: Float[np.ndarray, "combinations fallible"] | None = None
    probability: Float[np.ndarray, " combinations"] = np.ones(1)
    last: bool = False

    @classmethod
    def by(
        cls, select_by: str, combinations: Combinations, failure_settings: Mapping[str, Mapping[str, float]]
    ) -> Selection:
        """What `--select_by` says of a run's best epoch.

        Args:
          select_by: `no_failure`, `last`, or `average`: under the usual failure setting.
          combinations: that are evaluated.
          failure_settings: by name, failure probability by node name.
        """
        if select_by != "average":
            return cls(last=select_by == "last")
        failure = combinations.graph.node_values(failure_settings[usual_setting(failure_settings)])
        probability = combinations.probabilities(np.array(failure))
        possible = probability > 0  # what can't happen must not spoil an average by a logit that is not finite
        return cls(combinations.survival[possible], probability[possible])


NO_FAILURE = Selection()


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How every run of a sweep is trained.

    Attributes:
      runs: seeds per cell and split, numbered from `first_run`.
      epochs: passes over the training split.
      batch_size: examples per step.
      seed: of everything random in training.
      stack: how many models of a device train at once inside the compiled program; None for the backend's
        measured default (`python -m benchmarks.scaling`). The results do not depend on it but for rounding.
      devices: at most so many of the local devices, side by side; None for all. The results do not depend on it.
      runs_per_pass: how many models one compiled call trains, over all devices; None for what memory and speed
        allow (`pass_size.py`).
      compiler_options: of XLA, besides the backend's (`default_compiler_options`).
      rests_on: tells networks, augmentations and versions of the code apart, so that traced functions can be kept for
        the next start; None where that isn't known, and nothing is kept.
      first_run: number of the first seed.
      selection: of each run's best epoch.
      loss: of each example, as `resilinet_jax.engine.training.Loss`; None for cross-entropy, or for the squared error
        where numbers are predicted.
    """

    runs: int
    epochs: int
    batch_size: int
    seed: int
    stack: int | None = None
    devices: int | None = None
    runs_per_pass: int | None = None
    compiler_options: Mapping[str, bool | str] = dataclasses.field(default_factory=dict)
    rests_on: str | None = None
    first_run: int = 0
    selection: Selection = NO_FAILURE
    loss: Loss | None = None

    def run_numbers(self, splits: Iterable[int] = (0,)) -> list[int]:
        """The number of each run, which decides its split and all that is random in it: split by split.

        Args:
          splits: their numbers.
        """
        return [MOST_RUNS * split + self.first_run + run for split in splits for run in range(self.runs)]


class Models(NamedTuple):
    """The models of one pass, cells x runs, along a leading axis: what training and evaluation need of each."""

    cell: Cell
    variant: Cell  # leaves [models, variants, ...]: what the same variables are tested with
    keys: RunKeys  # leaves [models]
    order: Int[Numbers, "*models"]  # models of the same run number share their batches: which of the orders is theirs
    split: Int[Numbers, "*models"]  # its place among those of the feed


# Whose structure is kept with the traced functions.
for _kind in (
    *(Cell, Errors, Examples, Members, Models, RunKeys, RunState, Standardisation, Statistics, Tally, Variables),
    optax.ScaleByAdamState,
):
    export.register_namedtuple_serialization(_kind, serialized_name=f"resilinet_jax.{_kind.__name__}")


class Program:
    """The compiled functions of a sweep: one each to start, train, validate, finish an epoch and test.

    Others recalibrate and test with what comes of it, of cells that ask for it.

    Attributes:
      network: that is trained.
      feed: of its examples.
      settings: how it is trained.
      stack: how many models of a device train at once.
      plan: of its evaluation.
      validation_plan: of what selects a model's best epoch.
      devices: that train side by side.
      examples_per_epoch: that each model is trained on.
      tested: the members of a chunk of the test split, in the parts that a call takes.
    """

    def __init__(
        self,
        network: Network,
        feed: Feed,
        settings: TrainingSettings,
        combinations: Combinations,
    ):
        """Prepares the functions; nothing compiles yet.

        Args:
          network: to train.
          feed: of its examples.
          settings: how to train it.
          combinations: the failure combinations under which models are tested.

        Raises:
          UserError: for batches that hold more than a chunk of the training split, or numbers to predict whose scale is
            not known.
        """
        self.network, self.feed, self.settings = network, feed, settings
        self.stack = settings.stack or default_stack()
        self.devices = jax.local_devices()[: settings.devices]
        self.plan = plan_applications(network.graph, combinations.survival)
        compared = settings.selection.survival
        nothing_fails = np.ones((1, len(network.graph.fallible)))
        self.validation_plan = plan_applications(network.graph, nothing_fails if compared is None else compared)
        self._loss = settings.loss or (squared_error if self._predicts_numbers else CROSS_ENTROPY)
        self._combinations = combinations
        self._representatives = representatives(self.plan, combinations.survival)
        self._compiled: dict[tuple[str, tuple[int, ...], int], dict[str, Callable]] = {}
        self.members = {name: feed.members(name) for name in SPLITS}
        self.tested = _in_parts(self.members["test"])
        self._padded = self.members["train"].padded
        longest, fewest = self.members["train"].rows.shape[-1], min(self.members["train"].sizes.flat)
        if fewest < settings.batch_size:
            raise UserError(
                f"a batch must be of at most the {fewest:,} examples of a chunk, got {settings.batch_size:,}"
            )
        if self._predicts_numbers and any(members.targets is None for members in self.members.values()):
            raise UserError("the feed's y are numbers, so its members must have targets, what standardises them")
        self.examples_per_epoch = feed.chunks * (longest // settings.batch_size * settings.batch_size)

    # What is compiled, for one model.

    def _start(self, keys: RunKeys) -> RunState:
        spec = self.feed.spec("train").x
        return initial_state(self.network, keys, jnp.zeros((1, *spec.shape[1:]), spec.dtype))

    def _order(
        self, chunks_key: Key[Array, ""], split: Int[Array, ""], number: Int[Array, ""], members: Members
    ) -> Int[Array, "steps batch"]:
        return batch_order(chunks_key, number, members.of(split).rows, self.settings.batch_size, self._padded)

    def train(
        self, state: RunState, models: Models, chunk: Examples, orders: Int[Array, "runs steps batch"], members: Members
    ) -> tuple[RunState, Float[Array, ""]]:
        """Trains one model on one chunk of examples.

        Args:
          state: of the model, before the chunk.
          models: the model alone, so without the leading axis.
          chunk: of the training split.
          orders: numbers of the chunk's examples, for each run and each batch; the model's own are at `models.order`.
          members: of the training split.

        Returns:
          The model's state after the chunk, and the mean loss over its steps.
        """
        order, own = orders[models.order], members.of(models.split)
        run = state, models.cell, models.keys
        how = own, self._padded, self._loss
        return train_chunk(self.network, self.feed.augment, *run, chunk, order, *how)

    def _validate(
        self,
        tally: AnyTally,
        state: RunState,
        models: Models,
        chunk: Examples,
        number: Int[Array, ""],
        members: Members,
    ) -> AnyTally:
        how = self.network, self.validation_plan, self.settings.batch_size
        own = members.of(models.split)
        return validate_chunk(*how, state, models.cell, models.keys, tally, chunk, number, own)

    def test(self, tally: AnyTally, state: RunState, models: Models, chunk: Examples, members: Members) -> AnyTally:
        """Tests one model on a chunk under every failure combination, in each of its variants.

        Args:
          tally: of the chunks before.
          state: of the model; its best variables count.
          models: the model alone, so without the leading axis.
          chunk: of the test split.
          members: a part of the test split's.
        """
        weight, own = draw_weight(models.cell, models.keys.weight), members.of(models.split)

        def one(variant: tuple[Cell, AnyTally]) -> AnyTally:
            cell, before = variant
            wiring = inference_wiring(cell, weight)
            return count_correct(self.network, state.best, wiring, self.plan, before, chunk, self.stack, own)

        return jax.lax.map(one, (models.variant, tally))

    def _fresh(self, models: Models) -> dict[str, Statistics]:
        """Statistics as before the first step, of each variant and answer."""
        every = *models.variant.recalibrated.shape, self.plan.answers
        known = self._start(models.keys).variables.statistics
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*every, *leaf.shape)), known)

    def _recalibrate(
        self,
        statistics: dict[str, Statistics],
        state: RunState,
        models: Models,
        chunk: Examples,
        number: Int[Array, ""],
        orders: Int[Array, "runs steps batch"],
        members: Members,
    ) -> dict[str, Statistics]:
        weight, own = draw_weight(models.cell, models.keys.weight), members.of(models.split)
        *_, key = chunk_keys(models.keys.chunks, number)
        data = key, chunk, orders[models.order], own, self._padded

        def one(variant: tuple[Cell, dict[str, Statistics]]) -> dict[str, Statistics]:
            cell, before = variant

            def again(known: dict[str, Statistics]) -> dict[str, Statistics]:
                wiring, masks = inference_wiring(cell, weight), jnp.asarray(self._representatives)
                return recalibrate(self.network, state.best.params, known, wiring, masks, *data)

            return jax.lax.cond(cell.recalibrated > 0, again, lambda known: known, before)

        return jax.lax.map(one, (models.variant, statistics))

    def _test_recalibrated(
        self,
        tally: AnyTally,
        statistics: dict[str, Statistics],
        state: RunState,
        models: Models,
        chunk: Examples,
        members: Members,
    ) -> AnyTally:
        weight, own = draw_weight(models.cell, models.keys.weight), members.of(models.split)

        def one(variant: tuple[Cell, dict[str, Statistics], AnyTally]) -> AnyTally:
            cell, known, before = variant

            def count(tally: AnyTally) -> AnyTally:
                wiring, masks = inference_wiring(cell, weight), jnp.asarray(self._representatives)
                how = self.network, state.best.params, known, wiring, masks
                return count_recalibrated(*how, tally, chunk, own, self.settings.batch_size)

            return jax.lax.cond(cell.recalibrated > 0, count, lambda tally: tally, before)

        return jax.lax.map(one, (models.variant, statistics, tally))

    # What surrounds it.

    def empty_tally(self, *shape: int) -> AnyTally:
        """Nothing counted yet of this feed's labels or targets; the last axis of the shape is the answers'."""
        return empty_tally(*shape, classes=self.feed.classes, numbers=self._predicts_numbers)

    @property
    def _predicts_numbers(self) -> bool:
        return bool(np.issubdtype(self.feed.spec("train").y.dtype, np.floating))

    @property
    def abreast(self) -> int:
        """How many models train at the same moment."""
        return len(self.devices) * self.stack

    @property
    def steps_per_epoch(self) -> int:
        """Number of training steps that each model takes in an epoch."""
        return self.examples_per_epoch // self.settings.batch_size

    @functools.cached_property
    def state_shapes(self) -> RunState:
        """Shapes and types of what a model keeps."""
        return jax.eval_shape(self._start, run_keys(0, 0))

    def options(self) -> dict[str, bool | str]:
        """Options of XLA with which all functions are compiled."""
        return default_compiler_options() | dict(self.settings.compiler_options)

    def place(self, models: Models) -> tuple[Models, Mesh]:
        """Models on as many devices as they keep busy; the last is repeated until all devices have equally many."""
        count = len(models.order)
        mesh = _mesh(count, self.devices)
        padded = -(-count // mesh.size) * mesh.size
        models = jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(padded), count - 1)], models)
        return jax.device_put(models, shardings(mesh).sharded), mesh

    def orders_of(self, models: Models, mesh: Mesh) -> tuple[Key[Array, " orders"], Int[Array, " orders"]]:
        """The key of each order of batches that the models have, and its split, spread over the devices."""
        _, first = np.unique(np.asarray(models.order), return_index=True)
        padded = np.resize(first, -(-len(first) // mesh.size) * mesh.size)
        each = models.keys.chunks[padded], models.split[padded]
        return jax.device_put(each, shardings(mesh).sharded)

    def compile(self, mesh: Mesh, models: Models) -> dict[str, Callable]:
        """Compiles ahead of the first call, once per stack shape, so that no epoch's time holds a compilation."""
        return self._compile("train and test", self.traceables, mesh, models)

    def compile_recalibration(self, mesh: Mesh, models: Models) -> dict[str, Callable]:
        """Compiles what only a pass with recalibrated cells calls, once per stack shape."""
        return self._compile("recalibrate", self._recalibrating, mesh, models)

    def _compile(self, purpose: str, functions: Callable, mesh: Mesh, models: Models) -> dict[str, Callable]:
        orders = self.orders_of(models, mesh)
        shape = (purpose, models.variant.skip_units.shape, len(orders[0]))
        if shape not in self._compiled:
            traceables = functools.partial(functions, mesh, models, orders)
            # Each is compiled, or read from JAX's cache, while Python traces the next ones.
            with _without_garbage_collection(), concurrent.futures.ThreadPoolExecutor(2) as pool:
                coming = {
                    name: pool.submit(each.compile, self.options())
                    for name, each in lowered(traceables, mesh, self._rests_on(purpose, models, orders))
                }
                self._compiled[shape] = {name: each.result() for name, each in coming.items()}
        return self._compiled[shape]

    def traceables(self, mesh: Mesh, models: Models, orders: tuple[Any, Any]) -> dict[str, Traceable]:
        """The functions by name, before tracing.

        Args:
          mesh: of the devices that they run on, which need not be there.
          models: of a pass, or their shapes.
          orders: as `orders_of` gives them, or their shapes.
        """
        padded, variants = models.variant.skip_units.shape
        sharded, replicated = shardings(mesh)

        def stacked(function: Callable, mapped: int, shared: int, stack: int = 1) -> Callable:
            return over_models(mesh, stack, function, mapped, shared)

        start = stacked(self._start, 1, 0)
        state = shapes_on(jax.eval_shape(start, models.keys), sharded)
        validation = shapes_on(self.empty_tally(padded, self.validation_plan.answers), sharded)
        test = shapes_on(self.empty_tally(padded, variants, self.plan.answers), sharded)
        score = jax.ShapeDtypeStruct((padded,), np.float32, sharding=sharded)
        chunk = {name: shapes_on(self.feed.spec(name), replicated) for name in SPLITS}
        members = shapes_on(self.members, replicated)
        order, number = stacked(self._order, 2, 2), jax.ShapeDtypeStruct((), np.int32, sharding=replicated)
        drawn = shapes_on(jax.eval_shape(order, *orders, number, members["train"]), replicated)
        train = stacked(self.train, 2, 3, self.stack)
        validate, finish = stacked(self._validate, 3, 3, self.stack), stacked(finish_epoch, 2, 0)
        validating = validation, state, models, chunk["validation"], number, members["validation"]
        testing = test, state, models, chunk["test"], shapes_on(self.tested[0], replicated)
        return {
            "order": Traceable(order, (*orders, number, members["train"])),
            "start": Traceable(start, (models.keys,)),
            "train": Traceable(train, (state, models, chunk["train"], drawn, members["train"]), donated=(0,)),
            "validate": Traceable(validate, validating),
            "finish": Traceable(finish, (state, score), donated=(0,)),
            "test": Traceable(stacked(self.test, 3, 2, self.stack), testing),
        }

    def _recalibrating(self, mesh: Mesh, models: Models, orders: tuple[Array, Array]) -> dict[str, Traceable]:
        sharded, replicated = shardings(mesh)
        members, part = shapes_on(self.members["train"], replicated), shapes_on(self.tested[0], replicated)
        number = jax.ShapeDtypeStruct((), np.int32, sharding=replicated)
        order = jax.eval_shape(over_models(mesh, 1, self._order, 2, 2), *orders, number, members)
        state = shapes_on(jax.eval_shape(over_models(mesh, 1, self._start, 1, 0), models.keys), sharded)
        fresh = over_models(mesh, 1, self._fresh, 1, 0)
        statistics = shapes_on(jax.eval_shape(fresh, models), sharded)
        tally = shapes_on(self.empty_tally(*models.variant.skip_units.shape, self.plan.answers), sharded)
        train, test = (shapes_on(self.feed.spec(name), replicated) for name in ("train", "test"))
        again = over_models(mesh, self.stack, self._recalibrate, 3, 4)
        data = train, number, shapes_on(order, replicated), members
        tested = over_models(mesh, self.stack, self._test_recalibrated, 4, 2)
        return {
            "fresh": Traceable(fresh, (models,)),
            "recalibrate": Traceable(again, (statistics, state, models, *data), donated=(0,)),
            "test": Traceable(tested, (tally, statistics, state, models, test, part)),
        }

    def _rests_on(self, purpose: str, models: Models, orders: tuple[Array, Array]) -> object:
        """All that the traced functions depend on; None if that isn't known."""
        if self.settings.rests_on is None or self.settings.loss is not None:
            return None
        compared = self.settings.selection.survival
        plans = [
            None if survival is None else hashlib.sha256(survival.tobytes()).hexdigest()
            for survival in (self._combinations.survival, compared)
        ]
        given = (models, orders, self.members, self.tested[0], [self.feed.spec(name) for name in SPLITS])
        shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(given)]
        how = self.settings.batch_size, self.stack, self.network.learns_weights, self._padded
        return self.settings.rests_on, purpose, plans, shapes, how, self.feed.augment is None


def _in_parts(members: Members) -> list[Members]:
    """Members of equally many whole batches, so that somebody hears how far a long evaluation has come."""
    splits, longest = members.rows.shape
    size = min(longest, -(-longest // (BATCH * MOST_CALLS)) * BATCH)
    rows = np.concatenate([members.rows, np.full((splits, -longest % size), PADDING, np.int32)], 1)
    return [members._replace(rows=rows[..., first : first + size]) for first in range(0, longest, size)]


class Shardings(NamedTuple):
    """Where arrays lie that a mesh of devices works on.

    Attributes:
      sharded: their leading axis, of models, is spread over the devices.
      replicated: every device has the whole.
    """

    sharded: NamedSharding
    replicated: NamedSharding


def shardings(mesh: Mesh) -> Shardings:
    """For the devices along a mesh's one axis, `models`."""
    return Shardings(NamedSharding(mesh, PartitionSpec("models")), NamedSharding(mesh, PartitionSpec()))


def shapes_on(tree: Any, sharding: NamedSharding) -> Any:
    """Shapes and types of a tree's arrays, on these devices."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keeps the garbage collector off meanwhile: looking through all that tracing makes takes a sixth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def over_models(mesh: Mesh, stack: int, function: Callable, mapped: int, shared: int) -> Callable:
    """Maps a function of one model over the leading axis of many: on all devices side by side, on each in stacks.

    Args:
      mesh: devices along its one axis, `models`.
      stack: how many models of a device run at once, from 1 on; the stacks of a device run one after another.
      function: of one model, with `mapped` + `shared` positional arguments; returns a tree of arrays.
      mapped: how many of the first arguments have a leading axis of models in every leaf.
      shared: how many arguments come after them, which are the same for all models.

    Returns:
      The function of all models, to be compiled. The leading axis of what it takes and of what it returns must be a
      multiple of the number of devices.
    """

    def on_device(*arguments: Any) -> Any:
        each = arguments[:mapped]
        call = lambda model: function(*model, *arguments[mapped:])  # noqa: E731
        # A batch size of one would still trace a vmap; without it every model runs the very same operations.
        return jax.lax.map(call, each, batch_size=stack if stack > 1 else None)

    sharded, replicated = (each.spec for each in shardings(mesh))
    wrapped = jax.shard_map(
        on_device, mesh=mesh, in_specs=(sharded,) * mapped + (replicated,) * shared, out_specs=sharded, check_vma=False
    )
    wrapped.__name__ = function.__name__.lstrip("_")
    return wrapped


def default_stack() -> int:
    """Models at once per device. On CPU one after another is as fast, needs less memory and repeats bit for bit."""
    return 1 if jax.default_backend() == "cpu" else 64


def default_compiler_options() -> dict[str, bool | str]:
    """Options of XLA for the default backend; none but on CPU.

    There its kernel library gets single matrix products, and no reductions; vectors are the longest. Training is
    faster without reductions in the library: by 7 % for 32 units, by 5 % for MobileNet at alpha 0.25. Vectors of 512
    bits where there are any, instead of 256, add 2 % for 32 units, 6 % for MobileNet at alpha 0.25 and 5 % at 0.75.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
        "xla_cpu_prefer_vector_width": "512",
    }


def _mesh(models: int, devices: Sequence[jax.Device]) -> Mesh:
    """Mesh over the devices that this many models keep busy evenly."""
    per_device = -(-models // len(devices))
    return Mesh(np.array(devices[: -(-models // per_device)]), ("models",))
