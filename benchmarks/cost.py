"""What the paper's experiments cost at its sizes, on paper: `python -m benchmarks.cost`.

Operations are counted by XLA in a training step as it is written down, before it is compiled. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from benchmarks import common
from resilinet_jax import sweeps
from resilinet_jax.command.ingredients import build_cells
from resilinet_jax.engine.run_cells import plan_trainings
from resilinet_jax.network.forward import Network, Variables, Wiring
from resilinet_jax.scenarios import load_scenario

_RATE = flags.DEFINE_float("rate", 200.0, "Of the device, in 10¹² operations a second, for the hours.", lower_bound=0.0)
_PRICE = flags.DEFINE_float("price", None, "Of an hour of the device; adds a column.", lower_bound=0.0)

BATCH = 4  # examples that are counted


class Published(NamedTuple):
    """A published data set.

    Attributes:
      classes: number of them.
      train: examples that the paper's split trains on.
      shape: of an example.
      dtype: of its numbers.
    """

    classes: int
    train: int
    shape: tuple[int, ...]
    dtype: Any


DATA = {
    "health": Published(12, 8 * 343_195 // 10, (23,), np.float32),
    "cifar10": Published(10, 45_000, (32, 32, 3), np.uint8),
    "imagenet": Published(1000, 1_281_167 - 10_000, (160, 160, 3), np.uint8),
}


def operations_per_example(network: Network, data: Published) -> float:
    """Floating-point operations of a training step, for each example of its batch."""
    x = jax.ShapeDtypeStruct((BATCH, *data.shape), data.dtype)
    variables = network.shapes(x)
    wiring = Wiring(*[jnp.ones(len(network.graph.hyperconnections))] * 3)
    alive = jnp.ones(len(network.graph.fallible))

    def loss(params: Any, statistics: Any, x: Any) -> Any:
        logits = network.apply(Variables(params, statistics), x, alive, wiring, jax.random.key(0)).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.zeros(BATCH, jnp.int32)).mean()

    step = jax.jit(jax.value_and_grad(loss)).lower(variables.params, variables.statistics, x)
    counted: Any = step.cost_analysis()
    return float(counted["flops"]) / BATCH


def row(scenario_name: str) -> dict[str, Any]:
    """What all sweeps of a scenario cost that share its own network, at the paper's sizes."""
    scenario, data = load_scenario(scenario_name), DATA[scenario_name]
    preset = scenario.presets["paper"]
    network = scenario.build_network(data.classes, **preset.network)
    made = {name: sweeps.load_sweep(name) for name in sweeps.sweep_names()}
    keeps = bool(network.shapes(jax.ShapeDtypeStruct((1, *data.shape), data.dtype)).statistics)
    cells = {
        f"{name}/{cell}": numbers
        for name, sweep in made.items()
        if not sweep.network
        for cell, numbers in build_cells(network.graph, scenario.failure_settings, preset, sweep, keeps).items()
    }
    each = operations_per_example(network, data)
    run = each * data.train * preset.epochs
    models = len(plan_trainings(cells)) * preset.runs
    hours = run * models / (_RATE.value * 1e12) / 3600
    return {
        "scenario": scenario_name,
        "MFLOP/example": each / 1e6,
        "examples": data.train,
        "epochs": preset.epochs,
        "FLOP/run": run,
        "hours/run": run / (_RATE.value * 1e12) / 3600,
        "runs": models,
        "hours": hours,
        "price": hours * (_PRICE.value or 0),
    }


def main(argv: Sequence[str]) -> None:
    """Counts, and prints the table."""
    del argv
    forms = {"scenario": "", "MFLOP/example": ",.1f", "examples": ",", "epochs": "", "FLOP/run": ".2e"}
    forms |= {"hours/run": ",.4f", "runs": ",", "hours": ",.2f"}
    if _PRICE.value is not None:
        forms["price"] = ",.2f"
    title = f"Training at the paper's sizes, and its hours at {_RATE.value:g} TFLOP/s"
    common.tell(title, forms, [row(name) for name in DATA])


if __name__ == "__main__":
    app.run(main)
