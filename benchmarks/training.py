"""Training speed of a scenario with images against PyTorch: `python -m benchmarks.training --scenario cifar10`.

Needs `pip install torch`. Both train the same distributed network with failout, drawn skips, running statistics and
metrics on the same shape of data: PyTorch one model by eager execution and by `torch.compile`, the better of which
counts; this project one model and a stack of them, through its engine's own training function. Every contender is
a process of its own with the same memory settings; they take turns, round by round, and the medians are compared.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags

from resilinet_jax.memory import huge_pages_environment

_SCENARIO = flags.DEFINE_enum("scenario", "cifar10", ["cifar10"], "Whose network is trained.")
_ALPHAS = flags.DEFINE_list("alphas", ["0.25", "0.75"], "Widths of MobileNet.")
_MODELS = flags.DEFINE_integer("models", 4, "Size of the stack.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each contender's turn comes.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "About how long a turn is.", lower_bound=0.1)
_WORKER = flags.DEFINE_string("worker", None, "Internal: a contender, as JSON.")

BATCH = 128


def project_turn(scenario: str, alpha: float, models: int) -> Callable[[int], None]:
    """A function that trains `models` models for a number of steps, through the engine."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    from resilinet_jax import engine
    from resilinet_jax.cells import CellBuilder
    from resilinet_jax.combinations import all_combinations
    from resilinet_jax.datasets.splits import Examples, Splits
    from resilinet_jax.feed import Resident
    from resilinet_jax.scenarios import load_scenario

    rng = np.random.default_rng(0)
    steps = 4  # a chunk
    x, y = rng.integers(0, 256, (steps * BATCH, 32, 32, 3), np.uint8), rng.integers(0, 10, steps * BATCH, np.int32)
    chosen = load_scenario(scenario)
    network = chosen.build_network(10, alpha, 32, momentum=0.99)
    settings = engine.TrainingSettings(models, 1, BATCH, 0, compiler_options=chosen.compiler_options())
    feed = Resident(Splits(Examples(x, y), Examples(x, y), Examples(x, y), 10, 0.1))
    program = engine.Program(network, feed, settings, 1, all_combinations(network.graph))
    build = CellBuilder(network.graph, chosen.failure_settings, 0.05, 1e-3)
    (training,) = engine.plan_trainings({"resilinet": build("resilinet")})
    stacked, mesh = program.place(engine.assemble([(training, run) for run in range(models)], 1, 1, seed=0))
    call = program.compile(mesh, stacked)
    state = call["start"](stacked.keys)
    chunk = next(feed.train(0, NamedSharding(mesh, PartitionSpec())))

    def turn(count: int) -> None:
        nonlocal state
        for _ in range(-(-count // steps)):
            state, loss = call["train"](state, stacked, chunk)
        loss.block_until_ready()

    return turn


def serve(contender: dict[str, Any]) -> None:
    """Trains for a turn whenever a line arrives, and answers with models x images per second."""
    if contender.pop("peer"):
        from benchmarks.pytorch_peer import peer_turn

        turn: Callable[[int], None] = peer_turn(BATCH, **contender)
        models = 1
    else:
        turn, models = project_turn(_SCENARIO.value, **contender), contender["models"]
    steps = 4  # a chunk
    turn(steps)  # compiles
    start = time.perf_counter()
    turn(steps)
    steps = max(4, 4 * round(_SECONDS.value / 4 / ((time.perf_counter() - start) / steps)))
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn(steps)
        print(models * steps * BATCH / (time.perf_counter() - start), flush=True)


@contextlib.contextmanager
def worker(contender: dict[str, Any]) -> Iterator[Callable[[], float]]:
    """A contender's process; calling what this yields gives it a turn."""
    command = [sys.executable, "-m", "benchmarks.training", f"--worker={json.dumps(contender)}"]
    command += [f"--scenario={_SCENARIO.value}", f"--seconds={_SECONDS.value}"]
    environment = os.environ | huge_pages_environment()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        ask, answers = process.stdin, process.stdout
        assert ask is not None
        assert answers is not None
        said = answers.readline()
        if said != "ready\n":
            raise SystemExit(f"contender {contender} failed to start; see above")

        def turn() -> float:
            ask.write("\n")
            ask.flush()
            return float(answers.readline())

        yield turn
        ask.close()


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        serve(json.loads(_WORKER.value))
        return
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("error: this compares with PyTorch, which is missing; pip install torch")
    print(f"{_SCENARIO.value}, batches of {BATCH}, median of {_ROUNDS.value} turns; models x images/s")
    print(f"{'':34}{'speed':>10}{'ratio':>8}")
    for alpha in map(float, _ALPHAS.value):
        contenders = {
            "PyTorch, eager": {"peer": True, "alpha": alpha, "compiled": False},
            "PyTorch, torch.compile": {"peer": True, "alpha": alpha, "compiled": True},
            "resilinet_jax, one model": {"peer": False, "alpha": alpha, "models": 1},
            f"resilinet_jax, stack of {_MODELS.value}": {"peer": False, "alpha": alpha, "models": _MODELS.value},
        }
        with contextlib.ExitStack() as stack:
            turns = {name: stack.enter_context(worker(contender)) for name, contender in contenders.items()}
            speeds: dict[str, list[float]] = {name: [] for name in turns}
            for _ in range(_ROUNDS.value):
                for name, turn in turns.items():
                    speeds[name].append(turn())
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        best = max(value for name, value in medians.items() if name.startswith("PyTorch"))
        for name, value in medians.items():
            print(f"alpha {alpha:<5}{name:23}{value:10,.0f}{value / best:8.2f}", flush=True)


if __name__ == "__main__":
    app.run(main)
