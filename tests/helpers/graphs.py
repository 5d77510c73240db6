"""Graphs that several tests go through."""

import itertools

from resilinet_jax.network.graph import Hyperconnection, build_chain, build_graph
from tests.helpers.reference import CHAIN, TREE

# A DAG with a fork, a skip around two nodes, skips that share their target, and one around a node of either branch.
DAG = build_graph(
    ("i", "a", "b", "c", "d", "e", "cloud"),
    [("i", "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e"), ("e", "cloud")],
    [
        Hyperconnection("i", "d", ("a", "c")),
        Hyperconnection("a", "d", ("b",)),
        ("d", "cloud"),
        Hyperconnection("b", "e", ("d",)),
    ],
)


# A skip around two nodes, the first of which also sends to the skip's target by itself; two links that may fail.
LADDER = build_graph(
    ("i", "a", "b", "cloud"),
    [("i", "a"), ("a", "b"), ("a", "cloud"), ("b", "cloud")],
    [Hyperconnection("i", "cloud", ("a", "b"))],
    links=("b->cloud", "i->cloud"),
)


GRAPHS = {"chain": CHAIN, "tree": TREE, "dag": DAG, "no skips": build_graph("iabc", list(itertools.pairwise("iabc")))}


def chain(fallible):
    return build_chain(["i", *(f"n{v}" for v in range(fallible)), "cloud"])
