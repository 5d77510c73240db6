"""The plan against the oracle: one forward pass of `Network.apply` for each failure combination."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.engine.evaluation import apply_plan
from resilinet_jax.engine.plan import NOTHING, plan_applications
from resilinet_jax.failures.combinations import failure_combinations
from resilinet_jax.network.forward import Network, Wiring
from resilinet_jax.network.senders import has_path
from resilinet_jax.network.stages import DenseStage, dense
from tests.helpers.graphs import DAG, GRAPHS, chain
from tests.helpers.reference import CHAIN

UNITS, CLASSES = 5, 3


def applications_by_hand(graph):
    """Of each node: the different things that can reach it, built up as nested tuples."""
    seen = {node: set() for node in graph.order[1:]}
    for bits in itertools.product((True, False), repeat=len(graph.fallible)):
        alive = dict(zip(graph.fallible, bits))
        sent = {graph.sources[0]: "x"}
        for node in graph.order[1:]:
            received = tuple((edge.source, sent.get(edge.source)) for _, edge in graph.incoming(node))
            if alive.get(node, True) and any(what for _, what in received):
                sent[node] = received
                seen[node].add(received)
    return {node: len(distinct) for node, distinct in seen.items()}


@pytest.mark.parametrize(("fallible", "applications"), [(3, 11), (8, 142), (14, 2582)])
def test_a_chain_needs_fibonacci_many(fallible, applications):
    graph = chain(fallible)
    plan = plan_applications(graph, failure_combinations(graph.fallible))
    assert plan.applications == applications
    fibonacci = [1, 2]
    while len(fibonacci) <= fallible:
        fibonacci.append(sum(fibonacci[-2:]))
    assert [len(rows) for rows in plan.incoming.values()] == fibonacci


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_each_application_is_there_once(graph):
    plan = plan_applications(graph, failure_combinations(graph.fallible))
    assert {node: len(rows) for node, rows in plan.incoming.items()} == applications_by_hand(graph)
    for rows in plan.incoming.values():
        assert len({tuple(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_no_answer_where_no_path_is_left(graph):
    masks = failure_combinations(graph.fallible)
    plan = plan_applications(graph, masks)
    for mask, answer in zip(masks, plan.cloud):
        failed = [node for node, alive in zip(graph.fallible, mask) if not alive]
        assert (answer != NOTHING) == has_path(graph, failed)


def test_nodes_that_nothing_reaches_in_any_combination_idle():
    plan = plan_applications(CHAIN, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert list(plan.cloud) == [NOTHING, NOTHING]
    assert all(len(rows) == 1 for rows in plan.incoming.values())


def network_of(graph):
    stages = {node: DenseStage(1, UNITS, CLASSES if node == graph.cloud else None) for node in graph.order[1:]}
    from_source = {edge.name: dense(UNITS) for edge in graph.hyperconnections if edge.source == graph.sources[0]}
    return Network(graph, stages, from_source | {graph.skips[-1].name: dense(UNITS)} if graph.skips else from_source)


X = np.random.default_rng(2).normal(size=(4, UNITS)).astype(np.float32)


@functools.cache
def oracle_of(graph):
    """A network, its variables, and what it says under each of several masks; compiled once for all stacks."""
    network, rng = network_of(graph), np.random.default_rng(4)
    # Biases, so that what a silent node leaks would be seen.
    variables = jax.tree.map(lambda leaf: 0.4 * rng.normal(size=leaf.shape).astype(np.float32), network.shapes(X))
    return network, variables, jax.jit(jax.vmap(lambda *on: network.apply(variables, X, *on), (0, None)))


@pytest.mark.parametrize("at_once", [1, 2, None])
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_answers_equal_one_pass_per_combination(graph, at_once):
    (network, variables, oracle), rng = oracle_of(graph), np.random.default_rng(3)
    edges, masks = graph.hyperconnections, failure_combinations(graph.fallible)
    plan = plan_applications(graph, masks)
    planned = jax.jit(lambda wiring: apply_plan(network, variables, wiring, plan, X, at_once))
    removable = np.array([edge.is_skip for edge in edges])
    for activity in (0.0, 1.0, (rng.random(len(edges)) < 0.5).astype(np.float32)):
        for removed in (np.zeros(len(edges), bool), removable, removable & (rng.random(len(edges)) < 0.5)):
            wiring = Wiring(
                jnp.asarray(~removed, jnp.float32),
                jnp.asarray(rng.uniform(0.5, 2, len(edges)), jnp.float32),
                jnp.full(len(edges), activity, jnp.float32),
            )
            logits, informed = planned(wiring)
            expected = oracle(jnp.asarray(masks), wiring)
            for number, answer in enumerate(plan.cloud):
                if answer == NOTHING:
                    assert not expected.informed[number]
                else:
                    assert informed[answer] == expected.informed[number]
                    np.testing.assert_allclose(logits[answer], expected.logits[number], atol=1e-5)
            assert len({float(each.sum()) for each in logits}) > 1 or len(logits) == 1


def test_without_failures_every_node_computes_once():
    plan = plan_applications(DAG, np.ones((1, len(DAG.fallible))))
    assert plan.applications == len(DAG.order) - 1
    assert list(plan.cloud) == [0]
