import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.cells import METHODS, make_cell
from resilinet_jax.failures.combinations import (
    all_combinations,
    choose_combinations,
    failing_sets,
    failure_combinations,
)
from resilinet_jax.network.forward import Network, Wiring
from resilinet_jax.results.messages import (
    expected_messages,
    hyperconnection_bytes,
    message_bytes,
    messages,
    pareto_front,
)
from resilinet_jax.scenarios import load_scenario
from tests.helpers.graphs import GRAPHS
from tests.helpers.reference import CHAIN

# Who sends to whom in Health, counted with paper and pencil.
BY_HAND = {
    "vanilla": {
        (): "i->n1 n1->n2 n2->n3 n3->n4",
        ("n1",): "",
        ("n2",): "i->n1",
        ("n3",): "i->n1 n1->n2",
        ("n1", "n2"): "",
        ("n1", "n3"): "",
        ("n2", "n3"): "i->n1",
        ("n1", "n2", "n3"): "",
    },
    "resilinet": {
        (): "i->n1 n1->n2 n2->n3 n3->n4",
        ("n1",): "i->n2 n2->n3 n3->n4",
        ("n2",): "i->n1 n1->n3 n3->n4",
        ("n3",): "i->n1 n1->n2 n2->n4",
        ("n1", "n2"): "",
        ("n1", "n3"): "i->n2 n2->n4",
        ("n2", "n3"): "i->n1",
        ("n1", "n2", "n3"): "",
    },
    "dfg": {
        (): "i->n1 i->n2 n1->n2 n1->n3 n2->n3 n2->n4 n3->n4",
        ("n1",): "i->n2 n2->n3 n2->n4 n3->n4",
        ("n2",): "i->n1 n1->n3 n3->n4",
        ("n3",): "i->n1 i->n2 n1->n2 n2->n4",
        ("n1", "n2"): "",
        ("n1", "n3"): "i->n2 n2->n4",
        ("n2", "n3"): "i->n1",
        ("n1", "n2", "n3"): "",
    },
}
COUNTED = {"vanilla": 4, "resilinet": 4, "dfg": 7}  # while nothing fails
FAILURE = np.array([0.3, 0.2, 0.05])


def cell_of(method, graph=CHAIN, **changes):
    return make_cell(graph, **METHODS[method] | changes)


@pytest.mark.parametrize("method", BY_HAND)
def test_messages_in_health_are_those_counted_by_hand(method):
    arrives = messages(CHAIN, cell_of(method), failure_combinations(CHAIN.fallible))
    for failing, row in zip(failing_sets(CHAIN.fallible), arrives):
        named = {edge.name for edge, over in zip(CHAIN.hyperconnections, row) if over}
        assert named == set(BY_HAND[method][failing].split()), failing
    assert arrives[0].sum() == COUNTED[method]


def test_bytes_in_health_are_those_counted_by_hand():
    network = load_scenario("health").build_network(12, hidden_units=250)
    sizes = message_bytes(network, jax.ShapeDtypeStruct((7, 23), np.float32))
    # Four bytes a number: 23 readings, 250 units. The cloud sends nothing.
    assert sizes == {"i": 92, "n1": 1000, "n2": 1000, "n3": 1000}
    nothing_failed = np.ones((1, 3))
    total = {
        method: float((messages(CHAIN, cell_of(method), nothing_failed) @ hyperconnection_bytes(CHAIN, sizes)).item())
        for method in COUNTED
    }
    # Select: the input to n1, then n1, n2 and n3 once each. Add: the input to n2 as well, and n1 and n2 twice.
    assert total == {"vanilla": 92 + 3000, "resilinet": 92 + 3000, "dfg": 2 * 92 + 5000}


class Remembering(nn.Module):
    """Keeps running statistics, so that the network counts which hyperconnections carry to it."""

    @nn.compact
    def __call__(self, x, training):
        steps = self.variable("batch_stats", "steps", jnp.zeros, ())
        if training:
            steps.value = steps.value + 1
        return x + self.param("bias", nn.initializers.ones, ())


@pytest.mark.parametrize("activity", [0, 1])
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_messages_are_what_arrives_in_the_network(graph, activity):
    network = Network(graph, {node: Remembering() for node in graph.order[1:]}, {})
    x = jnp.ones((1, 2))
    variables = jax.jit(network.init)(jax.random.key(0), x)
    masks = failure_combinations(graph.fallible)
    train = jax.jit(
        jax.vmap(
            lambda mask, wiring: network.apply(variables, x, mask, wiring, jax.random.key(1)).statistics, (0, None)
        )
    )
    labels = [graph.skip_label(skip) for skip in graph.skips]
    for present in (labels, labels[1:], labels[:-1], []):
        cell = make_cell(graph, skips=present, inference_activity=activity)
        edges = len(graph.hyperconnections)
        wiring = Wiring(jnp.asarray(cell.present), jnp.ones(edges), jnp.full(edges, cell.inference_activity))
        statistics = train(jnp.asarray(masks), wiring)
        expected = np.zeros((len(masks), edges), bool)
        for node in graph.order[1:]:
            seen = np.asarray(statistics[node].seen)  # one step: at most one arrival was seen, by a node that lives
            assert (seen.sum(1) <= 1).all()
            for k, (index, _) in enumerate(graph.incoming(node)):
                expected[:, index] = seen[:, [bool(arrival >> k & 1) for arrival in range(seen.shape[1])]].any(1)
        np.testing.assert_array_equal(messages(graph, cell, masks), expected)
    assert expected.any()


def test_expected_messages_follow_from_the_failure_probabilities():
    p1, p2, p3 = FAILURE
    combinations = all_combinations(CHAIN)
    one, two, three = 1 - p1, 1 - p2, 1 - p3  # alive
    to_three = two + one * p2  # n3 is reached: by n2, which i or n1 reaches; else by n1, past n2
    select = {
        "i->n1": one,
        "n1->n2": one * two,
        "i->n2": p1 * two,
        "n2->n3": two * three,
        "n1->n3": one * p2 * three,
        "n3->n4": to_three * three,
        "n2->n4": two * p3,
    }
    add = select | {"i->n2": two, "n1->n3": one * three, "n2->n4": two}
    for method, by_hand in (("resilinet", select), ("dfg", add)):
        low, high = expected_messages(combinations, cell_of(method), FAILURE)
        told = {edge.name: over for edge, over in zip(CHAIN.hyperconnections, low)}
        assert told == pytest.approx(by_hand)
        np.testing.assert_array_equal(low, high)


def test_expected_messages_without_failures_are_those_sent():
    for method, counted in COUNTED.items():
        low, _ = expected_messages(all_combinations(CHAIN), cell_of(method), np.zeros(3))
        assert low.sum() == counted


@pytest.mark.parametrize("method", COUNTED)
def test_an_interval_holds_the_exact_expectation(method, monkeypatch):
    monkeypatch.setattr("resilinet_jax.failures.combinations.MOST_NODES", 2)
    few = choose_combinations(CHAIN, [FAILURE], tolerance=0.1)
    assert not few.complete
    exact, _ = expected_messages(all_combinations(CHAIN), cell_of(method), FAILURE)
    low, high = expected_messages(few, cell_of(method), FAILURE)
    assert (low <= exact + 1e-12).all()
    assert (exact <= high + 1e-12).all()
    present = np.asarray(cell_of(method).present) > 0
    # As wide as what is not known: what was left out, and the combinations without a path.
    silent = few.probabilities(FAILURE)[-1]
    np.testing.assert_allclose(high - low, np.where(present, silent + few.left_out(FAILURE), 0), atol=1e-12)
    assert (high - low).max() < 0.35


def test_a_source_without_a_stage_sends_its_input_as_it_is_stored():
    network = Network(CHAIN, {node: Remembering() for node in CHAIN.order[1:]}, {})
    sizes = message_bytes(network, jax.ShapeDtypeStruct((9, 2, 5), np.uint8))
    assert sizes == {"i": 10, "n1": 40, "n2": 40, "n3": 40}


def test_a_source_with_a_stem_sends_feature_maps():
    @functools.cache
    def sizes(scenario, image_size):
        network = load_scenario(scenario).build_network(10, alpha=0.75, image_size=image_size, momentum=0.99)
        return message_bytes(network, jax.ShapeDtypeStruct((3, image_size, image_size, 3), np.uint8))

    # Channels x height x width x 4 bytes: width 0.75 of 32, 128 and 512 filters.
    assert sizes("cifar10", 32) == {"i": 24 * 32 * 32 * 4, "m1": 96 * 32 * 32 * 4, "m2": 384 * 8 * 8 * 4}
    assert sizes("imagenet", 160) == {"i": 24 * 80 * 80 * 4, "m1": 96 * 40 * 40 * 4, "m2": 384 * 10 * 10 * 4}


def test_pareto_front_by_hand():
    cost = np.array([1.0, 2, 2, 3, 3, 4, 0.5, np.nan])
    worth = np.array([0.5, 0.7, 0.6, 0.7, 0.9, 0.8, np.nan, 1])
    assert pareto_front(cost, worth).tolist() == [True, True, False, False, True, False, False, False]


def test_equal_points_share_the_pareto_front():
    assert pareto_front(np.array([1.0, 1, 1]), np.array([0.5, 0.5, 0.4])).tolist() == [True, True, False]


def test_no_point_off_the_pareto_front_is_best_for_any_price():
    rng = np.random.default_rng(0)
    cost, worth = rng.uniform(size=50), rng.uniform(size=50)
    on_front = pareto_front(cost, worth)
    for price in np.geomspace(0.01, 100, 30):
        assert on_front[np.argmax(worth - price * cost)]
    for point in np.flatnonzero(~on_front):
        assert ((cost <= cost[point]) & (worth >= worth[point]) & on_front).any()
