"""Training speed against peers: `python -m benchmarks.training --scenario health` (or small, cifar10).

All train the same distributed network on the same data with failout, drawn skips, shuffling and Adam, and validate
after each epoch on an eighth as many examples. The peers: PyTorch one model after another, by eager execution and by
`torch.compile`; stacked by `torch.func.vmap`; and stacked by hand, with batched products and one fused Adam, eager and
compiled. Each in one process with all cores and in one for each core. Keras 3 on TensorFlow and on JAX, by `fit`. JAX
with Flax NNX and optax, one model or `vmap` over all. This project trains one model at a time or a stack of them,
through its engine's own compiled functions. `quick` is what the command line's preset of that name trains; `small` has
32 units, as for a microcontroller.

Dense networks learn, and every contender in float32 has to show the same mean loss over its first steps, with the
same failout rate. MobileNet trains on noise here; `benchmarks.parity` compares what it learns. For dense networks the
rate of a large square float32 matrix product is measured beside them, on one device with all cores as its threads and
on a device per core.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, race
from benchmarks.cases import CASES, FLOP, SIDE, Case, load_splits
from benchmarks.verdict import OWN, SQUARE, check_losses, compare

_SCENARIO = flags.DEFINE_enum("scenario", "cifar10", list(CASES), "Whose network is trained.")

SEEDS = 5  # models at least whose losses are averaged
PEERS = {
    "eager": "PyTorch, eager",
    "compile": "PyTorch, torch.compile",
    "vmap": "PyTorch, torch.func.vmap",
    "bmm": "PyTorch, torch.bmm by hand",
    "bmm compile": "PyTorch, torch.bmm by hand, torch.compile",
    "graphs": "PyTorch, CUDA graphs",
    "bmm graphs": "PyTorch, torch.bmm by hand, CUDA graphs",
    "bf16": "PyTorch, eager (bf16, for information)",
    "keras": "Keras on TensorFlow, fit",
    "keras jax": "Keras on JAX, fit",
    "nnx": "JAX, Flax NNX and optax",
}


def trainer(case: Case, way: str, models: int) -> tuple[Callable[[int], Callable[[], list[float]]], dict[str, Any]]:
    """From a seed to a function that trains for an epoch and returns the loss; and what else there is to tell."""
    splits = load_splits(case)
    if way == OWN:
        from benchmarks.own import own_case, parameters

        own = own_case(case, splits, models)
        return own.start, {"parameters": parameters(own.network, splits)}
    if way == "nnx":
        from benchmarks import plain_jax

        return plain_jax.trainer(models, splits, case.batch_size, **case.size), {}
    if way.startswith("keras"):
        from benchmarks import keras_health

        return keras_health.trainer(splits, case.batch_size, **case.size), {}
    if case.dense:
        from benchmarks import pytorch_health

        return pytorch_health.trainer(way, models, splits, case.batch_size, **case.size), {}
    from benchmarks import pytorch_images

    return pytorch_images.trainer(way, splits, case.batch_size, **case.size), {}


def losses(start: Callable[[int], Callable[[], list[float]]], case: Case, models: int) -> list[float]:
    """The mean training loss over a fixed number of steps from the start, of several models."""
    if not case.epochs:
        return []

    def mean(epoch: Callable[[], list[float]]) -> list[float]:
        return [statistics.mean(losses) for losses in zip(*(epoch() for _ in range(case.epochs)))]

    return [loss for seed in range(-(-SEEDS // models)) for loss in mean(start(seed))]


def work(number: int, way: str, models: int, processes: int = 1) -> None:
    """A contender's process."""
    common.take_share(way, processes)
    if way == SQUARE:
        from benchmarks.own import square_product

        race.serve(square_product(models), {})
        return
    case = CASES[_SCENARIO.value][number]
    start, told = trainer(case, way, models)
    race.serve(start(0), {"losses": losses(start, case, models), **told})


def contenders(case: Case) -> dict[str, tuple[str, int, int]]:
    """By name, how each trains, how many models at once, and in how many processes.

    The square product's models are its devices.
    """
    needs = {"keras": ("keras", "tensorflow"), "keras jax": ("keras",), "nnx": ()}
    found = {}
    for way, models, processes in case.peers:
        if common.installed(*needs.get(way, ("torch",))):
            at_once = f", {models} at a time" if models > 1 else ""
            side_by_side = f", {processes} processes" if processes > 1 else ""
            found[PEERS[way] + at_once + side_by_side] = (way, models, processes)
    for models in case.stacks:
        found[f"{OWN}, {models} at a time" if models > 1 else "JAX, one run at a time"] = (OWN, models, 1)
    if case.product:
        for devices in sorted({1, common.cores()}):
            found[f"square product of {SIDE}, {devices} device{'s' * (devices > 1)}"] = (SQUARE, devices, 1)
    return found


def measure(number: int, case: Case) -> list[dict[str, Any]]:
    """A row for each contender."""
    named = contenders(case)
    raced = race.race(
        (
            name,
            race.contender(
                "training",
                [{"number": number, "way": way, "models": models, "processes": processes}] * processes,
                [f"--scenario={_SCENARIO.value}"],
            ),
        )
        for name, (way, models, processes) in named.items()
    )
    examples = case.steps * case.batch_size
    if OWN not in (named[name][0] for name in raced):
        raise SystemExit("error: this project itself was left out")
    parameters = next(rival.told[0]["parameters"] for rival, _ in raced.values() if "parameters" in rival.told[0])
    rows = []
    for name, (rival, rates) in raced.items():
        way, models, processes = named[name]
        row: dict[str, Any] = {"contender": name, "way": way, "models": models, "processes": processes}
        row["case"] = case._asdict()
        if way == SQUARE:
            row["turns"] = [2 * SIDE**3 * models * rate / 1e9 for rate in rates]
            row["GFLOP/s"] = statistics.median(row["turns"])
        else:
            row["turns"] = [processes * models * examples * rate for rate in rates]
            row["models x examples/s"] = statistics.median(row["turns"])
            if case.dense:
                row["GFLOP/s"] = FLOP * parameters * row["models x examples/s"] / 1e9
        if losses := rival.told[0].get("losses"):
            row["loss"] = statistics.mean(losses)
            row["loss's standard error"] = statistics.stdev(losses) / len(losses) ** 0.5
        rows.append(row)
    return rows


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if (asked := race.asked()) is not None:
        work(**asked)
        return
    rows = []
    cases = CASES[_SCENARIO.value]
    for number, case in enumerate(cases):
        size = ", ".join(f"{name} {value}" for name, value in case.size.items())
        own = measure(number, case)
        compare(own)
        rows += [row | {"network": size} for row in own]
    columns = {"contender": "", "models x examples/s": ",.0f", "of best PyTorch": ".2f"}
    if len(cases) > 1:
        columns = {"network": "", **columns}
    if case.dense:
        columns |= {"GFLOP/s": ".1f", "of square product": ".2f", "loss": ".3f"}
    common.tell(f"Training {_SCENARIO.value} ({size}, batches of {case.batch_size}), medians", columns, rows)
    check_losses(rows)


if __name__ == "__main__":
    app.run(main)
