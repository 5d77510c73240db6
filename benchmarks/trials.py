"""The README's sweep against Ray Tune: `python -m benchmarks.trials`.

Whole commands, from their start to their end, with nothing compiled before. Under Ray Tune each training run is a
trial in Flax NNX and optax, of the same network for as many epochs of as many examples, on a core of its own. A process
that is through with a trial takes the next one, so it imports and compiles only once. Our command evaluates and reports
as well.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, race

_EPOCHS = flags.DEFINE_integer("epochs", None, "Of each run; the preset's without it.", lower_bound=1)
_RUNS = flags.DEFINE_integer("runs", None, "Of each cell; the preset's without it.", lower_bound=1)

SWEEP, SCENARIO = "failout_rate", "health"
OURS, RAY = "resilinet_jax", "Ray Tune, a trial for each run"


def train_by_ray(runs: int, epochs: int, batch_size: int, units: int, train_examples: int) -> None:
    """All trials, in processes that Ray starts.

    Args:
      runs: trials.
      epochs: of each.
      batch_size: examples per step.
      units: of each of the Health network's layers.
      train_examples: of an epoch.
    """
    import ray
    from ray import tune

    from benchmarks import plain_jax
    from benchmarks.cases import HEALTH
    from resilinet_jax.datasets.splitting import split_dataset
    from resilinet_jax.datasets.synthetic import load_synthetic

    ray.init(num_cpus=common.cores(), include_dashboard=False, log_to_driver=False, logging_level="error")
    splits = split_dataset(load_synthetic(), "random", 0, train_examples)
    trial = tune.with_parameters(
        plain_jax.trial, splits=splits, epochs=epochs, batch_size=batch_size, units=units, layers=HEALTH
    )
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space={"seed": tune.grid_search(list(range(runs)))},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    if results.errors:
        raise SystemExit(f"error: {len(results.errors)} trials failed, the first by {results.errors[0]}")
    loss = statistics.mean(result.metrics["loss"] for result in results)
    print(f"{RAY}: {len(results)} runs, their last epoch's mean loss {loss:.3f}", flush=True)


def command(arguments: Sequence[str]) -> None:
    """Runs Python with these arguments, with nothing compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        environment = common.fresh_start(cache) | {"RAY_USAGE_STATS_ENABLED": "0"}
        subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=sys.stderr)


def turns() -> dict[str, Callable[[], Any]]:
    """The commands of both."""
    from resilinet_jax import sweeps
    from resilinet_jax.cells import CellBuilder
    from resilinet_jax.command.ingredients import load_sweep
    from resilinet_jax.scenarios import load_scenario

    scenario = load_scenario(SCENARIO)
    preset = scenario.presets["quick"]
    runs, epochs = _RUNS.value or preset.runs, _EPOCHS.value or preset.epochs
    network = scenario.build_network(2, **preset.network)
    build = CellBuilder(network.graph, scenario.failure_settings, preset.failout_rate, preset.learning_rate)
    cells = load_sweep(SWEEP, sweeps).cells(build)
    asked = {"runs": runs * len(cells), "epochs": epochs, "batch_size": preset.batch_size}
    sizes = {"units": preset.network["hidden_units"], "train_examples": preset.train_examples}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            given = [f"--{name}={value}" for name, value in {"runs": runs, "epochs": epochs}.items()]
            command(["launch.py", f"--sweep={SWEEP}", "--dataset=synthetic", f"--results_dir={folder}", *given])

    return {
        OURS: ours,
        RAY: functools.partial(command, ["-m", "benchmarks.trials", f"--worker={json.dumps(asked | sizes)}"]),
    }


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if (asked := race.asked()) is not None:
        train_by_ray(**asked)
        return
    if not common.installed("ray"):
        raise SystemExit("error: there is nothing to compare with: pip install -e '.[bench]'")
    taken = race.take_turns({name: race.timed(turn) for name, turn in turns().items()})
    rows: list[dict[str, Any]] = [
        {"what": SWEEP, "how": name, "seconds": statistics.median(seconds), "turns": seconds}
        for name, seconds in taken.items()
    ]
    rows[0]["pairs"] = {RAY: [other / own for own, other in zip(taken[OURS], taken[RAY])]}
    for row in rows:
        row["times as long"] = row["seconds"] / rows[0]["seconds"]
    columns = {"how": "", "seconds": ".1f", "times as long": ".2f"}
    common.tell(f"--sweep={SWEEP}, whole commands, medians", columns, rows)


if __name__ == "__main__":
    app.run(main)
