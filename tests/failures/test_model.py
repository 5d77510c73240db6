import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.failures.averages import average_accuracy
from resilinet_jax.failures.combinations import combination_name, failing_sets, failure_combinations
from resilinet_jax.failures.model import FailureModel, mask_probabilities, with_failout_at_inference
from resilinet_jax.network.graph import build_chain, build_graph


def chain(fallible):
    return build_chain(["i", *(f"n{v}" for v in range(fallible)), "cloud"])


def test_combinations_come_in_the_order_of_table_2():
    names = [combination_name(failing) for failing in failing_sets(("n1", "n2", "n3"))]
    assert names == ["none", "n1", "n2", "n3", "n1+n2", "n1+n3", "n2+n3", "n1+n2+n3"]
    assert failure_combinations(("n1", "n2", "n3"))[[1, 4]].tolist() == [[0, 1, 1], [0, 0, 1]]


def test_probabilities_are_the_column_of_table_2():
    percents = 100 * mask_probabilities(failure_combinations(("n1", "n2", "n3")), np.array([0.08, 0.04, 0.01]))
    # The paper's first entry, 87.43, is cut rather than rounded (0.92 * 0.96 * 0.99 = 0.874368), and its second,
    # 7.01, a misprint: the column has to sum to 100.
    assert percents[:7].round(2).tolist() == [87.44, 7.60, 3.64, 0.88, 0.32, 0.08, 0.04]
    assert percents[7].round(3) == 0.003
    assert percents.sum() == pytest.approx(100)


def test_probabilities_match_enumeration():
    failure = np.array([0.3, 0.05, 0.6, 0.11])
    expected = [
        np.prod([p if v in failing else 1 - p for v, p in enumerate(failure)])
        for size in range(5)
        for failing in itertools.combinations(range(4), size)
    ]
    np.testing.assert_allclose(mask_probabilities(failure_combinations("abcd"), failure), expected, rtol=1e-12)
    assert sum(expected) == pytest.approx(1)


def test_probabilities_refuse_what_is_none():
    with pytest.raises(UserError, match=r"must be in \[0, 1\]"):
        average_accuracy(np.ones(4), np.array([0.1, 1.1]))


def test_survival_is_drawn_at_each_nodes_own_rate():
    rates = jnp.array([0.05, 0.5, 0.2, 0.0, 1.0])
    survival = np.asarray(FailureModel(chain(5)).sample(jax.random.key(0), rates, 20_000))
    assert set(np.unique(survival)) == {0.0, 1.0}
    # Five standard errors of a mean over 20,000 draws are at most 0.018.
    np.testing.assert_allclose(1 - survival.mean(0), rates, atol=0.018)
    assert survival[:, 3].all()
    assert not survival[:, 4].any()
    # Independent: the correlation of two nodes vanishes.
    assert abs(np.corrcoef(survival[:, 1], survival[:, 2])[0, 1]) < 0.035


def test_a_draw_that_equals_the_rate_spares(monkeypatch):
    # Draws are in [0, 1): below the rate they fail with just its probability, and a rate of 0 fails nothing.
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.tile(jnp.array([0.0, 0.0, 0.25, 0.25]), (2, 1)))
    survival = FailureModel(chain(4)).sample(jax.random.key(0), jnp.array([0.0, 0.1, 0.25, 0.5]), 2)
    assert survival.tolist() == [[1, 0, 1, 0]] * 2


def test_a_higher_rate_fails_all_that_a_lower_one_does():
    low, high = (
        np.asarray(FailureModel(chain(2)).sample(jax.random.key(3), jnp.array([r, r]), 500)) for r in (0.1, 0.3)
    )
    assert (high <= low).all()
    assert (high < low).any()


def test_failout_left_on_at_inference_is_a_second_independent_failure():
    failure, failout = np.array([0.08, 0.04, 0.0]), np.array([0.5, 0.0, 0.3])
    either = [
        sum(
            (p if broken else 1 - p) * (f if dropped else 1 - f)
            for broken in (0, 1)
            for dropped in (0, 1)
            if broken or dropped
        )
        for p, f in zip(failure, failout)
    ]
    np.testing.assert_allclose(with_failout_at_inference(failure, failout), either)


def test_training_learns_from_every_node_that_a_skip_bypasses():
    graph = build_graph("iabcd", [*itertools.pairwise("iabcd")], [("i", "c")])
    assert [FailureModel(graph).teaches(node, graph.skips) for node in "abc"] == [True, True, False]
    assert not FailureModel(graph).teaches("a", ())
