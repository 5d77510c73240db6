"""Training speed against PyTorch: `python -m benchmarks.training --scenario cifar10` (or health, small).

Needs `pip install torch`. All train the same distributed network with failout, drawn skips, shuffling and Adam on the
same shape of data: PyTorch one model by eager execution and by `torch.compile`, for the dense networks also stacked
models by `torch.func.vmap`, the best of which counts; this project one model or stacks of them, through its engine's
own training function. Every contender is a process of its own with the same memory settings; they take turns, round
by round, and the medians are compared. `small` is a dense network of 32 units, as for a microcontroller.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from resilinet_jax.memory import huge_pages_environment

_SCENARIO = flags.DEFINE_enum("scenario", "cifar10", ["cifar10", "health", "small"], "Whose network is trained.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each contender's turn comes.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "About how long a turn is.", lower_bound=0.1)
_JSON = flags.DEFINE_string("json", None, "Where the figures go as JSON.")
_WORKER = flags.DEFINE_string("worker", None, "Internal: a contender, as JSON.")


class Case(NamedTuple):
    """A network and how it is trained.

    Attributes:
      size: of the network.
      batch_size: examples per step.
      steps: per chunk of examples.
      peers: ways of PyTorch.
      stacks: models of this project's contenders.
    """

    size: dict[str, Any]
    batch_size: int
    steps: int
    peers: tuple[str, ...]
    stacks: tuple[int, ...]


DENSE_PEERS = ("eager", "compile", "vmap")
CASES = {
    "cifar10": [Case({"alpha": alpha}, 128, 4, ("eager", "compile"), (1, 4)) for alpha in (0.25, 0.75)],
    "health": [Case({"units": 250, "layers": (1, 2, 3, 4)}, 1024, 40, DENSE_PEERS, (10, 40))],
    "small": [Case({"units": 32, "layers": (1, 2, 2, 1)}, 128, 100, DENSE_PEERS, (80,))],
}
PEER_STACK = 10  # models that torch.func stacks


def project_turn(scenario: str, case: Case, models: int) -> Callable[[int], None]:
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
    from resilinet_jax.scenarios.health import dense_network

    rng = np.random.default_rng(0)
    count = case.steps * case.batch_size
    if scenario == "cifar10":
        chosen = load_scenario(scenario)
        network = chosen.build_network(10, image_size=32, momentum=0.99, **case.size)
        x = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    else:
        chosen = load_scenario("health")
        layers = dict(zip(("n1", "n2", "n3", "n4"), case.size["layers"]))
        network = dense_network(layers, case.size["units"], 12)
        x = rng.normal(size=(count, 23)).astype(np.float32)
    data = Examples(x, rng.integers(0, 10, count, np.int32))
    settings = engine.TrainingSettings(models, 1, case.batch_size, 0, compiler_options=chosen.compiler_options())
    feed = Resident(Splits(data, data, data, 10, 0.1))
    program = engine.Program(network, feed, settings, 1, all_combinations(network.graph))
    build = CellBuilder(network.graph, chosen.failure_settings, 0.05, 1e-3)
    # As a sweep has them: cells of ten runs each.
    cells = {f"{rate}": build("resilinet", failout_rate=rate) for rate in np.linspace(0.05, 0.5, -(-models // 10))}
    each = [engine.Model(training, run) for training in engine.plan_trainings(cells) for run in range(min(models, 10))]
    stacked, mesh = program.place(engine.assemble(each, 1, 1, seed=0))
    call = program.compile(mesh, stacked)
    state = call["start"](stacked.keys)
    whole = NamedSharding(mesh, PartitionSpec())
    chunk, orders_keys = next(feed.train(0, whole)), program.orders_keys(stacked, mesh)
    number = jax.device_put(np.int32(0), whole)

    def turn(steps: int) -> None:
        nonlocal state
        for _ in range(-(-steps // case.steps)):
            orders = jax.device_put(call["order"](orders_keys, number), whole)
            state, loss = call["train"](state, stacked, chunk, orders)
        loss.block_until_ready()

    return turn


def peer_turn(scenario: str, case: Case, way: str) -> Callable[[int], None]:
    """The same in PyTorch."""
    if scenario == "cifar10":
        from benchmarks.pytorch_peer import peer_turn

        return peer_turn(case.batch_size, compiled=way == "compile", **case.size)
    from benchmarks.pytorch_health import training_turn

    return training_turn(way, PEER_STACK, case.batch_size, examples=case.steps * case.batch_size, **case.size)


def serve(number: int, way: str | None, models: int) -> None:
    """Trains for a turn whenever a line arrives, and answers with models x examples per second."""
    case = CASES[_SCENARIO.value][number]
    turn = project_turn(_SCENARIO.value, case, models) if way is None else peer_turn(_SCENARIO.value, case, way)
    turn(case.steps)  # compiles
    start = time.perf_counter()
    turn(case.steps)
    chunks = max(1, round(_SECONDS.value / (time.perf_counter() - start)))
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn(chunks * case.steps)
        print(models * chunks * case.steps * case.batch_size / (time.perf_counter() - start), flush=True)


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


def race(number: int, case: Case) -> dict[str, float]:
    """Each contender's median of models x examples per second."""
    contenders = {
        f"PyTorch, {way}": {"way": way, "models": PEER_STACK if way == "vmap" else 1} for way in case.peers
    } | {f"resilinet_jax, {models} at a time": {"way": None, "models": models} for models in case.stacks}
    with contextlib.ExitStack() as stack:
        turns = {name: stack.enter_context(worker({"number": number, **own})) for name, own in contenders.items()}
        speeds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(_ROUNDS.value):
            for name, turn in turns.items():
                speeds[name].append(turn())
    return {name: statistics.median(values) for name, values in speeds.items()}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        serve(**json.loads(_WORKER.value))
        return
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("error: this compares with PyTorch, which is missing; pip install torch")
    print(f"{_SCENARIO.value}, median of {_ROUNDS.value} turns; models x examples/s")
    figures = []
    for number, case in enumerate(CASES[_SCENARIO.value]):
        print(f"{', '.join(f'{name} {value}' for name, value in case.size.items())}, batches of {case.batch_size}")
        medians = race(number, case)
        best = max(value for name, value in medians.items() if name.startswith("PyTorch"))
        for name, value in medians.items():
            print(f"  {name:30}{value:12,.0f}{value / best:8.2f}", flush=True)
        figures.append({"case": case._asdict(), "models x examples/s": medians})
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
