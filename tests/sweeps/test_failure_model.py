import itertools

import pytest

from resilinet_jax.network.graph import build_graph
from resilinet_jax.sweeps.failure_model import models

PAIRED = build_graph(
    ("i", "a", "b", "cloud"),
    [("i", "a"), ("a", "b"), ("b", "cloud")],
    [("i", "b"), ("a", "cloud")],
    links=["i->b"],
    groups={"pair": ("a", "i->b")},
)


def test_models_fail_the_same_nodes_as_often_without_what_fails_together_and_without_who_fails_more():
    probability = {"a": 0.1, "b": 0.2, "pair": 0.25}
    fails = dict.fromkeys(PAIRED.fallible, 0.0)
    for happened in itertools.product((False, True), repeat=3):
        chance, dead = 1.0, set()
        for (cause, p), occurs in zip(probability.items(), happened):
            chance *= p if occurs else 1 - p
            dead |= ({"a", "i->b"} if cause == "pair" else {cause}) if occurs else set()
        for name in dead:
            fails[name] += chance
    made = models(PAIRED, probability)
    assert made["Matched"] == probability
    assert made["Independent"] == pytest.approx(fails)
    assert made["Alike"] == pytest.approx(dict.fromkeys(fails, sum(fails.values()) / 3))
