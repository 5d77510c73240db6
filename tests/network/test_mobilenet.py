"""The distributed MobileNetV1: its shapes, and what a failed node leaves untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.cells import make_cell
from resilinet_jax.datasets.splits import Examples
from resilinet_jax.engine.training import initial_state, run_keys, train_chunk
from resilinet_jax.network import stages
from resilinet_jax.network.convolutions import PLAIN
from resilinet_jax.network.forward import ADDED_WEIGHT, Statistics, Wiring
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios._mobilenet import build_mobilenet
from tests.helpers.mobilenet import GRAPH, NETWORK

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, 8).astype(np.int32)
ADD = Wiring(*(jnp.ones(len(GRAPH.hyperconnections)) for _ in Wiring._fields))


START = jax.jit(lambda keys: initial_state(NETWORK, keys, IMAGES[:1], 1))
STEP = jax.jit(
    lambda state, cell, keys: train_chunk(
        NETWORK, None, state, cell, keys, Examples(IMAGES, LABELS), jnp.arange(8)[None]
    )[0]
)
LOSS = jax.jit(
    jax.grad(lambda v, survival: (NETWORK.apply(v, IMAGES, survival, ADD, jax.random.key(1)).logits ** 2).sum())
)


def trained(rates, seed=0, start=START, step=STEP, **settings):
    """A run before and after one step in which nodes fail with certainty or not at all."""
    cell = jax.tree.map(jnp.asarray, make_cell(GRAPH, failout_rate=rates, **settings))
    keys = run_keys(0, seed)
    before = start(keys)
    return before.variables, step(before, cell, keys).variables


def moved(before, after):
    """Names whose leaves all differ; a name is missing if none does."""
    changed = {
        name: [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (before[name], after[name])))]
        for name in before
    }
    assert all(len(set(flags)) == 1 for flags in changed.values()), changed
    return {name for name, flags in changed.items() if all(flags)}


class TestShapes:
    @pytest.mark.parametrize(("alpha", "parameters"), [(1.0, 3_228_864), (0.75, 1_832_976), (0.25, 218_544)])
    def test_parameters_are_those_of_keras(self, alpha, parameters):
        # keras.applications.MobileNet(include_top=False) reports these, running statistics included.
        variables = jax.eval_shape(
            lambda key: build_mobilenet(1000, alpha, 0.99, small_images=False).init(key, jnp.zeros((1, 160, 160, 3))),
            jax.random.key(0),
        )
        count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
        head = count(variables.params["m3"]["Dense_0"])
        adapters = sum(count(variables.params[name]) for name in ("i->m2", "m1->m3", ADDED_WEIGHT))
        normalised = 27  # each counts its steps, which Keras doesn't
        statistics = sum(count(of_node.values) // len(of_node.seen) for of_node in variables.statistics.values())
        assert count(variables.params) + statistics - head - adapters - normalised == parameters

    @pytest.mark.parametrize(
        ("scenario", "size", "expected"),
        [
            ("cifar10", 32, {"i": (8, 32), "m1": (32, 32), "m2": (128, 8)}),
            ("imagenet", 160, {"i": (8, 80), "m1": (32, 40), "m2": (128, 10)}),
        ],
    )
    def test_feature_maps_between_nodes(self, scenario, size, expected):
        network = load_scenario(scenario).build_network(10, alpha=0.25, image_size=size, momentum=0.99)
        x = jnp.zeros((1, size, size, 3))
        variables = jax.eval_shape(network.init, jax.random.key(0), x)
        value = x
        for node, (channels, side) in expected.items():
            statistics = jax.eval_shape(lambda of_node: of_node.row(jnp.array(0)), variables.statistics[node])
            given = {"params": variables.params[node], "batch_stats": statistics}
            value = jax.eval_shape(lambda g, v, n=node: network.stages[n].apply(g, v, False), given, value)
            assert value.shape == (channels, side, side, 1)


class TestAFailedNode:
    def test_moves_neither_its_parameters_nor_its_statistics(self):
        everything = {"i", "m1", "m2", "m3"}
        for rates, failed, silent_edges in [
            ({}, set(), {"i->m2", "m1->m3"}),  # select: skips are silent while everything is alive
            ({"m1": 1.0}, {"m1"}, {"m1->m3"}),
            ({"m2": 1.0}, {"m2"}, {"i->m2"}),
        ]:
            before, after = trained(rates)
            alive = (everything | {"i->m2", "m1->m3"}) - silent_edges - failed
            assert moved(before.params, after.params) == alive
            assert moved(before.statistics, after.statistics) == everything - failed

    def test_gets_zero_gradients(self):
        variables = START(run_keys(0, 0)).variables
        gradient = LOSS(variables, jnp.array([0.0, 1.0])).params
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["m1"]))
        assert any(leaf.any() for leaf in jax.tree.leaves(gradient["i->m2"]))
        alive = LOSS(variables, jnp.ones(2)).params
        assert all(leaf.any() for leaf in jax.tree.leaves(alive["m1"]))

    @pytest.mark.parametrize("training_key", [None, jax.random.key(1)], ids=["inference", "training"])
    def test_sends_exact_zeros(self, training_key):
        # m2 and the cloud must see just what they would see if m1 and its hyperconnections did not exist.
        variables = START(run_keys(0, 0)).variables
        # Biases of normalisation are what leaks; give them a value.
        shifted = jax.tree.map(lambda leaf: leaf + 0.5, variables.params)
        variables = variables._replace(params=shifted)
        lone = dict(zip(("m1->m2", "m1->m3"), (0.0, 0.0)))
        absent = ADD._replace(
            present=jnp.array([lone.get(edge.name, 1.0) for edge in GRAPH.hyperconnections], jnp.float32)
        )
        failed = NETWORK.apply(variables, IMAGES, jnp.array([0.0, 1.0]), ADD, training_key)
        missing = NETWORK.apply(variables, IMAGES, jnp.array([1.0, 1.0]), absent, training_key)
        np.testing.assert_array_equal(failed.logits, missing.logits)
        assert failed.logits.any()

    def test_leaves_stacked_runs_in_which_it_lives_alone(self):
        rates = [{"m1": 1.0}, {"m2": 1.0}, {}]
        cells = [
            jax.tree.map(jnp.asarray, make_cell(GRAPH, failout_rate=rate, training_activity=1.0)) for rate in rates
        ]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cells)
        keys = jax.vmap(lambda run: run_keys(0, run))(jnp.arange(3))
        before = jax.vmap(START)(keys)
        after = jax.jit(jax.vmap(STEP))(before, stacked, keys)
        for run, failed in enumerate(({"m1"}, {"m2"}, set())):
            first, last = (jax.tree.map(lambda leaf, r=run: leaf[r], s.variables) for s in (before, after))
            assert moved(first.statistics, last.statistics) == {"i", "m1", "m2", "m3"} - failed
            assert {"m1", "m2"} - moved(first.params, last.params) == failed
            # Each run of the stack equals the run alone, but for rounding, which Adam's first step may blow up.
            _, alone = trained(rates[run], seed=run, training_activity=1.0)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), last.statistics, alone.statistics)


class TestRunningStatisticsByArrival:
    # Of m2: bit 0 is m1->m2, bit 1 the skip i->m2.
    SIMPLE, SKIP, BOTH = 1, 2, 3

    @pytest.mark.parametrize(
        ("rates", "activity", "arrival"),
        [({}, 0.0, SIMPLE), ({"m1": 1.0}, 0.0, SKIP), ({}, 1.0, BOTH)],
    )
    def test_a_step_moves_those_of_what_arrived_alone(self, rates, activity, arrival):
        before, after = (each.statistics["m2"] for each in trained(rates, training_activity=activity))
        np.testing.assert_array_equal(after.seen, np.arange(4) == arrival)
        for old, new in zip(*(jax.tree.leaves(each.values) for each in (before, after))):
            same = [(old[row] == new[row]).all() for row in range(4)]
            assert same == [row != arrival for row in range(4)]

    @pytest.mark.parametrize("arrived", [SIMPLE, SKIP, BOTH])
    def test_inference_takes_those_of_what_arrives_or_else_the_most_frequent(self, arrived):
        # Marks each row by its number, and says what a stage without other layers has to make of it.
        value = jnp.arange(4.0)
        m2 = Statistics(jnp.array([0.0, 5.0, 0.0, 7.0]), {"mean": value})
        expected = {self.SIMPLE: self.SIMPLE, self.SKIP: self.BOTH, self.BOTH: self.BOTH}
        assert m2.row(jnp.array(arrived))["mean"] == expected[arrived]

    def test_serve_an_arrival_as_they_serve_the_stage_alone(self):
        variables = trained({"m1": 1.0})[1]

        def alone(node, arrival, received):
            statistics = jax.tree.map(lambda leaf: leaf[arrival], variables.statistics[node].values)
            given = {"params": variables.params[node], "batch_stats": statistics}
            return NETWORK.stages[node].apply(given, received, False)

        source = alone("i", 0, jnp.asarray(IMAGES))
        skipped = NETWORK.adapters["i->m2"].apply({"params": variables.params["i->m2"]}, source)
        expected = alone("m3", self.SIMPLE, alone("m2", self.SKIP, skipped))
        select = ADD._replace(activity=jnp.zeros_like(ADD.activity))
        got = NETWORK.apply(variables, IMAGES, jnp.array([0.0, 1.0]), select)
        np.testing.assert_allclose(got.logits, expected, atol=1e-5)


def test_running_statistics_are_averages_that_fade_and_serve_at_inference():
    module, batches = (
        stages.NormaliseRelu6(),
        [jnp.asarray(RNG.normal(k, k, (2, 3, 4, 5)), jnp.float32) for k in (1, 2, 3)],
    )
    variables = module.init(jax.random.key(0), batches[0], False)
    for x in batches:
        output, updated = module.apply(variables, x, True, mutable=["batch_stats"])
        variables = variables | updated
        mean, variance = (value[:, None, None, None] for value in (x.mean((1, 2, 3)), x.var((1, 2, 3))))
        np.testing.assert_allclose(output, np.clip((x - mean) / np.sqrt(variance + 1e-3), 0, 6), atol=1e-5)
    weights = np.array([0.99**2, 0.99, 1])
    for name, statistic in (("mean", np.mean), ("variance", np.var)):
        seen = [statistic(x, (1, 2, 3)) for x in batches]
        expected = weights @ seen / weights.sum()
        np.testing.assert_allclose(variables["batch_stats"][name], expected, rtol=1e-4)
    mean, variance = (np.asarray(variables["batch_stats"][name])[:, None, None, None] for name in ("mean", "variance"))
    served = np.clip((x - mean) / np.sqrt(variance + 1e-3), 0, 6)
    np.testing.assert_allclose(module.apply(variables, x, False), served, atol=1e-5)


def test_fast_operations_train_as_plain_ones_do(monkeypatch):
    with jax.enable_x64(True):
        settings = {"training_activity": 1.0, "learning_rate": 1e-3, "start": jax.jit(START.__wrapped__)}
        _, fast = trained({"m1": 1.0}, **settings, step=jax.jit(STEP.__wrapped__))
        monkeypatch.setattr(stages, "operations", lambda: PLAIN)
        _, plain = trained({"m1": 1.0}, **settings, step=jax.jit(lambda *run: STEP.__wrapped__(*run)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), fast, plain)


def test_dropout_is_for_training_only_and_changes_with_the_step(monkeypatch):
    monkeypatch.setattr(stages, "DROPOUT_RATE", 0.5)
    variables = START(run_keys(0, 0)).variables
    alive = jnp.ones(2)
    twice = [NETWORK.apply(variables, IMAGES, alive, ADD).logits for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    steps = [NETWORK.apply(variables, IMAGES, alive, ADD, jax.random.key(k)).logits for k in (1, 2)]
    assert (steps[0] != steps[1]).any()
