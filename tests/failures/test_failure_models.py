"""Failing links and correlated failures, against enumeration in NumPy loops; several sources."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.cells import CellBuilder, inference_wiring, make_cell
from resilinet_jax.datasets.splits import Examples
from resilinet_jax.engine.evaluation import accuracy_of, count_correct, empty_tally
from resilinet_jax.engine.plan import plan_applications
from resilinet_jax.errors import UserError
from resilinet_jax.failures.averages import average_accuracy_bounds
from resilinet_jax.failures.combinations import (
    all_combinations,
    failing_sets,
    failure_combinations,
    information_probability,
)
from resilinet_jax.failures.model import FailureModel
from resilinet_jax.network.forward import Network
from resilinet_jax.network.graph import build_chain, build_graph
from resilinet_jax.network.senders import has_path, senders
from resilinet_jax.network.stages import DenseStage, dense
from resilinet_jax.scenarios.health_sensors import GRAPH, SCENARIO, SITES, build_network

# Four nodes in a row; three links and one pair of nodes may fail besides each inner node.
NODES = ("i", "a", "b", "cloud")
LINKS = ("i->a", "i->b", "b->cloud")
FOUR = build_graph(
    NODES,
    list(itertools.pairwise(NODES)),
    list(zip(NODES, NODES[2:])),
    links=LINKS,
    groups={"pair": ("a", "b->cloud")},
)
NETWORK = Network(
    FOUR,
    {"a": DenseStage(1, 7), "b": DenseStage(2, 7), "cloud": DenseStage(1, 7, 3)},
    {"i->b": dense(7)},
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5)).astype(np.float32)
PROBABILITY = {"a": 0.1, "b": 0.2, "i->a": 0.05, "i->b": 0.3, "b->cloud": 0.15, "pair": 0.25}
CHANCE = 1 / 3
NETWORKS = {"links": NETWORK, "sources": build_network(3, hidden_units=6)}
INPUTS = {"links": X, "sources": RNG.normal(size=(60, 23)).astype(np.float32)}


@functools.cache
def compiled(name):
    """Of a network: variables; outputs under each failure combination, a pass for each; and accuracies by the plan."""
    network, x = NETWORKS[name], INPUTS[name]
    masks = failure_combinations(network.graph.fallible)
    plan = plan_applications(network.graph, masks)
    passes = jax.jit(jax.vmap(network.apply, in_axes=(None, None, 0, None)))
    count = jax.jit(functools.partial(count_correct, network, plan=plan, tally=empty_tally(plan.answers, classes=3)))

    def outputs(variables, wiring, x=x):
        return jax.device_get(passes(variables, x, masks, wiring))

    def accuracy(variables, wiring, y):
        tally = count(variables, wiring, examples=Examples(x, y))
        return accuracy_of(tally, plan, len(y), CHANCE)

    rng = np.random.default_rng(1)
    random = jax.tree.map(lambda leaf: 0.4 * rng.normal(size=leaf.shape).astype(np.float32), network.shapes(x))
    return random, outputs, accuracy


def layers(params, x, last=False):
    names = sorted(params)
    for number, name in enumerate(names):
        x = x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)
        if not (last and number == len(names) - 1):
            x = np.maximum(x, 0)
    return x


def accuracy_by_hand(params, dead, activity, y):
    """By the rules of docs/running.md, written out for the four nodes."""
    adapter = params["i->b"]
    zero = np.zeros((len(X), 7))
    a_hears = "i->a" not in dead
    a_sends = a_hears and "a" not in dead
    a = layers(params["a"], X.astype(np.float64)) if a_sends else zero
    simple = a_sends  # the link a->b never fails
    gate = max(activity, 0.0 if simple else 1.0)
    skip = gate if "i->b" not in dead else 0.0
    b_sends = (simple or skip > 0) and "b" not in dead
    into_b = a * simple + skip * (X @ np.asarray(adapter["kernel"], np.float64) + np.asarray(adapter["bias"]))
    b = layers(params["b"], into_b) if b_sends else zero
    brings = b_sends and "b->cloud" not in dead
    gate = max(activity, 0.0 if brings else 1.0)
    skip = gate if a_sends else 0.0  # the link a->cloud never fails
    if not (brings or skip > 0):
        return CHANCE
    logits = layers(params["cloud"], b * brings + a * skip, last=True)
    return float((logits.argmax(1) == y).mean())


@pytest.mark.parametrize("activity", [0, 1])
def test_average_accuracy_equals_brute_force(activity):
    variables, outputs, accuracy = compiled("links")
    params = jax.tree.map(lambda leaf: leaf + RNG.normal(size=leaf.shape).astype(np.float32), variables.params)
    variables = variables._replace(params=params)
    cell = make_cell(FOUR, inference_activity=activity)
    wiring = inference_wiring(cell, jnp.asarray(cell.weight_low))
    # Labels that the network itself gives while nothing fails, so that failures cost something.
    y = outputs(variables, wiring).logits[0].argmax(1)
    got = accuracy(variables, wiring, y)
    low, high = average_accuracy_bounds(got, all_combinations(FOUR), np.array(FOUR.node_values(PROBABILITY)))

    expected = 0.0
    causes = list(PROBABILITY)
    for happened in itertools.product((False, True), repeat=len(causes)):
        probability, dead = 1.0, set()
        for cause, occurs in zip(causes, happened):
            probability *= PROBABILITY[cause] if occurs else 1 - PROBABILITY[cause]
            if occurs:
                dead |= {"a", "b->cloud"} if cause == "pair" else {cause}
        expected += probability * accuracy_by_hand(params, dead, activity, y)
    assert low == high
    assert low == pytest.approx(expected, abs=1e-6)
    assert got.max() == 1
    assert len(set(np.round(got, 6))) >= 4  # the combinations do differ


@pytest.mark.parametrize("activity", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_plan_equals_one_pass_per_combination(name, activity):
    graph, (variables, outputs, accuracy) = NETWORKS[name].graph, compiled(name)
    cell = make_cell(graph, inference_activity=activity)
    wiring = inference_wiring(cell, jnp.asarray(cell.weight_low))
    logits, informed, _ = outputs(variables, wiring)
    said = logits.argmax(-1)
    y = said[0]  # labels that it gives itself while nothing fails
    expected = np.where(informed > 0, (said == y).mean(-1), CHANCE)
    assert len(set(expected.round(6))) >= 4  # the combinations do differ

    np.testing.assert_allclose(accuracy(variables, wiring, y), expected, atol=1e-6)
    masks = failure_combinations(graph.fallible)
    np.testing.assert_array_equal(senders(graph, masks).sends[graph.cloud], informed > 0)


@pytest.mark.parametrize("graph", [FOUR, GRAPH], ids=["links", "sources"])
def test_information_probability_is_that_of_all_masks(graph):
    failure = RNG.uniform(0.05, 0.6, len(graph.fallible))
    expected = 0.0
    for bits in itertools.product((1, 0), repeat=len(graph.fallible)):
        dead = [name for name, alive in zip(graph.fallible, bits) if not alive]
        weight = np.prod([1 - p if alive else p for p, alive in zip(failure, bits)])
        expected += weight * has_path(graph, dead)
    assert information_probability(graph, failure) == pytest.approx(expected, abs=1e-12)


def test_failout_fails_a_group_as_one():
    rates = jnp.array(FOUR.node_values({"pair": 0.3, "b": 0.1}))
    survival = np.asarray(FailureModel(FOUR).sample(jax.random.key(0), rates, 20_000))
    of = dict(zip(FOUR.fallible, survival.T))
    np.testing.assert_array_equal(of["a"], of["b->cloud"])
    assert 1 - of["a"].mean() == pytest.approx(0.3, abs=0.015)
    assert 1 - of["b"].mean() == pytest.approx(0.1, abs=0.01)
    both = ((of["a"] == 0) & (of["b"] == 0)).mean()
    assert both == pytest.approx(0.03, abs=0.006)
    assert of["i->a"].all()
    assert of["i->b"].all()


def test_training_never_fails_what_leaves_no_path():
    graph = build_graph(NODES, list(itertools.pairwise(NODES)), [("i", "b")], links=("i->a", "b->cloud"))
    rates = {"a": 0.5, "b": 0.5, "i->a": 0.5, "b->cloud": 0.5}
    assert dict(zip(graph.causes, make_cell(graph, failout_rate=rates).failout_rate)) == {
        "a": 0.5,
        "b": 0.0,
        "i->a": 0.5,
        "b->cloud": 0.0,
    }
    without = make_cell(graph, failout_rate=rates, skips=())
    assert not without.failout_rate.any()


def test_survival_scaling_counts_groups_and_links():
    graph = build_graph(
        NODES, list(itertools.pairwise(NODES)), [("i", "b")], links=["i->a"], groups={"pair": ("a", "i->a")}
    )
    cell = make_cell(graph, failout_rate={"a": 0.1, "pair": 0.5, "i->a": 0.2}, survival_scaling=True)
    scale = dict(zip((edge.name for edge in graph.hyperconnections), cell.inference_scale))
    assert scale["i->a"] == pytest.approx(0.8 * 0.5)
    assert scale["a->b"] == pytest.approx(0.9 * 0.5)
    assert scale["i->b"] == scale["b->cloud"] == 1


def test_marginals_count_groups():
    alone = FailureModel(FOUR).marginals(PROBABILITY)
    assert alone["a"] == pytest.approx(1 - 0.9 * 0.75)
    assert alone["b->cloud"] == pytest.approx(1 - 0.85 * 0.75)
    assert alone["b"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"links": ["a->cloud2"]}, "link 'a->cloud2' is no hyperconnection"),
        ({"groups": {"a": ("b",)}}, "group 'a' has the name of a node"),
        ({"groups": {"pair": ()}}, "group 'pair' is empty"),
        ({"groups": {"pair": ("a", "cloud")}}, "group 'pair': 'cloud' can't fail"),
        ({"groups": {"pair": ("a->b",)}}, "group 'pair': 'a->b' can't fail"),
        ({"sources": 4}, "can't have 4 sources"),
        ({"sources": 2}, "leads to the source 'a'"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        build_graph(NODES, list(itertools.pairwise(NODES)), [("i", "b"), ("a", "cloud")], **changes)


def test_a_chain_is_as_it_was():
    chain = build_chain(("i", "n1", "n2", "n3", "n4"))
    assert chain.sources == ("i",)
    assert list(chain.causes) == list(chain.fallible) == ["n1", "n2", "n3"]


class TestHealthSensors:
    def test_a_failed_site_takes_its_channels_with_it(self):
        variables, outputs, _ = compiled("sources")
        x, failing = INPUTS["sources"], failing_sets(GRAPH.fallible)
        cell = make_cell(GRAPH)
        wiring = inference_wiring(cell, jnp.asarray(cell.weight_low))
        before = outputs(variables, wiring).logits

        for site, (start, stop) in SITES.items():
            other = x.copy()
            other[:, start:stop] += 1
            difference = np.abs(outputs(variables, wiring, other).logits - before).max((1, 2))
            assert difference[failing.index(())] > 1e-3
            assert difference[failing.index((site,))] == 0
            # Its edge node alone is bypassed.
            assert difference[failing.index((f"{site}_edge",))] > 1e-3

    def test_everything_but_the_cloud_may_fail_and_one_site_is_enough(self):
        assert GRAPH.fallible == GRAPH.order[:-1]
        for site in SITES:
            others = [name for name in GRAPH.order[:-1] if not name.startswith(site)]
            assert has_path(GRAPH, others)
        assert not has_path(GRAPH, SITES)

    def test_failout_fails_sites_even_without_skips(self):
        build = CellBuilder(GRAPH, SCENARIO.failure_settings, 0.05, 1e-3)
        rates = dict(zip(GRAPH.causes, build("resilinet", skips=()).failout_rate))
        assert all(rates[site] > 0 for site in SITES)
        assert rates["fog"] == 0
