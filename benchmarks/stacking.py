"""How to stack runs inside the one compiled program: `python -m benchmarks.stacking [--hidden_units=100] ...`.

Trains the same models of the Health network in three ways and prints the speed of each as a ratio to the first:
one after another on one device, all at once by vmap on one device, one after another on every device. It is what
the engine's defaults on this backend rest on.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags

from benchmarks import common
from benchmarks.clock import Clock
from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
from resilinet_jax.scenarios import load_scenario

_HIDDEN_UNITS = flags.DEFINE_integer("hidden_units", 100, "Width of the dense layers.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Examples per step.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 10_240, "Training examples.", lower_bound=1)
_MODELS = flags.DEFINE_integer("models", 8, "Runs trained.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Epochs; the first warms up.", lower_bound=2)


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    common.set_up_jax()
    scenario = load_scenario("health")
    splits = split_dataset(load_synthetic(), "random", 0, _EXAMPLES.value)
    network = scenario.build_network(splits.classes, _HIDDEN_UNITS.value)
    build = CellBuilder(network.graph, scenario.failure_settings, 0.05, 1e-3)
    settings = TrainingSettings(_MODELS.value, _EPOCHS.value, _BATCH_SIZE.value, seed=0)
    devices = jax.local_device_count()
    ways = {
        "one after another, one device": (1, 1),
        "all at once (vmap), one device": (_MODELS.value, 1),
        f"one after another, {devices} devices": (1, devices),
    }
    rows: list[dict[str, Any]] = []
    for name, (stack, used) in ways.items():
        clock = Clock()
        run_cells(
            network,
            Resident(splits),
            {"resilinet": build("resilinet")},
            dataclasses.replace(settings, stack=stack, devices=used),
            clock,
        )
        speed = _MODELS.value * (_EXAMPLES.value // _BATCH_SIZE.value) * _BATCH_SIZE.value / clock.seconds()
        rows.append({"way": name, "models x examples/s": speed})
    for row in rows:
        row["ratio"] = row["models x examples/s"] / rows[0]["models x examples/s"]
    columns = {"way": "", "models x examples/s": ",.0f", "ratio": ".2f"}
    common.tell(f"{_MODELS.value} models, {_HIDDEN_UNITS.value} units, batches of {_BATCH_SIZE.value}", columns, rows)


if __name__ == "__main__":
    app.run(main)
