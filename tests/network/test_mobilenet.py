"""The distributed MobileNetV1: its shapes, and what a failed node leaves untouched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.cells import make_cell
from resilinet_jax.datasets.splits import Examples
from resilinet_jax.engine.training import initial_state, run_keys, train_chunk
from resilinet_jax.network import stages
from resilinet_jax.network.convolutions import FAST, PLAIN
from resilinet_jax.network.forward import ADDED_WEIGHT, Network, Statistics, Wiring
from resilinet_jax.network.graph import build_chain
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios._mobilenet import build_mobilenet
from tests.helpers.mobilenet import GRAPH, NETWORK

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 6, 6, 1)).astype(np.uint8)  # grey, for a smaller stem
LABELS = RNG.integers(0, 3, 8).astype(np.int32)
ADD = Wiring(*[jnp.ones(len(GRAPH.hyperconnections))] * 5)


START = jax.jit(lambda keys: initial_state(NETWORK, keys, IMAGES[:1]))
STEP = jax.jit(
    lambda state, cell, keys: train_chunk(
        NETWORK, None, state, cell, keys, Examples(IMAGES, LABELS), jnp.arange(8)[None]
    )[0]
)
LOGITS = jax.jit(lambda variables, survival, wiring: NETWORK.apply(variables, IMAGES, survival, wiring).logits)


@functools.partial(jax.jit, static_argnums=3)
def compute_gradient(variables, survival, wiring, form):
    def loss(variables):
        output = NETWORK.apply(variables, IMAGES, survival, wiring, jax.random.key(1))
        return (output.logits**2).sum(), output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "operations", lambda: form)
        return jax.grad(loss, has_aux=True)(variables)


def gradient(variables, survival, wiring=ADD, form=FAST):
    """Of the squared logits in training, and the output; in float64."""
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (variables, survival, wiring))
        return jax.device_get(compute_gradient(*inputs, form))


def trained(rates, seed=0, **settings):
    """A run before and after one step in which nodes fail with certainty or not at all."""
    cell = jax.tree.map(jnp.asarray, make_cell(GRAPH, failout_rate=rates, **settings))
    keys = run_keys(0, seed)
    before = START(keys)
    return before.variables, STEP(before, cell, keys).variables


def moved(before, after):
    """Names whose leaves all differ; a name is missing if none does."""
    before, after = jax.device_get((before, after))
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
        network = build_mobilenet(1000, alpha, 160, 0.99, small_images=False)
        variables = jax.eval_shape(lambda key: network.init(key, jnp.zeros((1, 160, 160, 3))), jax.random.key(0))
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
        variables = network.shapes(x)
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
        failed = gradient(variables, jnp.array([0.0, 1.0]))[0].params
        assert not any(leaf.any() for leaf in jax.tree.leaves(failed["m1"]))
        assert any(leaf.any() for leaf in jax.tree.leaves(failed["i->m2"]))
        alive = gradient(variables, jnp.ones(2))[0].params
        assert all(leaf.any() for leaf in jax.tree.leaves(alive["m1"]))

    @pytest.mark.parametrize(
        "logits", [LOGITS, lambda *inputs: gradient(*inputs)[1].logits], ids=["inference", "training"]
    )
    def test_sends_exact_zeros(self, logits):
        # m2 and the cloud must see just what they would see if m1 and its hyperconnections did not exist.
        variables = START(run_keys(0, 0)).variables
        # Biases of normalisation are what leaks; give them a value.
        shifted = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.5), variables.params)
        variables = variables._replace(params=shifted)
        lone = dict(zip(("m1->m2", "m1->m3"), (0.0, 0.0)))
        absent = ADD._replace(
            present=jnp.array([lone.get(edge.name, 1.0) for edge in GRAPH.hyperconnections], jnp.float32)
        )
        failed = logits(variables, jnp.array([0.0, 1.0]), ADD)
        np.testing.assert_array_equal(failed, logits(variables, jnp.array([1.0, 1.0]), absent))
        assert failed.any()

    def test_leaves_stacked_runs_in_which_it_lives_alone(self):
        rates = [{"m1": 1.0}, {"m2": 1.0}, {}]
        cells = [make_cell(GRAPH, failout_rate=rate, training_activity=1.0) for rate in rates]
        before = [jax.device_get(START(run_keys(0, run))) for run in range(3)]
        stacked = (jax.tree.map(lambda *leaves: np.stack(leaves), *each) for each in (before, cells))
        keys = jax.vmap(lambda run: run_keys(0, run))(jnp.arange(3))
        after = jax.device_get(jax.jit(jax.vmap(STEP))(*stacked, keys))
        for run, failed in enumerate(({"m1"}, {"m2"}, set())):
            first, last = before[run].variables, jax.tree.map(lambda leaf, r=run: leaf[r], after.variables)
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
        assert jax.jit(Statistics.row)(m2, jnp.array(arrived))["mean"] == expected[arrived]

    def test_serve_an_arrival_as_they_serve_the_stage_alone(self):
        variables = trained({"m1": 1.0})[1]

        @jax.jit
        def expected(variables):
            def alone(node, arrival, received):
                statistics = jax.tree.map(lambda leaf: leaf[arrival], variables.statistics[node].values)
                given = {"params": variables.params[node], "batch_stats": statistics}
                return NETWORK.stages[node].apply(given, received, False)

            source = alone("i", 0, jnp.asarray(IMAGES))
            skipped = NETWORK.adapters["i->m2"].apply({"params": variables.params["i->m2"]}, source)
            return alone("m3", self.SIMPLE, alone("m2", self.SKIP, skipped))

        select = ADD._replace(activity=jnp.zeros_like(ADD.activity))
        got = LOGITS(variables, jnp.array([0.0, 1.0]), select)
        np.testing.assert_allclose(got, expected(variables), atol=1e-5)


def test_running_statistics_are_averages_that_fade_and_serve_at_inference():
    module, batches = stages.NormaliseRelu6(), np.float32([RNG.normal(k, k, (2, 3, 4, 5)) for k in (1, 2, 3)])
    apply = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]), static_argnums=2)
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), batches[0], False)
    for x in batches:
        output, updated = apply(variables, x, True)
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
    np.testing.assert_allclose(apply(variables, x, False)[0], served, atol=1e-5)


def test_fast_operations_train_as_plain_ones_do():
    variables = START(run_keys(0, 0)).variables
    fast, plain = (gradient(variables, jnp.array([0.0, 1.0]), form=form) for form in (FAST, PLAIN))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), fast, plain)


def test_dropout_is_for_training_only_and_changes_with_the_step(monkeypatch):
    monkeypatch.setattr(stages, "DROPOUT_RATE", 0.5)
    # A classifier alone, behind nodes that pass on what they receive.
    network = Network(build_chain(("i", "n", "cloud")), {"cloud": stages.MobileNetStage((), 3)}, {})
    x, wiring = np.ones((6, 1, 1, 8), np.float32), Wiring(jnp.ones(3), jnp.ones(3), jnp.zeros(3))
    variables = jax.device_get(jax.jit(network.init)(jax.random.key(0), x))
    logits = jax.jit(lambda key: network.apply(variables, x, jnp.ones(1), wiring, key).logits)
    everything = x[:, 0, 0].T @ variables.params["cloud"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(logits(None), everything, rtol=1e-5)
    steps = [logits(jax.random.key(k)) for k in (1, 2)]
    assert (steps[0] != steps[1]).any()
