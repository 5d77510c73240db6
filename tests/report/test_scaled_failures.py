import dataclasses
import itertools

import numpy as np
import pytest

from resilinet_jax.failures.combinations import all_combinations, choose_combinations
from resilinet_jax.failures.user_failures import YOUR_OWN
from resilinet_jax.report import scaled_failures
from resilinet_jax.report.scaled_failures import POINTS, scale_factors, scaled_averages, scaled_figure
from tests.helpers.fakes import fake
from tests.helpers.reference import CHAIN

NODES = ("n1", "n2", "n3")


def brute_force(results, cell, run, failure):
    """Over all combinations, node by node."""
    total = 0.0
    for alive in itertools.product((1, 0), repeat=3):
        failing = tuple(node for node, up in zip(NODES, alive) if not up)
        probability = 1.0
        for node, up in zip(NODES, alive):
            probability *= 1 - failure[node] if up else failure[node]
        total += probability * results.under(cell, failing)[run]
    return total


def test_curves_match_a_loop_over_combinations():
    results = fake("average_accuracy")
    factors = scale_factors(results, "hazardous")
    assert len(factors) == POINTS
    assert (factors[0], factors[-1]) == (0, pytest.approx(1 / 0.22))
    curve = scaled_averages(results, "dfg", "hazardous", factors)
    for place, factor in enumerate(factors):
        failure = {"n1": 0.22 * factor, "n2": 0.20 * factor, "n3": 0.15 * factor}
        for run in range(3):
            assert curve[place, run] == pytest.approx(brute_force(results, "dfg", run, failure), abs=1e-12)


def test_factors_0_and_1_are_the_settings_without_failures_and_itself():
    results = fake("average_accuracy")
    curve = scaled_averages(results, "resilinet", "poor", np.array([0.0, 1.0]))
    np.testing.assert_allclose(curve[0], results.average("resilinet", "no failure"))
    np.testing.assert_allclose(curve[1], results.average("resilinet", "poor"))


def test_at_the_end_the_likeliest_node_always_fails():
    results = dataclasses.replace(fake("average_accuracy"), failure_settings={"odd": {"n2": 0.3}})
    curve = scaled_averages(results, "dfg", "odd", scale_factors(results, "odd"))
    np.testing.assert_allclose(curve[-1], results.under("dfg", ("n2",)))


def test_factors_never_make_a_probability_greater_than_1():
    results = fake("average_accuracy")
    for largest in np.linspace(0.001, 1, 977):
        own = dataclasses.replace(results, failure_settings={"one": {"n1": float(largest), "n2": 0.0009}})
        assert 1 - 1e-15 <= scale_factors(own, "one")[-1] * largest <= 1


def test_where_not_all_combinations_were_evaluated_curves_end_at_the_setting(monkeypatch):
    monkeypatch.setattr("resilinet_jax.failures.combinations.MOST_NODES", 2)
    results = fake("average_accuracy")
    few = choose_combinations(CHAIN, [results.failure_probability("hazardous")], 0.06)
    assert not few.complete
    places = [all_combinations(CHAIN).failing_sets.index(failing) for failing in few.failing_sets]
    runs = {cell: each._replace(score=each.score[:, places]) for cell, each in results.measured.items()}
    results = dataclasses.replace(results, combinations=few, measured=runs)
    factors = scale_factors(results, "hazardous")
    assert factors[-1] == 1
    exact = fake("average_accuracy")
    curve, full = (scaled_averages(each, "dfg", "hazardous", factors) for each in (results, exact))
    # Made-up accuracies without a path are no guesses, so only what was left out may differ where there is one.
    widths = [few.left_out(factor * results.failure_probability("hazardous")) for factor in factors]
    assert max(widths) <= results.left_out("hazardous") + 1e-12
    assert np.isfinite(curve).all()
    np.testing.assert_allclose(curve[0], full[0])


def test_the_figure_is_of_the_harshest_setting_or_the_users_own():
    results = fake("average_accuracy")
    (drawn,) = scaled_figure(results, {"ResiliNet": "resilinet", "DFG": "dfg"})
    assert drawn.name == scaled_failures.NAME
    assert "setting hazardous (n1 22 %, n2 20 %, n3 15 %)" in drawn.caption
    own = dataclasses.replace(results, failure_settings={**results.failure_settings, YOUR_OWN: {"n2": 0.5}})
    (drawn,) = scaled_figure(own, {"DFG": "dfg"})
    assert "setting your own (n2 50 %)" in drawn.caption
    ax = drawn.figure.axes[0]
    x, y = ax.lines[0].get_data()
    assert x[-1] == 2
    assert y[-1] == pytest.approx(100 * results.under("dfg", ("n2",)).mean())


def test_diverged_runs_are_left_out_of_the_figure():
    results = fake("average_accuracy")
    results.measured["dfg"].score[1] = np.nan
    results.measured["vanilla"].score[:] = np.nan
    (drawn,) = scaled_figure(results, {"DFG": "dfg", "Vanilla": "vanilla"})
    curves = [line for line in drawn.figure.axes[0].lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in curves] == ["DFG"]
    assert curves[0].get_ydata()[0] == pytest.approx(100 * results.under("dfg", ())[[0, 2]].mean())


def test_there_is_no_figure_where_nothing_fails():
    results = dataclasses.replace(fake("average_accuracy"), failure_settings={"calm": {"n1": 0.0}})
    assert scaled_figure(results, {"DFG": "dfg"}) == []
