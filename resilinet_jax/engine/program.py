"""The compiled functions of a sweep: models stacked in one program, over devices."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from resilinet_jax.datasets.splits import SPLITS, Examples
from resilinet_jax.engine.evaluation import Tally, count_correct, empty_tally
from resilinet_jax.engine.plan import plan_applications
from resilinet_jax.engine.training import (
    RunKeys,
    RunState,
    batch_order,
    finish_epoch,
    initial_state,
    run_keys,
    train_chunk,
    validate_chunk,
)
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.network.forward import Network, Numbers, Statistics, Variables
from resilinet_jax.runtime.compilation import Traceable, lowered


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How every run of a sweep is trained.

    Attributes:
      runs: seeds per cell, numbered from `first_run`.
      epochs: passes over the training split.
      batch_size: examples per step.
      seed: of everything random in training.
      stack: how many models of a device train at once inside the compiled program; None for the backend's
        measured default (`python -m benchmarks.stacking`). The results do not depend on it but for rounding.
      devices: at most so many of the local devices, side by side; None for all. The results do not depend on it.
      runs_per_pass: how many models one compiled call trains, over all devices; None for what memory and speed
        allow (`pass_size.py`).
      compiler_options: of XLA, besides the backend's (`default_compiler_options`).
      rests_on: tells networks, augmentations and versions of the code apart, so that traced functions can be kept for
        the next start; None where that isn't known, and nothing is kept.
      first_run: number of the first seed.
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

    @property
    def run_numbers(self) -> range:
        """The number of each seed, which decides all that is random in a run."""
        return range(self.first_run, self.first_run + self.runs)


class Models(NamedTuple):
    """The models of one pass, cells x runs, along a leading axis: what training and evaluation need of each."""

    cell: Cell
    selection: Float[Numbers, "*models selections"]
    variant_selection: Int[Numbers, "*models variants"]
    variant: Cell  # leaves [models, variants, ...]
    keys: RunKeys  # leaves [models]
    order: Int[Numbers, "*models"]  # models of the same run number share their batches: which of the orders is theirs


# Whose structure is kept with the traced functions.
for _kind in (Cell, Examples, Models, RunKeys, RunState, Statistics, Tally, Variables, optax.ScaleByAdamState):
    export.register_namedtuple_serialization(_kind, serialized_name=f"resilinet_jax.{_kind.__name__}")


class Program:
    """The compiled functions of a sweep: one each to start, train, validate, finish an epoch and test.

    Attributes:
      network: that is trained.
      feed: of its examples.
      settings: how it is trained.
      selections: inference activities for each of which a model's best epoch is kept.
      stack: how many models of a device train at once.
      plan: of its evaluation.
      devices: that train side by side.
      examples_per_epoch: that each model is trained on.
    """

    def __init__(
        self,
        network: Network,
        feed: Feed,
        settings: TrainingSettings,
        selections: int,
        combinations: Combinations,
    ):
        """Prepares the functions; nothing compiles yet.

        Args:
          network: to train.
          feed: of its examples.
          settings: how to train it.
          selections: for how many inference activities a model's best epoch is kept, from 1 on.
          combinations: the failure combinations under which models are tested.
        """
        self.network, self.feed, self.settings, self.selections = network, feed, settings, selections
        self.stack = settings.stack or default_stack()
        self.devices = jax.local_devices()[: settings.devices]
        self.plan = plan_applications(network.graph, combinations.survival)
        self._combinations = combinations
        self._compiled: dict[tuple[tuple[int, ...], int], dict[str, Callable]] = {}
        chunk = feed.spec("train").y.shape[0]
        self.examples_per_epoch = feed.chunks * (chunk // settings.batch_size * settings.batch_size)

    # What is compiled, for one model.

    def _start(self, keys: RunKeys) -> RunState:
        spec = self.feed.spec("train").x
        return initial_state(self.network, keys, jnp.zeros((1, *spec.shape[1:]), spec.dtype), self.selections)

    def _order(self, chunks_key: Key[Array, ""], number: Int[Array, ""]) -> Int[Array, "steps batch"]:
        return batch_order(chunks_key, number, self.feed.spec("train").y.shape[0], self.settings.batch_size)

    def train(
        self, state: RunState, models: Models, chunk: Examples, orders: Int[Array, "runs steps batch"]
    ) -> tuple[RunState, Float[Array, ""]]:
        """Trains one model on one chunk of examples.

        Args:
          state: of the model, before the chunk.
          models: the model alone, so without the leading axis.
          chunk: of the training split.
          orders: indices into the chunk's examples, for each run and each batch; the model's own are at `models.order`.

        Returns:
          The model's state after the chunk, and the mean loss over its steps.
        """
        order = orders[models.order]
        return train_chunk(self.network, self.feed.augment, state, models.cell, models.keys, chunk, order)

    def _validate(self, tally: Tally, state: RunState, models: Models, chunk: Examples) -> Tally:
        return validate_chunk(self.network, state, models.cell, models.selection, models.keys, tally, chunk)

    def _test(self, tally: Tally, state: RunState, models: Models, chunk: Examples) -> Tally:
        weight = draw_weight(models.cell, models.keys.weight)

        def one(variant: tuple[Array, Cell, Tally]) -> Tally:
            selection, cell, before = variant
            best = jax.tree.map(lambda leaf: leaf[selection], state.best)
            return count_correct(
                self.network, best, inference_wiring(cell, weight), self.plan, before, chunk, self.stack
            )

        return jax.lax.map(one, (models.variant_selection, models.variant, tally))

    # What surrounds it.

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
        count = len(models.selection)
        mesh = _mesh(count, self.devices)
        padded = -(-count // mesh.size) * mesh.size
        models = jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(padded), count - 1)], models)
        return jax.device_put(models, NamedSharding(mesh, PartitionSpec("models"))), mesh

    def orders_keys(self, models: Models, mesh: Mesh) -> Key[Array, " orders"]:
        """The key of each order of batches that the models have, spread over the devices."""
        _, first = np.unique(np.asarray(models.order), return_index=True)
        padded = np.resize(first, -(-len(first) // mesh.size) * mesh.size)
        return jax.device_put(models.keys.chunks[padded], NamedSharding(mesh, PartitionSpec("models")))

    def compile(self, mesh: Mesh, models: Models) -> dict[str, Callable]:
        """Compiles ahead of the first call, once per stack shape, so that no epoch's time holds a compilation."""
        orders_keys = self.orders_keys(models, mesh)
        shape = (models.variant_selection.shape, len(orders_keys))
        if shape not in self._compiled:
            traceables = functools.partial(self._traceables, mesh, models, orders_keys)
            # Each is compiled, or read from JAX's cache, while Python traces the next ones.
            with _without_garbage_collection(), concurrent.futures.ThreadPoolExecutor(2) as pool:
                coming = {
                    name: pool.submit(each.compile, self.options())
                    for name, each in lowered(traceables, mesh, self._rests_on(models, orders_keys))
                }
                self._compiled[shape] = {name: each.result() for name, each in coming.items()}
        return self._compiled[shape]

    def _traceables(self, mesh: Mesh, models: Models, orders_keys: Key[Array, " orders"]) -> dict[str, Traceable]:
        padded, variants = models.variant_selection.shape
        split, whole = NamedSharding(mesh, PartitionSpec("models")), NamedSharding(mesh, PartitionSpec())

        def placed(tree: Any, sharding: NamedSharding) -> Any:
            return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), tree)

        def stacked(function: Callable, mapped: int, shared: int, stack: int = 1) -> Callable:
            return over_models(mesh, stack, function, mapped, shared)

        start = stacked(self._start, 1, 0)
        state = placed(jax.eval_shape(start, models.keys), split)
        validation = placed(empty_tally(padded, self.selections, 1), split)
        test = placed(empty_tally(padded, variants, self.plan.answers), split)
        accuracy = jax.ShapeDtypeStruct((padded, self.selections), np.float32, sharding=split)
        order, number = stacked(self._order, 1, 1), jax.ShapeDtypeStruct((), np.int32, sharding=whole)
        orders = placed(jax.eval_shape(order, orders_keys, number), whole)
        chunk = {name: placed(self.feed.spec(name), whole) for name in SPLITS}
        train = stacked(self.train, 2, 2, self.stack)
        validate, finish = stacked(self._validate, 3, 1, self.stack), stacked(finish_epoch, 2, 0)
        return {
            "order": Traceable(order, (orders_keys, number)),
            "start": Traceable(start, (models.keys,)),
            "train": Traceable(train, (state, models, chunk["train"], orders), donated=(0,)),
            "validate": Traceable(validate, (validation, state, models, chunk["validation"])),
            "finish": Traceable(finish, (state, accuracy), donated=(0,)),
            "test": Traceable(stacked(self._test, 3, 1, self.stack), (test, state, models, chunk["test"])),
        }

    def _rests_on(self, models: Models, orders_keys: Key[Array, " orders"]) -> object:
        """All that the traced functions depend on; None if that isn't known."""
        if self.settings.rests_on is None:
            return None
        plan = hashlib.sha256(self._combinations.survival.tobytes()).hexdigest()
        given = (models, orders_keys, [self.feed.spec(name) for name in SPLITS])
        shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(given)]
        how = self.settings.batch_size, self.stack, self.selections, self.network.learns_weights
        return self.settings.rests_on, plan, shapes, how, self.feed.augment is None


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
