import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import failing_sets
from resilinet_jax.network.graph import Hyperconnection, build_chain, build_graph
from resilinet_jax.network.senders import has_path
from tests.helpers.reference import CHAIN, TREE


def test_nodes_come_in_data_flow_order_however_they_are_listed():
    graph = build_graph(("s", "c", "b", "a", "z"), [("s", "a"), ("a", "b"), ("b", "c"), ("c", "z")])
    assert graph.order == ("s", "a", "b", "c", "z")
    assert graph.fallible == ("a", "b", "c")


def test_nodes_that_could_come_next_keep_the_order_in_which_they_are_listed():
    for listed in ("iabcz", "ibacz"):
        assert "".join(build_graph(tuple(listed), DIAMOND).order) == listed


def test_hyperconnections_come_by_target_then_simple_ones_first_then_by_source():
    simple = [("c", "z"), ("b", "c"), ("a", "c"), ("i", "b"), ("i", "a")]
    skips = [Hyperconnection("b", "z", ("c",)), ("a", "z"), Hyperconnection("i", "c", ("b",))]
    graph = build_graph(tuple("iabcz"), simple, skips, links=["b->z", "c->z", "i->a"])
    names = [edge.name for edge in graph.hyperconnections]
    assert names == ["i->a", "i->b", "a->c", "b->c", "i->c", "c->z", "a->z", "b->z"]
    assert graph.fallible == ("a", "b", "c", "i->a", "c->z", "b->z")


def test_health_skips_bypass_what_the_paper_says():
    assert {skip.name: skip.bypassed for skip in CHAIN.skips} == {
        "i->n2": ("n1",),
        "n1->n3": ("n2",),
        "n2->n4": ("n3",),
    }
    assert [CHAIN.skip_label(skip) for skip in CHAIN.skips] == ["i", "n1", "n2"]


def test_skip_may_bypass_several_nodes():
    graph = build_graph(("i", "a", "b", "c"), [("i", "a"), ("a", "b"), ("b", "c")], [("i", "c")])
    assert graph.skips[0].bypassed == ("a", "b")


def test_what_a_skip_bypasses_may_be_named_in_a_list():
    simple, skip = [("i", "a"), ("a", "b"), ("b", "c")], Hyperconnection("i", "c", bypassed=["a", "b"])
    (found,) = build_graph(("i", "a", "b", "c"), simple, [skip]).select_skips(["i"])
    assert found.bypassed == ("a", "b")


def test_skips_that_share_their_source_are_named_by_both_ends():
    graph = build_graph(("i", "a", "b", "c"), [("i", "a"), ("a", "b"), ("b", "c")], [("i", "b"), ("i", "c")])
    assert [graph.skip_label(skip) for skip in graph.skips] == ["i->b", "i->c"]


def test_tree_bypasses_a_node_with_two_children_by_a_skip_from_each():
    assert {skip.name: skip.bypassed for skip in TREE.skips} == {
        "a->top": ("v",),
        "b->top": ("v",),
        "v->cloud": ("top",),
    }


@pytest.mark.parametrize(
    ("skips", "informed"),
    [
        ((), {()}),
        (None, {(), ("n1",), ("n2",), ("n3",), ("n1", "n3")}),
        (("i",), {(), ("n1",)}),
        (("n2", "i"), {(), ("n1",), ("n3",), ("n1", "n3")}),
    ],
)
def test_chain_combinations_that_leave_a_path(skips, informed):
    present = CHAIN.select_skips(skips)
    assert {failing for failing in failing_sets(CHAIN.fallible) if has_path(CHAIN, failing, present)} == informed


def test_tree_combinations_that_leave_a_path():
    # By hand: one child must live, and of two neighbours v, top at least one.
    def expected(failing):
        return not {"a", "b"} <= set(failing) and not {"v", "top"} <= set(failing)

    for failing in failing_sets(TREE.fallible):
        assert has_path(TREE, failing) == expected(failing), failing


LINE = [("i", "a"), ("a", "b"), ("b", "c")]
DIAMOND = [("i", "a"), ("i", "b"), ("a", "c"), ("b", "c"), ("c", "z")]


@pytest.mark.parametrize(
    ("nodes", "simple", "skips", "message"),
    [
        ("iabc", [*LINE, ("b", "a")], [], r"cycle: .*a.*b"),
        ("iabc", [*LINE, ("a", "a")], [], "a->a is a cycle"),
        ("iabc", [*LINE, ("a", "x")], [], "unknown node 'x'"),
        ("iabc", LINE, [("i", "x")], "i->x: unknown node 'x'"),
        ("iaabc", LINE, [], "'a' is given twice"),
        ("iabc", [*LINE, ("a", "b")], [], "a->b is given twice"),
        ("iabc", LINE, [("i", "b"), ("i", "b")], "i->b is given twice"),
        ("iabc", LINE, [("a", "b")], "a->b bypasses nothing: a simple"),
        ("iabc", LINE, [("b", "a")], "b->a bypasses nothing: no simple path"),
        ("iabxc", [*LINE, ("a", "x")], [], "'x' can't reach the cloud 'c'"),
        ("iabxc", [*LINE, ("x", "c")], [], "nothing from the source 'i' reaches node 'x'"),
        ("iabc", [*LINE, ("b", "i")], [], "leads to the source 'i'"),
        ("iabc", [*LINE, ("c", "b")], [], "leaves the cloud 'c'"),
        ("iabcz", DIAMOND, [("i", "c")], "could bypass a or b; name"),
        ("iabcz", DIAMOND, [Hyperconnection("i", "c", ("z",))], "not a path"),
        ("i", [], [], "needs a source and a cloud"),
    ],
)
def test_refuses_what_is_no_graph(nodes, simple, skips, message):
    with pytest.raises(UserError, match=message):
        build_graph(tuple(nodes), simple, skips)


def test_named_bypass_settles_a_choice():
    graph = build_graph(tuple("iabcz"), DIAMOND, [Hyperconnection("i", "c", ("b",)), ("a", "z")])
    assert {skip.name: skip.bypassed for skip in graph.skips} == {"i->c": ("b",), "a->z": ("c",)}


def test_node_values_follow_the_graph_not_the_mapping():
    assert CHAIN.node_values({"n3": 0.01, "n1": 0.08}) == (0.08, 0.0, 0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n4": 0.1}, "'n4' is the cloud, which never fails"),
        ({"i": 0.1}, "'i' is the source, which never fails"),
        ({"m1": 0.1}, "unknown node 'm1'.*known: n1, n2, n3"),
        ({"n1": 1.5}, "must be in"),
        ({"n1": float("nan")}, "must be in"),
    ],
)
def test_refuses_values_for_what_does_not_fail(values, message):
    with pytest.raises(UserError, match=message):
        CHAIN.node_values(values)


def test_two_nodes_are_the_smallest_graph():
    graph = build_chain(("i", "cloud"))
    assert graph.fallible == ()
    assert has_path(graph, ())
