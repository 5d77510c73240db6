"""What a training step does besides multiplying matrices: `python -m benchmarks.step --scenario=small` (quick, health).

A race of epochs, each with something more than the one before: the products of all layers, forward and backward, and
nothing else; the bare step, with biases, ReLU, a mask for each node, the loss and Adam, on batches that lie ready; the
engine's training, with skips, their gates and adapter, drawn masks and activity, and shuffled rows, which races at
XLA's own level of optimisation as well; and the engine's whole epoch, with validation and the best epoch's weights
kept. All are mapped over models and compiled as the engine is, in one process with a device for each core and in a
process for each core.

Then where the time of the engine's training goes, operation by operation, by JAX's profiler.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import pathlib
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from jax.sharding import Mesh

from benchmarks import common, race
from benchmarks.cases import CASES, CORES, FAILOUT_RATE, FLOP, SIDE, Case, dense_options, load_splits
from benchmarks.own import own_case, square_product
from resilinet_jax.datasets.splits import Splits
from resilinet_jax.engine.program import over_models, shardings

DENSE = [name for name, (case, *_) in CASES.items() if case.dense and case.product]
_SCENARIO = flags.DEFINE_enum("scenario", "small", DENSE, "Whose network is trained.")

SQUARE, PRODUCTS, BARE, TRAINING, OWN_LEVEL, EPOCH = WAYS = (
    "square product",
    "products alone",
    "bare step",
    "the engine's training",
    "the same, at XLA's own level",
    "the engine's epoch",
)
Layers = list[tuple[jax.Array, jax.Array]]  # weights [inputs, units] and biases [units]


def layers(case: Case, splits: Splits, key: jax.Array) -> Layers:
    """Of a chain without skips."""
    widths = [splits.train.x.shape[1], *[case.size["units"]] * sum(case.size["layers"]), splits.classes]
    sizes = list(itertools.pairwise(widths))
    keys = jax.random.split(key, len(sizes))
    return [(jax.random.normal(key, size) / size[0] ** 0.5, jnp.zeros(size[1])) for key, size in zip(keys, sizes)]


def weights(params: Any) -> int:
    """How many numbers products take of them: matrices, no biases and no hyperconnections' weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2)


def products(params: Layers, x: jax.Array) -> Layers:
    """Forward, and the gradients of inputs and weights, which move weights by next to nothing."""
    inputs = [x]
    for weight, _ in params:
        inputs.append(inputs[-1] @ weight)
    gradient, moved = inputs.pop(), []
    for (weight, bias), value in zip(params[::-1], inputs[::-1]):
        moved.append((weight + 1e-12 * (value.T @ gradient), bias))
        gradient = gradient @ weight.T
    return moved[::-1]


def bare_loss(params: Layers, x: jax.Array, y: jax.Array, alive: jax.Array) -> jax.Array:
    """Of a batch; `alive` holds a number for each layer but the last."""
    *hidden, (weight, bias) = params
    for (each, shift), mask in zip(hidden, alive):
        x = mask * jax.nn.relu(x @ each + shift[None])
    return optax.softmax_cross_entropy_with_integer_labels(x @ weight + bias[None], y).mean()


def bare(case: Case, splits: Splits, models: int, only_products: bool) -> Callable[[], object]:
    """An epoch of models that are mapped over devices as the engine's are."""
    x, y = (jnp.asarray(each).reshape(case.steps, case.batch_size, *each.shape[1:]) for each in splits.train)
    optimiser = optax.adam(1e-3, eps=1e-7)
    failed = jax.random.uniform(jax.random.key(0), (case.steps, sum(case.size["layers"]))) < FAILOUT_RATE

    def step(state: tuple, batch: tuple) -> tuple[tuple, None]:
        params, moments = state
        if only_products:
            return (products(params, batch[0]), moments), None
        update, moments = optimiser.update(jax.grad(bare_loss)(params, *batch), moments)
        return (optax.apply_updates(params, update), moments), None

    def epoch(state: tuple, *batches: jax.Array) -> tuple:
        return jax.lax.scan(step, state, batches)[0]

    mesh = Mesh(jax.devices(), ("models",))
    sharded, replicated = shardings(mesh)
    params = jax.vmap(functools.partial(layers, case, splits))(jax.random.split(jax.random.key(1), models))
    state = jax.device_put((params, jax.vmap(optimiser.init)(params)), sharded)
    batches = jax.device_put((x, y, 1.0 - failed), replicated)
    train = jax.jit(over_models(mesh, 1, epoch, 1, 3), donate_argnums=0).lower(state, *batches)
    call = train.compile(dense_options())

    def turn() -> None:
        nonlocal state
        state = jax.block_until_ready(call(state, *batches))

    return turn


def work(scenario: str, way: str, models: int, processes: int) -> None:
    """A contender's process."""
    if processes > 1:
        os.environ["NPROC"] = "1"
    common.set_up_jax(CORES // processes)
    if way == SQUARE:
        race.serve(square_product(CORES // processes), {"weights": 0})
        return
    (case,) = CASES[scenario]
    splits = load_splits(case)
    if way in (PRODUCTS, BARE):
        told = {"weights": weights(layers(case, splits, jax.random.key(0)))}
        race.serve(bare(case, splits, models, only_products=way == PRODUCTS), told)
        return
    own = own_case(case, splits, models, options={} if way == OWN_LEVEL else None)
    race.serve(own.start(0, validated=way == EPOCH), {"weights": weights(own.network.shapes(splits.train.x).params)})


def rates(scenario: str) -> list[dict[str, Any]]:
    """A row for each contender: GFLOP/s of all its processes together."""
    (case,) = CASES[scenario]
    models = -(-case.stacks[-1] // CORES) * CORES  # of all processes
    named = [(way, processes) for way in WAYS for processes in sorted({1, CORES})]
    raced = race.race(
        (
            (way, processes),
            race.contender(
                "step",
                [{"scenario": scenario, "way": way, "models": models // processes, "processes": processes}] * processes,
            ),
        )
        for way, processes in named
    )
    rows: list[dict[str, Any]] = []
    for (way, processes), (rival, turns) in raced.items():
        if way == SQUARE:
            work = 2 * SIDE**3 * CORES
        else:
            per_example = FLOP if way == EPOCH else 6
            work = per_example * rival.told[0]["weights"] * models * case.steps * case.batch_size
        each = [work * turn / 1e9 for turn in turns]
        rows.append({"what": way, "processes": processes, "turns": each})
        rows[-1]["GFLOP/s"] = statistics.median(each)
    best = max(rows, key=lambda row: row["GFLOP/s"] if row["what"] == SQUARE else 0.0)
    for row in rows:
        row["of square product"] = row["GFLOP/s"] / best["GFLOP/s"]
    return rows


_KINDS = {  # of operations, by what they are and where XLA says that they come from; the first that is found
    r"transpose\(.*dot_general|^dot .*transpose\(": "products, backward",  # weights' gradients are called transposes
    r"dot_general|^dot ": "products, forward",
    r"transpose\(": "between products, backward",
    r"jvp\(": "between products, forward",
    r"gather|take": "rows of a batch",
    r"threefry|random": "draws",
}


_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\((.*)$", re.MULTILINE)
_NO_WORK = {"while", "call", "conditional", "parameter", "tuple", "get-tuple-element", "constant"}


def kinds(text: str) -> dict[str, str]:
    """The kind of each operation of a compiled program, by its name; loops and calls have none."""
    found = {}
    for name, operation, told in _LINE.findall(text):
        if operation not in _NO_WORK:
            origin = re.search(r'op_name="([^"]*)"', told)
            told_of = f"{operation} {origin.group(1) if origin else ''}"
            found[name] = next((kind for pattern, kind in _KINDS.items() if re.search(pattern, told_of)), "Adam, else")
    return found


def shares(scenario: str) -> list[dict[str, Any]]:
    """How the time of the engine's training divides among operations."""
    (case,) = CASES[scenario]
    own = own_case(case, load_splits(case), case.stacks[-1])
    models, mesh = own.place()
    kind = kinds(own.program.compile(mesh, models)["train"].as_text())  # type: ignore[attr-defined]
    epoch = own.start(0, validated=False)
    epoch()
    seconds, calls = collections.Counter[str](), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            epoch()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events if event.name in kind):
                seconds[kind[event.name]] += event.duration_ns / 1e9
                calls[kind[event.name]] += 1
    total = sum(seconds.values())
    steps = len(models.order) * case.steps
    return [
        {"kind": name, "share": taken / total, "a step": calls[name] / steps, "microseconds": 1e6 * taken / calls[name]}
        for name, taken in seconds.most_common()
    ]


def main(argv: Sequence[str]) -> None:
    """Prints both tables."""
    del argv
    if (asked := race.asked()) is not None:
        work(**asked)
        return
    common.set_up_jax()
    rows = rates(_SCENARIO.value)
    columns = {"what": "", "processes": "", "GFLOP/s": ".0f", "of square product": ".2f"}
    common.tell(f"A training step of {_SCENARIO.value}, medians", columns, rows)
    columns = {"kind": "", "share": ".0%", "a step": ".1f", "microseconds": ".1f"}
    common.tell("Operations of the engine's training, profiled", columns, shares(_SCENARIO.value))


if __name__ == "__main__":
    app.run(main)
