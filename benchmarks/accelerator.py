"""What a GPU makes of it, in one command of at most nine minutes: `python -m benchmarks.accelerator`.

A whole sweep of Health at the paper's size, training raced against PyTorch with CUDA graphs and against Flax NNX, and
evaluation under all failure combinations. Each part has its share of the nine minutes; one that takes longer is named,
and the others go on. It runs on a CPU as well, where most parts take longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from benchmarks import all as every
from benchmarks import common, cost
from benchmarks.clock import Clock
from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splits import Examples, Splits
from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
from resilinet_jax.scenarios import load_scenario

_CELLS = flags.DEFINE_integer("cells", 0, "Internal: trains a sweep of so many cells.", lower_bound=0)
_EXAMPLES = flags.DEFINE_integer(
    "train_examples", cost.DATA["health"].train, "That the sweep trains on.", lower_bound=1
)

GOAL = 120.0  # seconds, on one H100
PACE = ["--rounds=5", "--seconds=1", "--limit=60"]
PARTS = {
    "sweep": ["accelerator", "--cells=28"],
    "health": ["training", "--scenario=health_card", *PACE],
    "small": ["training", "--scenario=small_card", *PACE],
    "cifar10": ["training", "--scenario=cifar10_card", *PACE],
    "evaluation": ["evaluation", "--processes=1", *PACE, "--rounds=3"],
}
LIMITS = {"sweep": 160.0, "health": 110.0, "small": 80.0, "cifar10": 90.0, "evaluation": 100.0}  # seconds


def sweep(cells: int, examples: int) -> None:
    """Trains and evaluates failout rates at the paper's size, ten runs each; prints the seconds, with compilation."""
    scenario, rng = load_scenario("health"), np.random.default_rng(0)
    preset, published = scenario.presets["paper"], cost.DATA["health"]
    y = rng.integers(0, published.classes, 10 * examples // 8, np.int32)
    x = rng.normal(size=(len(y), *published.shape)).astype(np.float32)
    x[np.arange(len(y)), y] += 2
    parts = np.split(np.arange(len(y)), [examples, 9 * examples // 8])
    train, validation, test = (Examples(x[rows], y[rows]) for rows in parts)
    splits = Splits(train, validation, test, published.classes)
    network = scenario.build_network(published.classes, **preset.network)
    build = CellBuilder(network.graph, scenario.failure_settings, preset.failout_rate, preset.learning_rate)
    made = {f"{rate}": build("resilinet", failout_rate=rate) for rate in np.linspace(0.01, 0.5, cells)}
    options = scenario.compiler_options()
    settings = TrainingSettings(preset.runs, preset.epochs, preset.batch_size, 0, compiler_options=options)
    start = time.perf_counter()
    run_cells(network, Resident(splits), made, settings, Clock())
    seconds = time.perf_counter() - start
    operations = cost.operations_per_example(network, published) * examples * preset.epochs * cells * preset.runs
    row = {"what": f"{cells} cells x {preset.runs} runs", "seconds": seconds, "TFLOP/s": operations / seconds / 1e12}
    row["pairs"] = {f"the goal of {GOAL:.0f} s, times as long": [seconds / GOAL]}
    common.tell("Health at the paper's size, one sweep", {"what": "", "seconds": ",.1f", "TFLOP/s": ".2f"}, [row])


def main(argv: Sequence[str]) -> None:
    """Runs everything."""
    del argv
    if _CELLS.value:
        common.set_up_jax()
        sweep(_CELLS.value, _EXAMPLES.value)
        return
    every.tell("On this accelerator: ratios to rivals, turn by turn", PARTS, LIMITS)


if __name__ == "__main__":
    app.run(main)
