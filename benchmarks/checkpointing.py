"""What a checkpoint after every epoch costs: `python -m benchmarks.checkpointing`.

The Health network in the paper's setting (250 units, batches of 1024, four fifths of the rows), several models, by the
function that trains a pass; with and without checkpoints take turns of a few epochs each, once all is compiled.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, race
from resilinet_jax.cells import CellBuilder
from resilinet_jax.checkpoints import Checkpoints
from resilinet_jax.combinations import all_combinations
from resilinet_jax.datasets.splits import split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.engine import assemble, plan_models
from resilinet_jax.feed import Resident
from resilinet_jax.program import Program, TrainingSettings
from resilinet_jax.progress import Progress
from resilinet_jax.scenarios import load_scenario

_MODELS = flags.DEFINE_integer("models", 10, "That are trained in a pass.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Of a turn; the first one is not timed.", lower_bound=2)
_PRESET = flags.DEFINE_enum("preset", "paper", ["paper", "quick"], "Network, examples and batches.")


class _Clock(Progress):
    """Knows when each epoch of the last pass ended, before its checkpoint."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.ends: list[float] = []

    def epoch(self, number: int, **told: Any) -> None:
        del number, told
        self.ends.append(time.perf_counter())

    def resumed(self, epochs: int, *, models: int) -> None:
        del epochs, models
        self.ends.clear()


def turns() -> dict[str, Callable[[], float]]:
    """Seconds of an epoch, without and with the checkpoint before it."""
    scenario = load_scenario("health")
    preset = scenario.presets[_PRESET.value]
    splits = split_dataset(load_synthetic(), "random", 0, preset.train_examples)
    network, feed = scenario.build_network(splits.classes, **preset.network), Resident(splits)
    settings = TrainingSettings(_MODELS.value, _EPOCHS.value, preset.batch_size, 0)
    program = Program(network, feed, settings, 1, all_combinations(network.graph))
    build = CellBuilder(network.graph, scenario.failure_settings, preset.failout_rate, preset.learning_rate)
    models = assemble(plan_models({"resilinet": build("resilinet")}, settings.runs), 1, 1, settings.seed)
    clock = _Clock()

    def turn(folder: str | None) -> float:
        checkpoints = None if folder is None else Checkpoints(pathlib.Path(folder, "checkpoints"))
        if checkpoints is not None:
            checkpoints.open(["benchmark"])
        program.run(models, clock, checkpoints)
        if checkpoints is not None:
            checkpoints.discard()
        return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)

    def saving() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return turn(folder)

    return {"without": lambda: turn(None), "with": saving}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    common.set_up_jax()
    contenders = turns()
    for warm_up in contenders.values():
        warm_up()
    taken = race.take_turns(contenders)
    rows: list[dict[str, Any]] = [
        {"checkpoints": name, "seconds an epoch": statistics.median(seconds), "turns": seconds}
        for name, seconds in taken.items()
    ]
    for row in rows:
        row["times"] = row["seconds an epoch"] / rows[0]["seconds an epoch"]
    columns = {"checkpoints": "", "seconds an epoch": ".3f", "times": ".3f"}
    common.tell(f"An epoch of {_MODELS.value} models, preset {_PRESET.value}, medians", columns, rows)


if __name__ == "__main__":
    app.run(main)
