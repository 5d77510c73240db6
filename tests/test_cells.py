import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.cells import (
    METHODS,
    CellBuilder,
    Learned,
    Uniform,
    describe,
    draw_weight,
    inference_wiring,
    make_cell,
    relative_reliability,
    stack_cells,
    training_wiring,
)
from resilinet_jax.errors import UserError
from resilinet_jax.network.graph import build_graph
from tests.helpers.reference import CHAIN, TREE

BUILD = CellBuilder(CHAIN, {"no failure": {}, "normal": {"n1": 0.08, "n2": 0.04, "n3": 0.01}}, 0.05, 1e-3)


def test_methods_are_the_numbers_of_the_readme():
    told = {name: describe(CHAIN, BUILD(name)) for name in METHODS}
    columns = ("skips", "failout_rate", "training_activity", "inference_activity")
    assert {name: tuple(settings[column] for column in columns) for name, settings in told.items()} == {
        "vanilla": ("none", "0", "0", "0"),
        "dfg": ("i+n1+n2", "0", "1", "1"),
        "resilinet": ("i+n1+n2", "0.05", "0.5", "0"),
        "resilinet_add": ("i+n1+n2", "0.05", "1", "1"),
        "resilinet_select": ("i+n1+n2", "0.05", "0", "0"),
        "resilinet_literal": ("i+n1+n2", "0.05", "1", "0"),
    }


def test_resilinet_without_skips_is_vanilla():
    assert BUILD("resilinet", skips=()).training_key() == BUILD("vanilla").training_key()


def test_failout_spares_nodes_that_no_present_skip_bypasses():
    cell = BUILD("resilinet", skips=("n2", "i"), failout_rate={"n1": 0.1, "n2": 0.2, "n3": 0.3})
    # i bypasses n1 and n2 bypasses n3, so n2 stays up.
    np.testing.assert_allclose(cell.failout_rate, [0.1, 0.0, 0.3])


def test_failout_by_name_lands_on_its_node():
    cell = BUILD("resilinet", failout_rate={"n3": 0.01, "n1": 0.08, "n2": 0.04})
    np.testing.assert_allclose(cell.failout_rate, [0.08, 0.04, 0.01])
    assert describe(CHAIN, cell)["failout_rate"] == "n1:0.08 n2:0.04 n3:0.01"


def test_a_failure_setting_for_what_never_fails_is_refused_before_training():
    with pytest.raises(UserError, match=r"failure setting 'normal': 'n4' is the cloud"):
        CellBuilder(CHAIN, {"normal": {"n4": 0.5}}, 0.05, 1e-3)


def test_a_node_survives_if_it_and_its_groups_do():
    graph = build_graph(["i", "a", "b", "cloud"], [("i", "a"), ("a", "b"), ("b", "cloud")], [], groups={"site": ("a",)})
    build = CellBuilder(graph, {"outage": {"a": 0.02, "b": 0.1, "site": 0.25}}, 0.05, 1e-3)
    assert build.reliability("outage") == pytest.approx({"i": 1, "a": 0.98 * 0.75, "b": 0.9, "cloud": 1})


def test_an_unknown_method_is_told_with_the_nearest():
    with pytest.raises(UserError, match="unknown method 'resilnet'; did you mean resilinet"):
        BUILD("resilnet")


def test_probabilities_may_be_numpys():
    np.testing.assert_allclose(BUILD("resilinet", failout_rate={"n2": np.float64(0.25)}).failout_rate, [0, 0.25, 0])


def test_relative_reliability_by_hand():
    weight = relative_reliability(CHAIN, BUILD.reliability("normal"))
    assert weight["i->n1"] == 1
    assert weight["n1->n2"] == pytest.approx(0.92 / (0.92 + 1))
    assert weight["i->n2"] == pytest.approx(1 / (0.92 + 1))
    assert weight["n2->n3"] == pytest.approx(0.96 / (0.96 + 0.92))
    assert weight["n2->n4"] == pytest.approx(0.96 / (0.96 + 0.99))


def test_whoever_hears_only_the_dead_weighs_them_with_0():
    weight = relative_reliability(CHAIN, {"i": 1, "n1": 0, "n2": 0, "n3": 0, "n4": 1})
    assert (weight["n2->n4"], weight["n3->n4"], weight["i->n2"]) == (0, 0, 1)


def test_weights_by_name_land_on_their_hyperconnection():
    weight = {edge.name: 0.1 * (1 + number) for number, edge in enumerate(reversed(TREE.hyperconnections))}
    cell = make_cell(TREE, weight=weight)
    for value, edge in zip(cell.weight_low, TREE.hyperconnections):
        assert value == pytest.approx(weight[edge.name])


def test_drawn_weights_lie_between_their_bounds_and_belong_to_the_run():
    cell = BUILD("resilinet", weight=Uniform(2, 10))
    first, again, other = (np.asarray(draw_weight(cell, jax.random.key(run))) for run in (0, 0, 1))
    assert ((first >= 2) & (first <= 10)).all()
    assert len(np.unique(first)) == len(first)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    np.testing.assert_array_equal(draw_weight(BUILD("resilinet"), jax.random.key(0)), np.ones(len(first)))


def test_survival_scaling_scales_by_the_source_nodes_survival():
    cell = BUILD("resilinet", failout_rate={"n1": 0.1, "n2": 0.2, "n3": 0.3}, survival_scaling=True)
    scale = dict(zip((edge.name for edge in CHAIN.hyperconnections), cell.inference_scale))
    expected = {"i->n1": 1, "i->n2": 1, "n1->n2": 0.9, "n1->n3": 0.9, "n2->n3": 0.8, "n2->n4": 0.8, "n3->n4": 0.7}
    assert scale == pytest.approx(expected)


def test_wiring_at_inference_is_scaled_and_in_training_is_not():
    cell = BUILD("resilinet", failout_rate=0.2, survival_scaling=True, inference_activity=1)
    weight = jnp.arange(1.0, 8.0)
    at_inference, in_training = inference_wiring(cell, weight), training_wiring(cell, weight, jnp.linspace(0, 0.99, 7))
    np.testing.assert_allclose(at_inference.weight, weight * cell.inference_scale)
    np.testing.assert_array_equal(at_inference.activity, np.ones(7))
    np.testing.assert_array_equal(in_training.weight, weight)
    np.testing.assert_array_equal(in_training.activity, np.linspace(0, 0.99, 7) < 0.5)


def test_survival_scaling_leaves_what_training_never_failed():
    rates = {"n1": 0.1, "n2": 0.2, "n3": 0.3}
    cell = BUILD("resilinet", skips=("i",), failout_rate=rates, survival_scaling=True)
    expected = [0.9 if edge.source == "n1" else 1.0 for edge in CHAIN.hyperconnections]
    np.testing.assert_allclose(cell.inference_scale, expected)


def test_survival_scaling_scales_what_is_learned_as_well():
    rates = {"n1": 0.1, "n2": 0.2, "n3": 0.3}
    cell = BUILD("resilinet", failout_rate=rates, survival_scaling=True, weight=Learned(1.0))
    survives = {"i": 1.0, "n1": 0.9, "n2": 0.8, "n3": 0.7}
    expected = [survives[edge.source] for edge in CHAIN.hyperconnections]
    np.testing.assert_allclose(inference_wiring(cell, jnp.ones(7)).learned, expected)
    np.testing.assert_array_equal(training_wiring(cell, jnp.ones(7), jnp.zeros(7)).learned, np.ones(7))


def test_the_weight_of_a_removed_skip_makes_no_other_cell():
    weight = {edge.name: 1.0 for edge in CHAIN.hyperconnections}
    first, other = (BUILD("resilinet", skips=("i", "n1"), weight=weight | {"n2->n4": value}) for value in (0.5, 2.0))
    assert first.key() == other.key()
    assert first.key() != BUILD("resilinet", skips=("i", "n1"), weight=weight | {"n1->n3": 2.0}).key()


def test_training_key_ignores_what_only_inference_sees():
    cell = BUILD("resilinet")
    assert cell.training_key() == BUILD("resilinet", inference_activity=1, survival_scaling=True).training_key()
    for change in ({"failout_rate": 0.1}, {"weight": 0.5}, {"training_activity": 0.2}, {"learning_rate": 0.1}):
        assert cell.training_key() != BUILD("resilinet", **change).training_key(), change


def test_stacked_cells_keep_every_number():
    cells = [BUILD("vanilla"), BUILD("dfg"), BUILD("resilinet", weight=Uniform(0, 1))]
    stacked = stack_cells(cells)
    for name, values in stacked._asdict().items():
        np.testing.assert_array_equal(values, [getattr(cell, name) for cell in cells])


def test_statistics_are_numbers_of_which_training_sees_one():
    kinds = {kind: BUILD("resilinet", statistics=kind) for kind in ("running", "shared", "recalibrated")}
    assert kinds["running"].key() == BUILD("resilinet").key()
    assert len({cell.key() for cell in kinds.values()}) == 3
    assert kinds["recalibrated"].training_key() == kinds["running"].training_key()
    assert kinds["shared"].training_key() != kinds["running"].training_key()
    assert {kind: describe(CHAIN, cell)["statistics"] for kind, cell in kinds.items()} == {kind: kind for kind in kinds}
    in_training = training_wiring(kinds["shared"], jnp.ones(7), jnp.zeros(7))
    at_inference = inference_wiring(kinds["shared"], jnp.ones(7))
    assert (float(in_training.shared_statistics), at_inference.shared_statistics) == (1, 0)


@pytest.mark.parametrize(
    ("method", "changes", "same"),
    [
        ("vanilla", {}, True),
        ("dfg", {}, True),
        ("resilinet_select", {"failout_rate": 0.0}, True),
        ("resilinet", {"failout_rate": 0.0}, False),
        ("resilinet_add", {}, False),
        # Only a node that nothing bypasses would fail, so none does.
        ("resilinet_add", {"failout_rate": {"n3": 0.2}, "skips": ("n1",)}, True),
    ],
)
def test_shared_statistics_are_running_ones_where_each_node_meets_one_arrival(method, changes, same):
    running, shared = (BUILD(method, statistics=kind, **changes) for kind in ("running", "shared"))
    assert (running.key() == shared.key()) == same


def test_a_network_without_statistics_has_one_cell_for_all_kinds_of_them():
    build = CellBuilder(CHAIN, {"no failure": {}}, 0.05, 1e-3, keeps_statistics=False)
    assert {build("resilinet", statistics=kind).key() for kind in ("running", "shared", "recalibrated")} == {
        BUILD("resilinet").key()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistics": "batch"}, "statistics must be one of running, shared, recalibrated, got 'batch'"),
        ({"failout_rate": 1.5}, "failout rate"),
        ({"failout_rate": {"n4": 0.1}}, "cloud"),
        ({"skips": ("n3",)}, "unknown skip 'n3'"),
        ({"training_activity": -0.1}, "training activity"),
        ({"inference_activity": 0.5}, "0 .select. or 1 .add."),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"weight": {"i->n1": 1.0}}, "every hyperconnection once"),
    ],
)
def test_refuses_settings_out_of_range(changes, message):
    with pytest.raises(UserError, match=message):
        make_cell(CHAIN, **changes)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.5, Uniform(1.0, 0.5), Uniform(0.0, float("inf"))])
def test_a_weight_that_is_no_factor_is_refused(weight):
    with pytest.raises(UserError, match="the weight of hyperconnection i->n1 must be at least 0 and finite, got"):
        make_cell(CHAIN, weight=weight)
    by_name = {edge.name: 1.0 for edge in CHAIN.hyperconnections}
    if not isinstance(weight, Uniform):
        with pytest.raises(UserError, match="hyperconnection n2->n4 must be"):
            make_cell(CHAIN, weight=by_name | {"n2->n4": weight})


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_learning_rate_that_cannot_train_is_refused(rate):
    with pytest.raises(UserError, match="the learning rate must be positive and finite"):
        make_cell(CHAIN, learning_rate=rate)
