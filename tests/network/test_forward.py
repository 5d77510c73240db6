import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import failing_sets
from resilinet_jax.network.forward import ADDED_WEIGHT, Network, Wiring
from resilinet_jax.network.graph import build_chain, build_graph
from resilinet_jax.network.senders import has_path
from resilinet_jax.network.stages import DenseStage, as_module, dense
from tests.helpers.graphs import LADDER
from tests.helpers.reference import CHAIN, TREE, all_masks, forward


def network_on(graph):
    stages = {
        node: DenseStage(1 + number % 2, 5, 3 if node == graph.cloud else None)
        for number, node in enumerate(graph.order[1:])
    }
    from_source = [edge.name for edge in graph.skips if edge.source == graph.sources[0]]
    return Network(graph, stages, {name: dense(5) for name in from_source})


X = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)


@functools.cache
def randomised(graph):
    """A network on a graph, variables for it, and its compiled `apply`.

    Biases are zero at first; a test that biases don't leak needs them to be something.
    """
    network, rng = network_on(graph), np.random.default_rng(0)
    shapes = network.shapes(X)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    return network, variables, jax.jit(network.apply)


def wiring_for(graph, rng, activity, absent=()):
    edges = graph.hyperconnections
    present = [0.0 if edge.is_skip and graph.skip_label(edge) in absent else 1.0 for edge in edges]
    weight = rng.uniform(0.5, 1.5, len(edges))
    drawn = {"add": np.ones(len(edges)), "select": np.zeros(len(edges)), "drawn": rng.integers(0, 2, len(edges))}
    return Wiring(*(jnp.asarray(values, jnp.float32) for values in (present, weight, drawn[activity])))


@pytest.mark.parametrize("activity", ["add", "select", "drawn"])
@pytest.mark.parametrize("graph", [CHAIN, TREE], ids=["chain", "tree"])
def test_apply_matches_a_numpy_loop_under_every_mask(graph, activity):
    rng = np.random.default_rng(1)
    _, variables, apply = randomised(graph)
    for absent in ((), (graph.skip_label(graph.skips[1]),)):
        wiring = wiring_for(graph, rng, activity, absent)
        for alive in all_masks(graph):
            survival = jnp.array([alive[node] for node in graph.fallible], jnp.float32)
            logits, informed, _ = apply(variables, X, survival, wiring)
            expected, arrived = forward(graph, variables.params, X, alive, *(np.asarray(part) for part in (
                wiring.weight, wiring.present, wiring.activity)))  # fmt: skip
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4, err_msg=str(alive))
            assert bool(informed) == arrived, alive


def test_two_node_graph_by_hand():
    class Scale(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            return x * self.param("factor", nn.initializers.constant(3.0), ()) + 1.0

    graph = build_chain(("i", "n", "c"))
    network = Network(graph, {"n": Scale(), "c": Scale()}, {})
    x = jnp.array([[2.0]])
    variables, apply = jax.jit(network.init)(jax.random.key(0), x), jax.jit(network.apply)
    assert [edge.name for edge in graph.hyperconnections] == ["i->n", "n->c", "i->c"]

    def logit(alive, activity, present=1.0):
        wiring = Wiring(jnp.array([1, 1, present]), jnp.array([1, 0.5, 10.0]), jnp.full(3, activity))
        output = apply(variables, x, jnp.array([alive]), wiring)
        return float(output.logits[0, 0]), float(output.informed)

    # n sends 3*2+1 = 7; the cloud receives 0.5*7 and, if the skip is active, 10*2.
    assert logit(1.0, 0.0) == (3 * 3.5 + 1, 1)
    assert logit(1.0, 1.0) == (3 * 23.5 + 1, 1)
    assert logit(0.0, 0.0) == (3 * 20 + 1, 1)
    assert logit(0.0, 1.0) == (3 * 20 + 1, 1)
    assert logit(0.0, 1.0, present=0.0) == (0, 0)  # silent: not even the bias


# Of the weight of each hyperconnection, as what the cloud receives tells by its digits which of them brought it.
DIGITS = {"i->a": 1.0, "a->b": 1.0, "a->cloud": 10.0, "b->cloud": 100.0, "i->cloud": 1000.0}


@functools.cache
def compiled_ladder(bias):
    """Nodes pass on the sum of what they receive; each hyperconnection has an adapter that adds a bias."""
    network = Network(LADDER, {}, {edge.name: lambda x: x + bias for edge in LADDER.hyperconnections})
    return jax.jit(network.init)(jax.random.key(0), jnp.ones((1, 1))), jax.jit(network.apply)


def ladder_says(bias, dead, activity=0.0, absent=()):
    variables, apply = compiled_ladder(bias)
    names = [edge.name for edge in LADDER.hyperconnections]
    present, weight = [float(name not in absent) for name in names], [DIGITS[name] for name in names]
    survival = jnp.array([float(name not in dead) for name in LADDER.fallible])
    output = apply(
        variables, jnp.ones((1, 1)), survival, Wiring(jnp.array(present), jnp.array(weight), jnp.full(5, activity))
    )
    assert bool(output.informed) == bool(output.logits[0, 0])
    return float(output.logits[0, 0])


@pytest.mark.parametrize(
    ("dead", "select", "add"),
    [
        ((), 110, 1110),
        (("a",), 1000, 1000),
        (("b",), 1010, 1010),
        (("b->cloud",), 1010, 1010),
        (("i->cloud",), 110, 110),
    ],
)
def test_a_skip_around_two_nodes_stands_in_for_the_last_link_of_its_path(dead, select, add):
    # While b is silent, the skip carries, although a, the first that it bypasses, sends to the cloud.
    assert ladder_says(0.0, dead) == select
    assert ladder_says(0.0, dead, activity=1.0) == add


@pytest.mark.parametrize(
    ("dead", "absent", "expected"),
    [
        # a sends 1 + 0.5; b sends 1.5 + 0.5; the cloud receives 10 (1.5 + 0.5), 100 (2 + 0.5), 1000 (1 + 0.5).
        ((), (), 20 + 250),
        (("b",), (), 20 + 1500),
        (("b->cloud",), (), 20 + 1500),
        (("a",), (), 1500),
        (("b",), ("i->cloud",), 20),
        (("b", "i->cloud"), (), 20),
        (("a", "i->cloud"), (), 0),
        (("a",), ("i->cloud",), 0),
    ],
)
def test_no_bias_of_an_adapter_leaks_over_a_silent_link(dead, absent, expected):
    assert ladder_says(0.5, dead, absent=absent) == expected


def test_what_fails_or_hears_nothing_sends_exact_zeros():
    # Two sources, either of which may fail, and stages with a bias.
    graph = build_graph(
        ("i", "j", "a", "b", "cloud"), [("i", "a"), ("j", "b"), ("a", "cloud"), ("b", "cloud")], sources=2
    )
    network = Network(graph, {node: lambda x: x + 1 for node in graph.order}, {})
    x, wiring = jnp.ones((1, 1)), Wiring(jnp.ones(4), jnp.ones(4), jnp.zeros(4))
    variables, outputs = jax.jit(network.init)(jax.random.key(0), x), jax.jit(network.outputs)
    for dead, expected in (
        ((), {"i": 2, "j": 2, "a": 3, "b": 3, "cloud": 7}),
        (("i",), {"i": 0, "j": 2, "a": 0, "b": 3, "cloud": 4}),
        (("i", "b"), {"i": 0, "j": 2, "a": 0, "b": 0, "cloud": 0}),
    ):
        survival = jnp.array([float(name not in dead) for name in graph.fallible])
        sent, _ = outputs(variables, x, survival, wiring)
        assert {node: float(each.value[0, 0]) for node, each in sent.items()} == expected
        assert {node: float(each.sends) for node, each in sent.items()} == {n: v > 0 for n, v in expected.items()}


def test_no_stage_keeps_statistics_of_endless_arrivals():
    names = [f"s{number}" for number in range(13)]
    graph = build_graph([*names, "cloud"], [(name, "cloud") for name in names], [], sources=13)

    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            return nn.BatchNorm(use_running_average=not training)(x)

    network = Network(graph, {"cloud": Normalised()}, {})
    with pytest.raises(UserError, match=r"of 'cloud' keeps statistics .* expected at most 4,096 sets, got 8,192"):
        network.shapes(jnp.ones((1, 2)))


def test_statistics_are_kept_and_used_apart_for_each_arrival():
    class Counting(nn.Module):
        """Adds how often it was trained: 10 for each time with what arrives."""

        @nn.compact
        def __call__(self, x, training):
            steps = self.variable("batch_stats", "steps", jnp.zeros, ())
            if training:
                steps.value = steps.value + 1
            return x + 10 * steps.value

    graph, x = build_chain(("i", "n", "cloud")), jnp.ones((1, 1))
    network = Network(graph, {"cloud": Counting()}, {})
    variables, wiring = jax.jit(network.init)(jax.random.key(0), x), Wiring(jnp.ones(3), jnp.ones(3), jnp.zeros(3))
    apply = jax.jit(network.apply)
    for alive in (1.0, 1.0, 0.0, 1.0):
        after = apply(variables, x, jnp.array([alive]), wiring, jax.random.key(0)).statistics
        variables = variables._replace(statistics=after)
    # Of the cloud: bit 0 is n->cloud, bit 1 the skip i->cloud, which carries while n has failed.
    assert after["cloud"].seen.tolist() == after["cloud"].values["steps"].tolist() == [0, 3, 1, 0]
    for alive, activity, expected in ((1.0, 0.0, 1 + 30), (0.0, 0.0, 1 + 10), (1.0, 1.0, 2 + 30)):
        logits = apply(variables, x, jnp.array([alive]), wiring._replace(activity=jnp.full(3, activity))).logits
        assert float(logits[0, 0]) == expected


def test_every_node_draws_its_own_noise_in_training():
    class Noise(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            return jax.random.normal(self.make_rng("dropout"), x.shape) if training else x

    graph, x = build_chain(("i", "n", "cloud")), jnp.ones((1, 4))
    network = Network(graph, {"n": Noise(), "cloud": Noise()}, {})
    variables, wiring = jax.jit(network.init)(jax.random.key(0), x), Wiring(jnp.ones(3), jnp.ones(3), jnp.zeros(3))
    sent, _ = jax.jit(network.outputs)(variables, x, jnp.ones(1), wiring, jax.random.key(1))
    assert (np.asarray(sent["n"].value) != np.asarray(sent["cloud"].value)).all()


@pytest.mark.parametrize("given", [nn.gelu, nn.Sequential([nn.gelu])])
def test_an_activation_is_the_same_function_in_training(given):
    # Its second parameter chooses between two formulas, and has nothing to do with training.
    stage, x = as_module("the stage", given, told=True), jnp.linspace(-3, 3, 7)
    for training in (True, False):
        np.testing.assert_array_equal(stage.apply({}, x, training), nn.gelu(x))


@pytest.mark.parametrize("graph", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("activity", ["add", "select"])
def test_information_arrives_exactly_where_the_graph_has_a_path(graph, activity):
    rng = np.random.default_rng(2)
    _, variables, apply = randomised(graph)
    for absent in ((), (graph.skip_label(graph.skips[0]),), tuple(graph.skip_label(skip) for skip in graph.skips)):
        wiring = wiring_for(graph, rng, activity, absent)
        present = [skip for skip in graph.skips if graph.skip_label(skip) not in absent]
        for failing in failing_sets(graph.fallible):
            survival = jnp.array([float(node not in failing) for node in graph.fallible])
            logits, informed, _ = apply(variables, X, survival, wiring)
            assert bool(informed) == has_path(graph, failing, present), (absent, failing)
            if not informed:
                assert not np.asarray(logits).any()


def test_a_failed_node_and_the_silent_get_no_gradient():
    network, variables, _ = randomised(CHAIN)
    wiring = wiring_for(CHAIN, np.random.default_rng(0), "select", absent=("n1",))

    @jax.jit
    @jax.grad
    def loss_gradient(variables, survival):
        return (network.apply(variables, X, survival, wiring).logits ** 2).sum()

    def moved(survival):
        gradient = jax.device_get(loss_gradient(variables, jnp.array(survival)).params)
        return {name for name, leaves in gradient.items() if any(leaf.any() for leaf in jax.tree.leaves(leaves))}

    assert moved([1.0, 1.0, 1.0]) == {"n1", "n2", "n3", "n4"}
    assert moved([0.0, 1.0, 1.0]) == {"i->n2", "n2", "n3", "n4"}
    assert moved([1.0, 1.0, 0.0]) == {"n1", "n2", "n4"}
    # With the skip from n1 absent, nothing passes n2: n3 is alive but silent, and so is the cloud.
    assert moved([1.0, 0.0, 1.0]) == set()


def test_learned_weights_have_the_gradient_of_weights_and_fixed_ones_none():
    network, variables, _ = randomised(CHAIN)
    wiring = wiring_for(CHAIN, np.random.default_rng(0), "add")
    edges = len(CHAIN.hyperconnections)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def evaluate(params, weight, learned):
        used = wiring._replace(weight=weight, learned=jnp.full(edges, learned))
        return (network.apply(variables._replace(params=params), X, jnp.ones(3), used).logits ** 2).sum()

    def loss(*inputs):
        return evaluate(*inputs)[0]

    untouched = variables.params | {ADDED_WEIGHT: jnp.zeros(edges)}
    of_params, of_weight = evaluate(untouched, wiring.weight, 1.0)[1]
    assert (np.asarray(of_weight) != 0).all()
    np.testing.assert_array_equal(of_params[ADDED_WEIGHT], of_weight)
    assert not np.asarray(evaluate(untouched, wiring.weight, 0.0)[1][0][ADDED_WEIGHT]).any()
    # What was added counts, where it is learned, as if it had been in the weight from the start.
    added = untouched | {ADDED_WEIGHT: jnp.arange(edges) / 4.0}
    expected = loss(untouched, wiring.weight + jnp.arange(edges) / 4.0, 1.0)
    np.testing.assert_allclose(loss(added, wiring.weight, 1.0), expected, rtol=1e-6)
    assert loss(added, wiring.weight, 0.0) == loss(untouched, wiring.weight, 0.0)


def test_a_failed_node_that_overflowed_sends_zero():
    _, variables, apply = randomised(CHAIN)
    overflowed = jax.tree.map(lambda leaf: np.full_like(leaf, np.inf), variables.params["n1"])
    variables = variables._replace(params=variables.params | {"n1": overflowed})
    wiring = wiring_for(CHAIN, np.random.default_rng(0), "select")
    assert not np.isfinite(apply(variables, X, jnp.ones(3), wiring).logits).all()
    logits = apply(variables, X, jnp.array([0.0, 1.0, 1.0]), wiring).logits
    assert np.isfinite(logits).all()
    assert np.asarray(logits).any()


def test_shapes_that_cannot_be_summed_are_refused():
    network = Network(CHAIN, {node: DenseStage(1, 5) for node in CHAIN.order[1:]}, {})
    with pytest.raises(UserError, match=r"node 'n2' can't sum.*i->n2 \(1, 7\).*add an adapter"):
        network.shapes(X)


def test_shapes_are_those_of_the_variables_and_run_each_stage_once():
    ran = []

    def stage(x):
        ran.append(x.shape)
        return x

    network = Network(CHAIN, {"n1": stage, "n2": DenseStage(1, 7)}, {})
    shapes, again = network.shapes(X), network.shapes(X[:2])
    made = network.init(jax.random.key(0), X[:1])
    told, expected, repeated = (jax.tree.map(lambda a: (a.shape, a.dtype), each) for each in (shapes, made, again))
    assert told == expected == repeated
    assert len(ran) == 2  # for the shapes, and for what was made


def test_initial_parameters_are_keras_defaults():
    network = Network(CHAIN, {"n3": DenseStage(1, 200)}, {})
    variables = jax.jit(network.init)(jax.random.key(0), np.ones((1, 200), np.float32))
    layer = variables.params["n3"]["Dense_0"]
    limit = np.sqrt(6 / 400)
    assert not np.asarray(layer["bias"]).any()
    assert np.abs(layer["kernel"]).max() == pytest.approx(limit, rel=0.01)
    assert np.asarray(layer["kernel"]).std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_a_graph_may_have_more_than_a_hundred_nodes():
    """While it traces, JAX can't iterate over an array at hand that has a hundred entries or more."""
    graph = build_chain(["i", *(f"n{number}" for number in range(120)), "cloud"])
    network = Network(graph, {"cloud": DenseStage(1, 5, 3)}, {})
    alive, wiring = jnp.ones(120), Wiring(*[jnp.ones(len(graph.hyperconnections))] * 3)
    variables = network.shapes(X)
    logits = jax.eval_shape(lambda variables: network.apply(variables, X, alive, wiring).logits, variables)
    assert logits.shape == (4, 3)
