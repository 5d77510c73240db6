import dataclasses
import itertools

import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.failures import combinations
from resilinet_jax.failures.averages import average_accuracy, average_accuracy_bounds
from resilinet_jax.failures.combinations import (
    choose_combinations,
    failure_combinations,
    information_probability,
    likely_combinations,
)
from resilinet_jax.network.graph import build_graph
from resilinet_jax.network.senders import has_path, senders
from resilinet_jax.scenarios.health_sensors import GRAPH as SENSORS
from tests.helpers.graphs import DAG, GRAPHS, chain
from tests.helpers.reference import CHAIN, TREE

RNG = np.random.default_rng(3)


def enumerated(graph, failure):
    """Mask, probability and whether a path is left, of every combination, by loops."""
    for bits in itertools.product((1, 0), repeat=len(graph.fallible)):
        probability = np.prod([1 - p if alive else p for alive, p in zip(bits, failure)])
        failed = [node for node, alive in zip(graph.fallible, bits) if not alive]
        yield bits, probability, has_path(graph, failed)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_information_and_its_probability_match_enumeration(graph):
    failure = RNG.uniform(0.05, 0.9, len(graph.fallible))
    masks, probability, path = zip(*enumerated(graph, failure))
    np.testing.assert_array_equal(senders(graph, np.array(masks, float)).sends[graph.cloud], path)
    assert information_probability(graph, failure) == pytest.approx(np.dot(probability, path))


@pytest.mark.parametrize("tolerance", [0.2, 0.03, 1e-9])
@pytest.mark.parametrize("graph", [CHAIN, TREE, DAG, chain(9)], ids=["chain", "tree", "dag", "chain of 9"])
def test_the_most_probable_come_first_and_no_more_than_needed(graph, tolerance):
    failure = RNG.uniform(0.02, 0.4, len(graph.fallible))
    failure[1] = 0.85  # whose failing is the usual
    got = likely_combinations(graph, failure, tolerance)
    by_hand = sorted(((p, bits) for bits, p, path in enumerated(graph, failure) if path), reverse=True)
    assert [tuple(mask) for mask in got] == [bits for _, bits in by_hand[: len(got)]]
    left = [sum(p for p, _ in by_hand[count:]) for count in (len(got) - 1, len(got))]
    assert left[1] <= tolerance + 1e-12
    assert left[0] > tolerance or len(got) == 1


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_nodes_whose_fate_is_certain_take_no_combinations(certain):
    got = likely_combinations(CHAIN, np.array([0.1, certain, 0.2]), 0.0)
    assert len(got) == (4 if certain == 0 else 1)  # once n2 has failed, n1 must live, and so must n3
    assert set(got[:, 1]) == {1 - certain}


def test_all_combinations_of_a_small_graph():
    chosen = choose_combinations(CHAIN, [np.array([0.1, 0.2, 0.3])], tolerance=0.5)
    assert chosen.complete
    np.testing.assert_array_equal(chosen.survival, failure_combinations(CHAIN.fallible))
    assert chosen.left_out(np.array([0.1, 0.2, 0.3])) == 0


LINKED = build_graph(
    ("i", "a", "b", "cloud"),
    [("i", "a"), ("a", "b"), ("b", "cloud")],
    [("i", "b"), ("a", "cloud")],
    links=["i->a", "i->b", "b->cloud"],
)
SOURCES = dataclasses.replace(SENSORS, groups=())


@pytest.mark.parametrize(
    "graph", [TREE, DAG, chain(7), LINKED, SOURCES], ids=["tree", "dag", "chain", "links", "sources"]
)
def test_the_interval_holds_the_exact_average(graph, monkeypatch):
    settings = [RNG.uniform(0.02, 0.2, len(graph.fallible)) for _ in range(2)]
    every = failure_combinations(graph.fallible)
    chance = 0.25
    accuracy = np.where(senders(graph, every).sends[graph.cloud], RNG.uniform(size=(3, len(every))), chance)
    monkeypatch.setattr(combinations, "MOST_NODES", 2)
    for tolerance in (0.1, 0.01):
        chosen = choose_combinations(graph, settings, tolerance)
        assert not chosen.complete
        assert len(chosen.survival) <= len(every)
        index = {mask.tobytes(): number for number, mask in enumerate(every)}
        own = accuracy[:, [index[mask.tobytes()] for mask in chosen.survival]]
        assert chosen.failing_sets[-1] == graph.fallible
        for failure in settings:
            low, high = average_accuracy_bounds(own, chosen, failure)
            exact = average_accuracy(accuracy, failure)
            assert ((low <= exact + 1e-12) & (exact <= high + 1e-12)).all()
            assert (high - low <= tolerance + 1e-12).all()
    # A setting that it was not chosen for gets an interval as well, a wider one.
    unforeseen = np.full(len(graph.fallible), 0.5)
    low, high = average_accuracy_bounds(own, chosen, unforeseen)
    exact = average_accuracy(accuracy, unforeseen)
    assert ((low <= exact + 1e-12) & (exact <= high + 1e-12)).all()
    everything = len(chosen.survival) - 1 == senders(graph, every).sends[graph.cloud].sum()
    assert (high - low > 0.01).all() != everything


def test_groups_of_a_graph_too_large_to_enumerate_are_refused(monkeypatch):
    monkeypatch.setattr(combinations, "MOST_NODES", 5)
    with pytest.raises(UserError, match=r"where groups fail together, at most 5 nodes and links .* got 7 and 3; leave"):
        choose_combinations(SENSORS, [np.zeros(10)], 0.01)


def test_what_is_too_much_is_cut_off(monkeypatch):
    monkeypatch.setattr(combinations, "MOST_COMBINATIONS", 20)
    got = likely_combinations(chain(12), RNG.uniform(0.3, 0.4, 12), 1e-6)
    assert len(got) <= 20


def test_where_failing_costs_nothing_no_more_is_looked_at(monkeypatch):
    """All 2^30 combinations are equally probable."""
    monkeypatch.setattr(combinations, "MOST_COMBINATIONS", 500)
    assert 0 < len(likely_combinations(chain(30), np.full(30, 0.5), 1e-6)) <= 500


def test_who_sends_side_by_side_is_bounded_but_for_what_never_fails(monkeypatch):
    names = [f"s{number}" for number in range(25)]
    graph = build_graph([*names, "cloud"], [(name, "cloud") for name in names], [], sources=25)
    assert information_probability(graph, np.zeros(25)) == 1
    monkeypatch.setattr(combinations, "MOST_COMBINATIONS", 500)
    with pytest.raises(UserError, match="at s8, nodes may send in more than 500 ways"):
        information_probability(graph, np.full(25, 0.1))


def test_no_more_states_are_evaluated_than_take_minutes(monkeypatch):
    """Of twelve nodes fifty combinations, the most probable of those that all the others would have been."""
    failure = RNG.uniform(0.3, 0.4, 12)
    every = likely_combinations(chain(12), failure, 1e-6)
    monkeypatch.setattr(combinations, "MOST_STATES", 12 * 50 + 11)
    np.testing.assert_array_equal(likely_combinations(chain(12), failure, 1e-6), every[:50])
