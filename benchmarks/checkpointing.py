"""What a checkpoint after every epoch costs: `python -m benchmarks.checkpointing`.

The Health network in the paper's setting (250 units, batches of 1024, four fifths of the rows), several models in a
pass; with and without checkpoints take turns of a few epochs each.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, race
from benchmarks.clock import Clock
from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.engine.run_cells import TrainingSettings, run_cells
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.scenarios import load_scenario

_MODELS = flags.DEFINE_integer("models", 10, "That are trained in a pass.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Of a turn; the first one is not timed.", lower_bound=2)
_PRESET = flags.DEFINE_enum("preset", "paper", ["paper", "quick"], "Network, examples and batches.")


def turns() -> dict[str, Callable[[], float]]:
    """Seconds of an epoch, without and with the checkpoint before it."""
    scenario = load_scenario("health")
    preset = scenario.presets[_PRESET.value]
    splits = split_dataset(load_synthetic(), "random", 0, preset.train_examples)
    network = scenario.build_network(splits.classes, **preset.network)
    build = CellBuilder(network.graph, scenario.failure_settings, preset.failout_rate, preset.learning_rate)
    cells, feed = {"resilinet": build("resilinet")}, Resident(splits)
    settings = TrainingSettings(_MODELS.value, _EPOCHS.value, preset.batch_size, 0, runs_per_pass=_MODELS.value)

    def train(checkpoints: Checkpoints | None) -> float:
        clock = Clock()
        run_cells(network, feed, cells, settings, clock, checkpoints=checkpoints)
        return clock.seconds()

    def saving() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return train(Checkpoints(pathlib.Path(folder, "checkpoints"), seconds=0))

    return {"without": lambda: train(None), "with": saving}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    common.set_up_jax()
    taken = race.take_turns(turns())
    rows: list[dict[str, Any]] = [
        {"checkpoints": name, "seconds an epoch": statistics.median(seconds), "turns": seconds}
        for name, seconds in taken.items()
    ]
    for row in rows:
        row["times"] = row["seconds an epoch"] / rows[0]["seconds an epoch"]
    rows[1]["pairs"] = {"without, times as long": [b / a for a, b in zip(taken["without"], taken["with"])]}
    columns = {"checkpoints": "", "seconds an epoch": ".3f", "times": ".3f"}
    common.tell(f"An epoch of {_MODELS.value} models, preset {_PRESET.value}, medians", columns, rows)


if __name__ == "__main__":
    app.run(main)
