"""Evaluation under every failure combination against peers: `python -m benchmarks.evaluation`.

* The Health network (untrained: the arithmetic is the same), all combinations, several models: the plan, through the
  engine's own compiled function; plain `vmap` over masks; and, where they are installed, PyTorch (a forward pass per
  combination, the failed nodes' outputs zeroed) and Keras (likewise, by `predict`).
* A chain of 14 nodes that may fail, with all 16,384 combinations, against what its distinct stage applications cost
  when nothing else is done.
* A chain of 30, whose average accuracy is bounded.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from resilinet_jax import engine
from resilinet_jax.cells import CellBuilder, Wiring, draw_weight, inference_wiring
from resilinet_jax.combinations import all_combinations, choose_combinations
from resilinet_jax.datasets.splits import Examples, Splits
from resilinet_jax.engine import Models
from resilinet_jax.evaluation import Tally, accuracy_of, average_accuracy_bounds, count_correct, empty_tally
from resilinet_jax.feed import Resident
from resilinet_jax.network import Network, Variables
from resilinet_jax.plan import plan_applications
from resilinet_jax.program import default_stack, over_models
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios.health import dense_network
from resilinet_jax.training import RunState, run_keys

_MODELS = flags.DEFINE_integer("models", 40, "Models of the Health network.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 10_240, "Test examples.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each contender's turn comes.", lower_bound=1)

FEATURES, CLASSES, BATCH = 23, 12, 1024


def examples(count: int) -> Examples:
    """Made-up readings."""
    rng = np.random.default_rng(0)
    return Examples(rng.normal(size=(count, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, count, np.int32))


def health_program(data: Examples) -> tuple[engine.Program, Network, Models, RunState]:
    """The engine's program for untrained models of the Health network, and these models on its devices."""
    scenario = load_scenario("health")
    network = scenario.build_network(CLASSES, hidden_units=250)
    settings = engine.TrainingSettings(_MODELS.value, 1, BATCH, 0)
    feed = Resident(Splits(data, data, data, CLASSES, 0.1))
    program = engine.Program(network, feed, settings, 1, all_combinations(network.graph))
    build = CellBuilder(network.graph, scenario.failure_settings, 0.05, 1e-3)
    (training,) = engine.plan_trainings({"resilinet": build("resilinet")})
    assembled = engine.assemble([engine.Model(training, run) for run in range(_MODELS.value)], 1, 1, seed=0)
    models, mesh = program.place(assembled)
    state = program.compile(mesh, models)["start"](models.keys)
    return program, network, models, state


def planned(data: Examples) -> Callable[[], np.ndarray]:
    """Ours: correct answers by model and combination."""
    program, network, models, state = health_program(data)
    plan = plan_applications(network.graph, all_combinations(network.graph).survival)
    _, mesh = program.place(models)
    call = program.compile(mesh, models)["test"]
    tally = empty_tally(*models.variant_selection.shape, plan.answers)

    def turn() -> np.ndarray:
        return accuracy_of(call(tally, state, models, data), plan, len(data.y), 0.0)[:, 0]

    return turn


def plain_vmap(data: Examples) -> Callable[[], np.ndarray]:
    """The oracle: one forward pass for each combination, all at once."""
    program, network, models, state = health_program(data)
    masks = jnp.asarray(all_combinations(network.graph).survival)
    _, mesh = program.place(models)
    batches = jax.tree.map(lambda a: jnp.asarray(a).reshape(-1, BATCH, *a.shape[1:]), data)

    def model(variables: Variables, models: Models) -> jax.Array:
        wiring = inference_wiring(models.cell, draw_weight(models.cell, models.keys.weight))

        def count(total: jax.Array, batch: Examples) -> tuple[jax.Array, None]:
            logits, informed, _ = jax.vmap(lambda mask: network.apply(variables, batch.x, mask, wiring))(masks)
            correct = (logits.argmax(-1) == batch.y[None]).sum(-1)
            return total + jnp.where(informed > 0, correct, 0), None

        return jax.lax.scan(count, jnp.zeros(len(masks), int), batches)[0]

    call = jax.jit(over_models(mesh, 1, model, 2, 0))
    return lambda: np.asarray(call(state.variables, models)) / len(data.y)


def health_table(data: Examples) -> None:
    """Prints the comparison on the Health network."""
    x, y = np.asarray(data.x), np.asarray(data.y)
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "resilinet_jax, plan": (_MODELS.value, planned(data)),
        "resilinet_jax, plain vmap": (_MODELS.value, plain_vmap(data)),
    }
    if importlib.util.find_spec("torch"):
        from benchmarks.pytorch_health import evaluation_turn

        for compiled in (False, True):
            name = f"PyTorch, {'torch.compile' if compiled else 'eager'}"
            contenders[name] = (1, evaluation_turn(x, y, BATCH, compiled))
    if importlib.util.find_spec("keras"):
        from benchmarks.keras_health import evaluation_turn as keras_turn

        contenders["Keras, predict"] = (1, keras_turn(x, y, BATCH))
    first = {name: np.asarray(turn()) for name, (_, turn) in contenders.items()}
    # The same answers, but that guesses count for nothing in one of them.
    np.testing.assert_allclose(
        first["resilinet_jax, plan"], first["resilinet_jax, plain vmap"], rtol=0, atol=3 / len(data.y)
    )
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_ROUNDS.value):
        for name, (models, turn) in contenders.items():
            start = time.perf_counter()
            turn()
            seconds[name].append((time.perf_counter() - start) / models)
    best = statistics.median(seconds["resilinet_jax, plan"])
    print(f"Health, {len(data.y):,} examples, 8 combinations; per model")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"  {name:28}{1000 * median:10.1f} ms{median / best:8.2f} times as long", flush=True)


def chain_network(fallible: int, units: int) -> Network:
    """A chain with one dense layer a node and a skip around each."""
    return dense_network(
        dict.fromkeys([*(f"n{number}" for number in range(1, fallible + 1)), "cloud"], 1), units, CLASSES
    )


def untrained(network: Network, data: Examples) -> tuple[Variables, Wiring]:
    """Variables and wiring of a resilinet cell."""
    cell = CellBuilder(network.graph, {"no failure": {}}, 0.05, 1e-3)("resilinet")
    numbers = jax.tree.map(jnp.asarray, cell)
    variables = network.init(jax.random.key(0), data.x[:1])
    return variables, inference_wiring(numbers, draw_weight(numbers, run_keys(0, 0).weight))


def evaluate_chain(network: Network, survival: np.ndarray, data: Examples) -> tuple[np.ndarray, float]:
    """Accuracy under each mask, and the seconds of the second call."""
    variables, wiring = untrained(network, data)
    plan = plan_applications(network.graph, survival)

    @jax.jit
    def call(variables: Variables, data: Examples) -> Tally:
        return count_correct(network, variables, wiring, plan, empty_tally(plan.answers), data, default_stack())

    jax.block_until_ready(call(variables, data))
    start = time.perf_counter()
    tally = jax.block_until_ready(call(variables, data))
    return accuracy_of(tally, plan, len(data.y), 1 / CLASSES), time.perf_counter() - start


def oracle(network: Network, survival: np.ndarray, data: Examples) -> np.ndarray:
    """The same by a forward pass for each mask."""
    variables, wiring = untrained(network, data)

    def under(mask: jax.Array) -> jax.Array:
        logits, reached, _ = network.apply(variables, data.x, mask, wiring)
        return jnp.where(reached > 0, (logits.argmax(-1) == jnp.asarray(data.y)).mean(), 1 / CLASSES)

    return np.asarray(jax.jit(lambda masks: jax.lax.map(under, masks))(jnp.asarray(survival)))


def bare_seconds(units: int, applications: int, count: int) -> float:
    """What the stage applications alone take: that many dense layers with ReLU, nothing between them."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(units, units)) / units**0.5, jnp.float32)
    batches, size = -(-count // BATCH), min(count, BATCH)

    @functools.partial(jax.jit, static_argnums=1)
    def call(x: jax.Array, times: int) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: jax.nn.relu(x @ weight + 0.01), x)

    x = jnp.ones((size, units))
    times = max(1, applications * batches // 20)  # a twentieth is enough to know
    call(x, times).block_until_ready()
    start = time.perf_counter()
    call(x, times).block_until_ready()
    return (time.perf_counter() - start) * applications * batches / times


def main(argv: Sequence[str]) -> None:
    """Prints the tables."""
    del argv
    health_table(examples(_EXAMPLES.value))

    chain_of_14(examples(10_000))
    chain_of_30(examples(2_000))


def chain_of_14(data: Examples) -> None:
    """All combinations, exactly."""
    network = chain_network(14, 250)
    survival = all_combinations(network.graph).survival
    applications = plan_applications(network.graph, survival).applications
    accuracy, seconds = evaluate_chain(network, survival, data)
    bare = bare_seconds(250, applications, len(data.y))
    sample = np.random.default_rng(0).choice(len(survival), 200, replace=False)
    difference = np.abs(accuracy[sample] - oracle(network, survival[sample], data)).max()
    print(f"Chain of 14, 250 units, {len(data.y):,} examples, {len(survival):,} combinations")
    print(f"  {applications:,} stage applications {seconds:8.1f} s, {seconds / bare:.2f} times what they take alone")
    print(f"  one pass per combination differs by at most {difference:.1g} on a sample of 200", flush=True)


def chain_of_30(data: Examples) -> None:
    """An interval, and a Monte Carlo estimate that it should agree with."""
    network = chain_network(30, 32)
    rng = np.random.default_rng(0)
    failure = rng.uniform(0.01, 0.1, 30)
    start = time.perf_counter()
    chosen = choose_combinations(network.graph, [failure], tolerance=0.005)
    accuracy, second = evaluate_chain(network, chosen.survival, data)
    low, high = average_accuracy_bounds(accuracy, chosen, failure)
    seconds = time.perf_counter() - start - second
    print(f"Chain of 30, 32 units, {len(data.y):,} examples, {len(chosen.survival):,} combinations")
    print(f"  average accuracy in [{low:.4f}, {high:.4f}], after {seconds:.1f} s with all compilation")
    draws = (rng.random((20_000, 30)) >= failure).astype(np.float32)
    masks, times = np.unique(draws, axis=0, return_counts=True)
    drawn = np.repeat(evaluate_chain(network, masks, data)[0], times)
    print(f"  20,000 draws: {drawn.mean():.4f} +- {drawn.std() / len(drawn) ** 0.5:.4f}")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    app.run(main)
