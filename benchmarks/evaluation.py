"""Evaluation under every failure combination against peers: `python -m benchmarks.evaluation`.

* The Health network (untrained: the arithmetic is the same), all combinations, several models: the plan, through the
  engine's own compiled function; plain `vmap` over masks; and, where they are installed, PyTorch (a forward pass per
  combination, the failed nodes' outputs zeroed) and Keras on TensorFlow and on JAX (likewise, by `predict`), in one
  process with all cores and in one for each core. All are processes of their own, with the same memory settings.
* A chain of 14 nodes that may fail, with all 16,384 combinations, against what its distinct stage applications cost
  when nothing else is done.
* A chain of 30, trained, whose average accuracy is bounded, and drawn as well.
* `--what=batches`: chains of 11 of several widths in batches of 256 and of 1,024, between which the engine chooses by
  `NARROW_BYTES`.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from benchmarks import common, race
from benchmarks.cases import CORES, dense_options
from benchmarks.own import Own
from resilinet_jax.cells import Cell, CellBuilder, draw_weight, inference_wiring
from resilinet_jax.datasets.splits import Examples, Splits
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.engine import evaluation
from resilinet_jax.engine.evaluation import AnyTally, Tally, accuracy_of, count_correct, empty_tally
from resilinet_jax.engine.plan import plan_applications
from resilinet_jax.engine.program import Models, default_stack, over_models
from resilinet_jax.engine.training import RunState, batch_order, initial_state, run_keys, train_chunk
from resilinet_jax.failures.averages import average_accuracy_bounds
from resilinet_jax.failures.combinations import all_combinations, choose_combinations
from resilinet_jax.network.forward import Network, Variables, Wiring
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios.health import dense_network

_MODELS = flags.DEFINE_integer("health_models", 40, "How many of the Health network.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 10_240, "Test examples.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", CORES, "Of each peer; it is tried in one as well.", lower_bound=1)
_WHAT = flags.DEFINE_multi_enum(
    "what",
    ["health", "14", "30"],
    ["health", "14", "30", "batches"],
    "The Health network, chains of 14 and 30, or sizes of a batch.",
)

OURS, PLAIN = "resilinet_jax, plan", "resilinet_jax, plain vmap"
PEERS = {  # how each evaluates, its name, and what it needs
    "eager": ("PyTorch, eager", "torch"),
    "compile": ("PyTorch, torch.compile", "torch"),
    "keras": ("Keras on TensorFlow, predict", "keras", "tensorflow"),
    "keras jax": ("Keras on JAX, predict", "keras"),
}
FEATURES, CLASSES, BATCH = 23, 12, 1024


def examples(count: int) -> Examples:
    """Made-up readings."""
    rng = np.random.default_rng(0)
    return Examples(rng.normal(size=(count, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, count, np.int32))


Placed = tuple[Own, Models, Mesh, RunState]


def health_models(data: Examples) -> Placed:
    """The engine's program for untrained models of the Health network, and these models on its devices."""
    scenario = load_scenario("health")
    network = scenario.build_network(CLASSES, hidden_units=250)
    own = Own(scenario, network, Splits(data, data, data, CLASSES), BATCH, _MODELS.value)
    models, mesh = own.place()
    return own, models, mesh, own.program.compile(mesh, models)["start"](models.keys)


def planned(placed: Placed, data: Examples) -> Callable[[], np.ndarray]:
    """Ours: correct answers by model and combination."""
    own, models, mesh, state = placed
    plan = plan_applications(own.network.graph, all_combinations(own.network.graph).survival)
    call, parts = own.program.compile(mesh, models)["test"], own.program.tested
    nothing = empty_tally(*models.variant.skip_units.shape, plan.answers, classes=CLASSES)

    def turn() -> np.ndarray:
        tally = functools.reduce(lambda tally, part: call(tally, state, models, data, part), parts, nothing)
        assert isinstance(tally, Tally)  # of classes
        return accuracy_of(tally, plan, len(data.y), 0.0)[:, 0]

    return turn


def plain_vmap(placed: Placed, data: Examples) -> Callable[[], np.ndarray]:
    """The oracle: one forward pass for each combination, all at once."""
    own, models, mesh, state = placed
    masks = jnp.asarray(all_combinations(own.network.graph).survival)
    batches = jax.tree.map(lambda a: jnp.asarray(a).reshape(-1, BATCH, *a.shape[1:]), data)

    def model(variables: Variables, models: Models) -> jax.Array:
        wiring = inference_wiring(models.cell, draw_weight(models.cell, models.keys.weight))

        def count(total: jax.Array, batch: Examples) -> tuple[jax.Array, None]:
            logits, informed, _ = jax.vmap(lambda mask: own.network.apply(variables, batch.x, mask, wiring))(masks)
            correct = (logits.argmax(-1) == batch.y[None]).sum(-1)
            return total + jnp.where(informed > 0, correct, 0), None

        return jax.lax.scan(count, jnp.zeros(len(masks), int), batches)[0]

    call = jax.jit(over_models(mesh, 1, model, 2, 0), compiler_options=dense_options())
    return lambda: np.asarray(call(state.variables, models)) / len(data.y)


def health_turn(way: str) -> tuple[Callable[[], Any], int]:
    """A function that evaluates models under all combinations and returns accuracies; and how many models."""
    data = examples(_EXAMPLES.value)
    if way in (OURS, PLAIN):
        made = planned if way == OURS else plain_vmap
        return made(health_models(data), data), _MODELS.value
    if way.startswith("keras"):
        from benchmarks import keras_health

        return keras_health.evaluation_turn(np.asarray(data.x), np.asarray(data.y), BATCH), 1
    from benchmarks import pytorch_health

    return pytorch_health.evaluation_turn(np.asarray(data.x), np.asarray(data.y), BATCH, way == "compile"), 1


def work(way: str, processes: int) -> None:
    """A contender's process."""
    common.take_share(way, processes)
    turn, models = health_turn(way)
    race.serve(turn, {"accuracy": np.asarray(turn()).tolist(), "models": models})


def health_rows() -> list[dict[str, Any]]:
    """The comparison on the Health network, per model; each peer in one process, and in several."""
    named = {way: (way, 1) for way in (OURS, PLAIN)}
    for way, (name, *packages) in PEERS.items():
        if common.installed(*packages):
            for processes in sorted({1, _PROCESSES.value}):
                side_by_side = f", {processes} processes" if processes > 1 else ""
                named[name + side_by_side] = (way, processes)
    given = [f"--{flag.name}={flag.value}" for flag in (_MODELS, _EXAMPLES)]
    raced = race.race(
        (name, race.contender("evaluation", [{"way": way, "processes": processes}] * processes, given))
        for name, (way, processes) in named.items()
    )
    if not {OURS, PLAIN} <= raced.keys():
        raise SystemExit("error: this project itself was left out")
    # The same answers, but that guesses count for nothing in one of them.
    ours, plain = (raced[name][0].told[0]["accuracy"] for name in (OURS, PLAIN))
    np.testing.assert_allclose(ours, plain, rtol=0, atol=3 / _EXAMPLES.value)
    rows: list[dict[str, Any]] = []
    for name, (rival, rates) in raced.items():
        each = [1 / (rate * sum(told["models"] for told in rival.told)) for rate in rates]
        rows.append({"what": "Health", "how": name, "seconds": statistics.median(each), "turns": each})
    for row in rows:
        row["times as long"] = row["seconds"] / rows[0]["seconds"]
    rows[0]["pairs"] = {
        row["how"]: [other / own for own, other in zip(rows[0]["turns"], row["turns"])] for row in rows[1:]
    }
    return rows


def chain_network(fallible: int, units: int) -> Network:
    """A chain with one dense layer a node and a skip around each."""
    return dense_network(
        dict.fromkeys([*(f"n{number}" for number in range(1, fallible + 1)), "cloud"], 1), units, CLASSES
    )


def cell_of(network: Network) -> Cell:
    """Failout of 5 % and skips that are always active: with skips that come and go 30 layers learn little."""
    return jax.tree.map(jnp.asarray, CellBuilder(network.graph, {"no failure": {}}, 0.05, 1e-3)("resilinet_add"))


def wiring_of(network: Network) -> Wiring:
    """Of that cell, at inference."""
    cell = cell_of(network)
    return inference_wiring(cell, draw_weight(cell, run_keys(0, 0).weight))


def trained(network: Network, train: Examples, epochs: int) -> Variables:
    """After so many epochs of that cell, in batches of 256."""
    cell, keys = cell_of(network), run_keys(0, 0)

    @jax.jit
    def epoch(state: RunState, number: jax.Array) -> RunState:
        order = batch_order(keys.chunks, number, np.arange(len(train.y)), 256, padded=False)
        return train_chunk(network, None, state, cell, keys, train, order)[0]

    state = initial_state(network, keys, train.x[:1])
    for number in range(epochs):
        state = epoch(state, jnp.asarray(number))
    return state.variables


def evaluate_chain(
    network: Network, variables: Variables, survival: np.ndarray, data: Examples
) -> tuple[np.ndarray, Callable[[], float]]:
    """Accuracy under each mask, and a function that says how many seconds evaluating them takes once more."""
    wiring = wiring_of(network)
    plan = plan_applications(network.graph, survival)

    def count(variables: Variables, data: Examples) -> AnyTally:
        return count_correct(
            network, variables, wiring, plan, empty_tally(plan.answers, classes=CLASSES), data, default_stack()
        )

    call = jax.jit(count, compiler_options=dense_options())
    tally = jax.block_until_ready(call(variables, data))
    again = race.timed(lambda: jax.block_until_ready(call(variables, data)))
    return accuracy_of(tally, plan, len(data.y), 1 / CLASSES), again


def oracle(network: Network, variables: Variables, survival: np.ndarray, data: Examples) -> np.ndarray:
    """The same by a forward pass for each mask."""
    wiring = wiring_of(network)

    def under(mask: jax.Array) -> jax.Array:
        logits, reached, _ = network.apply(variables, data.x, mask, wiring)
        return jnp.where(reached > 0, (logits.argmax(-1) == jnp.asarray(data.y)).mean(), 1 / CLASSES)

    return np.asarray(jax.jit(lambda masks: jax.lax.map(under, masks))(jnp.asarray(survival)))


def bare_seconds(units: int, applications: int, count: int) -> Callable[[], float]:
    """How many seconds the stage applications alone take: so many dense layers with ReLU, nothing between them."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(units, units)) / units**0.5, jnp.float32)
    batches, size = -(-count // BATCH), min(count, BATCH)

    @functools.partial(jax.jit, static_argnums=1, compiler_options=dense_options())
    def call(x: jax.Array, times: int) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: jax.nn.relu(x @ weight + 0.01), x)

    x = jnp.ones((size, units))
    times = max(1, applications * batches // 20)  # a twentieth is enough to know
    call(x, times).block_until_ready()
    once = race.timed(lambda: call(x, times).block_until_ready())
    return lambda: once() * applications * batches / times


def chain_of_14(data: Examples) -> tuple[list[dict[str, Any]], str]:
    """All combinations, exactly."""
    network = chain_network(14, 250)
    survival = all_combinations(network.graph).survival
    applications = plan_applications(network.graph, survival).applications
    variables = network.init(jax.random.key(0), data.x[:1])  # untrained: the arithmetic is the same
    accuracy, again = evaluate_chain(network, variables, survival, data)
    taken = race.take_turns({"ours": again, "bare": bare_seconds(250, applications, len(data.y))})
    seconds, bare = (statistics.median(taken[name]) for name in ("ours", "bare"))
    sample = np.random.default_rng(0).choice(len(survival), 200, replace=False)
    difference = np.abs(accuracy[sample] - oracle(network, variables, survival[sample], data)).max()
    alone = f"its {applications:,} stage applications alone"
    pairs = {f"{alone}, times as long": [own / other for own, other in zip(taken["ours"], taken["bare"])]}
    rows = [
        {"what": "chain of 14", "how": alone, "seconds": bare},
        {"what": "chain of 14", "how": OURS, "seconds": seconds, "times as long": seconds / bare, "pairs": pairs},
    ]
    return rows, (
        f"Chain of 14: {len(survival):,} combinations of 250 units on {len(data.y):,} examples; one pass per "
        f"combination differs by at most {difference:.1g} on a sample of 200."
    )


def chain_of_30() -> tuple[list[dict[str, Any]], str]:
    """An interval, and a Monte Carlo estimate that it should agree with."""
    network = chain_network(30, 32)
    splits = split_dataset(load_synthetic(), "random", 0, 16_000)
    variables, test = trained(network, splits.train, epochs=150), Examples(splits.test.x[:2000], splits.test.y[:2000])
    rng = np.random.default_rng(0)
    failure = rng.uniform(0.01, 0.1, 30)
    start = time.perf_counter()
    chosen = choose_combinations(network.graph, [failure], tolerance=0.005)
    accuracy, _ = evaluate_chain(network, variables, chosen.survival, test)
    low, high = average_accuracy_bounds(accuracy, chosen, failure)
    seconds = time.perf_counter() - start
    draws = (rng.random((20_000, 30)) >= failure).astype(np.float32)
    masks, times = np.unique(draws, axis=0, return_counts=True)
    drawn = np.repeat(evaluate_chain(network, variables, masks, test)[0], times)
    rows = [{"what": "chain of 30", "how": "an interval, with all compilation", "seconds": seconds}]
    return rows, (
        f"Chain of 30, trained: {len(chosen.survival):,} combinations of 32 units on {len(test.y):,} examples; "
        f"{accuracy[0]:.4f} with nothing failed; the average accuracy is in [{low:.4f}, {high:.4f}], 20,000 draws say "
        f"{drawn.mean():.4f} +- {drawn.std() / len(drawn) ** 0.5:.4f}."
    )


def batches(
    data: Examples, widths: Sequence[int] = (16, 32, 64, 100, 128, 160, 250), fallible: int = 11
) -> list[dict[str, Any]]:
    """By width of the layers, how many times as long a quarter of `BATCH` at a time takes as all of it.

    Args:
      data: at least `BATCH` examples.
      widths: units of each layer.
      fallible: nodes of the chain that may fail.
    """
    rows = []
    for units in widths:
        network = chain_network(fallible, units)
        survival = all_combinations(network.graph).survival
        variables = network.init(jax.random.key(0), data.x[:1])
        timed, accuracy = {}, {}
        for how, bound in (("few", 2**30), ("many", 0)):
            with mock.patch.object(evaluation, "NARROW_BYTES", bound):
                accuracy[how], timed[how] = evaluate_chain(network, variables, survival, data)
        np.testing.assert_allclose(accuracy["few"], accuracy["many"], atol=1 / len(data.y))
        taken = race.take_turns(timed)
        ratios = [few / many for few, many in zip(taken["few"], taken["many"])]
        rows.append(
            {
                "what": f"chain of {fallible}, {units} units",
                "how": f"{BATCH // 4} examples at a time",
                "seconds": statistics.median(taken["few"]),
                "times as long": statistics.median(ratios),
                "pairs": {f"{BATCH:,} at a time, times as long": ratios},
            }
        )
    return rows


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    if (asked := race.asked()) is not None:
        work(**asked)
        return
    common.set_up_jax()
    rows, notes = [], []
    if "health" in _WHAT.value:
        rows += health_rows()
        notes.append(f"Health: 8 combinations on {_EXAMPLES.value:,} examples, per model; medians.")
    for number, chain in (("14", lambda: chain_of_14(examples(4096))), ("30", chain_of_30)):
        if number in _WHAT.value:
            more, note = chain()
            rows += more
            notes.append(note)
    if "batches" in _WHAT.value:
        rows += batches(examples(4096))
        notes.append(f"Chains of 11: all combinations on 4,096 examples, against {BATCH:,} at a time; medians.")
    columns = {"what": "", "how": "", "seconds": ",.3f", "times as long": ".2f"}
    common.tell("Evaluation under failure combinations", columns, rows, notes)


if __name__ == "__main__":
    app.run(main)
