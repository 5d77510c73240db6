import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.datasets.splits import Examples, chance_accuracy
from resilinet_jax.engine import evaluation
from resilinet_jax.engine.evaluation import Tally, accuracy_of, count_correct, empty_tally
from resilinet_jax.engine.plan import NOTHING, Plan, plan_applications
from resilinet_jax.errors import UserError
from resilinet_jax.failures.averages import average_accuracy
from resilinet_jax.failures.combinations import failure_combinations
from resilinet_jax.network.forward import Network, Wiring
from resilinet_jax.network.graph import build_chain
from resilinet_jax.network.stages import DenseStage, dense
from tests.helpers.reference import CHAIN, forward

SETTINGS = {
    "health": ([0.08, 0.04, 0.01], [0.13, 0.09, 0.05], [0.22, 0.20, 0.15]),
    "imagenet": ([0.04, 0.02], [0.10, 0.05], [0.20, 0.15]),
}


# Table 2's accuracies, and what they average to under Table 1's three failure settings (arithmetic by hand).
@pytest.mark.parametrize(
    ("scenario", "accuracies", "averages"),
    [
        ("health", [97.28, 92.48, 86.52, 93.38, 8.12, 91.75, 7.86, 8.11], [96.17, 94.36, 88.61]),
        ("health", [97.90, 64.42, 22.49, 92.48, 8.20, 60.13, 7.98, 7.89], [92.21, 86.69, 75.33]),
        ("health", [97.85, 7.95, 7.99, 8.10, 7.93, 7.98, 7.97, 7.91], [86.56, 75.57, 55.65]),
        ("imagenet", [65.01, 51.94, 45.41, 0.11], [64.07, 62.56, 58.49]),
    ],
)
def test_average_accuracy_of_the_papers_table_2(scenario, accuracies, averages):
    got = [100 * average_accuracy(np.array(accuracies) / 100, np.array(p)) for p in SETTINGS[scenario]]
    np.testing.assert_allclose(got, averages, atol=0.01)


def test_average_accuracy_matches_enumeration():
    rng = np.random.default_rng(0)
    failure, accuracy = np.array([0.3, 0.05, 0.6]), rng.uniform(size=(2, 5, 8))
    expected = np.zeros((2, 5))
    failing = [set(c) for size in range(4) for c in itertools.combinations(range(3), size)]
    for index, failed in enumerate(failing):
        probability = 1.0
        for node in range(3):
            probability *= failure[node] if node in failed else 1 - failure[node]
        expected += probability * accuracy[..., index]
    np.testing.assert_allclose(average_accuracy(accuracy, failure), expected, rtol=1e-12)


def test_average_accuracy_ignores_what_cannot_happen():
    accuracy = np.array([0.9, np.nan, 0.5, np.nan])
    assert average_accuracy(accuracy, np.array([0.0, 0.25])) == pytest.approx(0.75 * 0.9 + 0.25 * 0.5)
    assert np.isnan(average_accuracy(accuracy, np.array([0.1, 0.0])))


@pytest.mark.parametrize(("shape", "failure"), [((7,), [0.1] * 3), ((8,), [0.1, 0.1, 1.1])])
def test_average_accuracy_refuses_what_does_not_fit(shape, failure):
    with pytest.raises(UserError):
        average_accuracy(np.ones(shape), np.array(failure))


def test_chance_accuracy_is_the_expectation_of_guessing():
    train, test = np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0])
    # Guess 0 with 3/4 (right in 1/4), 1 with 1/4 (right in 2/4), never 2.
    assert chance_accuracy(train, test) == pytest.approx(0.75 * 0.25 + 0.25 * 0.5)


@functools.cache
def randomised():
    """A network for four classes, variables for it, and examples."""
    rng = np.random.default_rng(5)
    stages = {node: DenseStage(1, 6, 4 if node == "n4" else None) for node in CHAIN.order[1:]}
    network = Network(CHAIN, stages, {"i->n2": dense(6)})
    x, y = rng.normal(size=(10, 3)).astype(np.float32), rng.integers(0, 4, 10).astype(np.int32)
    variables = jax.tree.map(lambda leaf: 0.4 * rng.normal(size=leaf.shape).astype(np.float32), network.shapes(x))
    return network, variables, Examples(x, y)


# Chunks of five examples in batches of one, four (a quarter, where layers are narrow), five, and five.
@pytest.mark.parametrize(("batch_size", "at_once"), [(1, None), (16, 1), (10, 3), (64, None)])
def test_accuracy_under_masks_matches_a_numpy_loop(batch_size, at_once, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", batch_size)
    network, variables, (x, y) = randomised()
    edges = len(CHAIN.hyperconnections)
    wiring = Wiring(jnp.ones(edges), jnp.ones(edges), jnp.zeros(edges))
    masks = failure_combinations(CHAIN.fallible)
    plan = plan_applications(CHAIN, masks)
    tally = empty_tally(plan.answers, classes=4)
    count = jax.jit(lambda tally, chunk: count_correct(network, variables, wiring, plan, tally, chunk, at_once))
    for part in (slice(0, 5), slice(5, None)):  # as it comes in chunks
        tally = count(tally, Examples(x[part], y[part]))
    np.testing.assert_array_equal(tally.labels, np.bincount(y, minlength=4))
    got = accuracy_of(tally, plan, len(y), 0.123)
    expected = []
    for mask in masks:
        logits, arrived = forward(
            CHAIN, variables.params, x, dict(zip(CHAIN.fallible, mask)), np.ones(edges), np.ones(edges), np.zeros(edges)
        )
        expected.append((logits.argmax(-1) == y).mean() if arrived else 0.123)
    assert len(set(expected)) > 2
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(("units", "one_by_one", "size"), [(127, True, 256), (128, True, 1024), (8, False, 1024)])
def test_narrow_layers_take_batches_that_stay_in_the_cache(units, one_by_one, size):
    network = Network(CHAIN, {node: DenseStage(1, units) for node in CHAIN.order[1:]}, {"i->n2": dense(units)})
    x = np.zeros((2000, 3), np.float32)
    plan = plan_applications(CHAIN, failure_combinations(CHAIN.fallible))
    data = Examples(x, np.zeros(2000, np.int32))
    assert evaluation._batch_sizes(network, network.shapes(x), plan, data, one_by_one)[0] == size


def test_draws_of_each_batch_do_not_depend_on_how_wide_layers_are():
    graph = build_chain(("i", "cloud"))
    network, plan = Network(graph, {}, {}), plan_applications(graph, np.ones((1, 0)))
    x, y = np.tile(np.eye(3, dtype=np.float32), (200, 1)), np.tile(np.arange(3, dtype=np.int32), 200)
    variables = jax.jit(network.init)(jax.random.key(0), x)

    def only_in_the_first(number):
        return Wiring(jnp.ones(1) * (number == 0), jnp.ones(1), jnp.zeros(1))

    tally = count_correct(network, variables, only_in_the_first, plan, empty_tally(1, classes=3), Examples(x, y))
    np.testing.assert_array_equal(accuracy_of(tally, plan, 600, 0.1), [1.0])  # 600 examples are one batch


def test_outputs_of_a_batch_fit_the_memory(monkeypatch):
    monkeypatch.setattr(evaluation, "LIVE_BYTES", 10 * 5 * 4 * 7)
    graph = build_chain(("i", "cloud"))
    network, plan = Network(graph, {"cloud": DenseStage(1, 5)}, {}), plan_applications(graph, np.ones((1, 0)))
    x = np.zeros((2000, 5), np.float32)  # its source sends it: with what the cloud makes of it, 40 bytes
    data = Examples(x, np.zeros(2000, np.int32))
    assert evaluation._batch_sizes(network, network.shapes(x), plan, data, True)[1] == 10 * 5 * 4 * 7 // 40


def test_accuracy_is_chance_without_information_and_missing_where_it_diverged():
    # Of the cloud's three applications the second hears nothing, since a skip is absent, and the third diverged. The
    # second combination leaves no path in the graph.
    plan = Plan({}, np.array([0, NOTHING, 1, 2]))
    counts = np.array([[2, 3], [0, 3], [4, 0]], np.int32)
    tally = Tally(counts, counts, counts[0], np.array([True, False, True]), np.array([True, True, False]))
    np.testing.assert_array_equal(accuracy_of(tally, plan, 10, 0.123), [0.5, 0.123, 0.123, np.nan])


def test_a_logit_that_is_no_number_in_any_batch_makes_the_accuracy_missing(monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 2)
    graph = build_chain(("i", "cloud"))
    network, plan = Network(graph, {}, {}), plan_applications(graph, np.ones((1, 0)))
    wiring = Wiring(jnp.ones(1), jnp.ones(1), jnp.zeros(1))
    variables = jax.jit(network.init)(jax.random.key(0), np.ones((1, 3), np.float32))
    for place, expected in ((None, 1.0), (0, np.nan), (3, np.nan)):
        x = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
        if place is not None:
            x[place] = np.nan
        tally = count_correct(
            network, variables, wiring, plan, empty_tally(1, classes=3), Examples(x, np.array([0, 1, 2, 0]))
        )
        np.testing.assert_array_equal(accuracy_of(tally, plan, 4, 0.1), [expected])
