"""What rounded matrix products do to accuracy, without the device that rounds: `python -m benchmarks.precision`.

GPUs round what they multiply to TF32 (10 bits behind the point), TPUs to bfloat16 (7 bits), and add in float32. Here
both operands of every product of dense layers, forward and backward, are rounded alike before a CPU multiplies them.
The same runs are trained with each, and compared in pairs.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
import scipy.stats
from absl import app, flags
from jaxtyping import Array, Float

from benchmarks import common
from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.npz import load_npz
from resilinet_jax.datasets.splits import Splits
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
from resilinet_jax.failures.averages import average_accuracy
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.scenarios import load_scenario

_NPZ = flags.DEFINE_string("npz", None, "Readings, as --dataset takes them; the synthetic ones without it.")
_BY = flags.DEFINE_string("split", "random", "What is split, as --split takes it.")
_RUNS = flags.DEFINE_integer("runs", 10, "Of each method.", lower_bound=2)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Of each run; as the preset quick has it without it.", lower_bound=1)

MANTISSA = {"float32": 23, "tensorfloat32": 10, "bfloat16": 7}  # bits behind the point
METHODS = ("vanilla", "dfg", "resilinet")


def rounded_product(bits: int, product: Callable[..., Array] = jax.lax.dot_general) -> Callable[..., Array]:
    """`jax.lax.dot_general` whose operands, and those of its gradients, are rounded to so many bits.

    Args:
      bits: behind the point, of 23 that float32 has.
      product: what multiplies.
    """

    def rounded(x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)

    def dot_general(a: Array, b: Array, dimensions: Any, **options: Any) -> Array:
        @jax.custom_vjp
        def multiply(a: Array, b: Array) -> Array:
            return product(rounded(a), rounded(b), dimensions, **options)

        def forward(a: Array, b: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
            return jax.vjp(lambda a, b: product(a, b, dimensions, **options), rounded(a), rounded(b))

        multiply.defvjp(forward, lambda pull, gradient: pull(rounded(gradient)))
        return multiply(a, b)

    return dot_general


def accuracies(splits: Splits, bits: int) -> dict[tuple[str, str], Float[np.ndarray, " runs"]]:
    """Average accuracy in % of each run, by method and failure setting, where products are rounded to so many bits."""
    scenario = load_scenario("health")
    preset = scenario.presets["quick"]
    network = scenario.build_network(splits.classes, **preset.network)
    build = CellBuilder(network.graph, scenario.failure_settings, preset.failout_rate, preset.learning_rate)
    settings = TrainingSettings(_RUNS.value, _EPOCHS.value or preset.epochs, preset.batch_size, seed=0)
    with mock.patch("jax.lax.dot_general", rounded_product(bits)):
        measured = run_cells(network, Resident(splits), {name: build(name) for name in METHODS}, settings, Progress())
    usual = {name: np.array(network.graph.node_values(each)) for name, each in scenario.failure_settings.items()}
    return {
        (method, failures): 100 * average_accuracy(runs.score, probability)
        for method, runs in measured.items()
        for failures, probability in usual.items()
    }


def main(argv: Sequence[str]) -> None:
    """Trains, and prints the table."""
    del argv
    common.set_up_jax()
    dataset = load_synthetic() if _NPZ.value is None else load_npz(pathlib.Path(_NPZ.value))
    splits = split_dataset(dataset, _BY.value, 0, load_scenario("health").presets["quick"].train_examples)
    exact, *rounded = [(name, accuracies(splits, bits)) for name, bits in MANTISSA.items()]
    quantile = scipy.stats.t.ppf(0.975, _RUNS.value - 1) / np.sqrt(_RUNS.value)
    rows: list[dict[str, Any]] = []
    for key, own in exact[1].items():
        row: dict[str, Any] = {"method": key[0], "failures": key[1], exact[0]: own.mean()}
        for name, others in rounded:
            change = others[key] - own
            row |= {name: f"{change.mean():+.2f} ± {quantile * change.std(ddof=1):.2f}"}
        rows.append(row)
    columns = {"method": "", "failures": "", exact[0]: ".2f"} | dict.fromkeys(dict(rounded), "")
    notes = [f"± holds with 95 % for the mean of {_RUNS.value} pairs of training runs on this split; each by itself."]
    common.tell("Average accuracy (%), and how many points rounding changes it", columns, rows, notes)


if __name__ == "__main__":
    app.run(main)
