import numpy as np
import pytest

from resilinet_jax.network.senders import senders
from tests.helpers.graphs import LADDER


@pytest.mark.parametrize(
    ("dead", "select", "add"),
    [
        ((), "i->a a->b a->cloud b->cloud", "i->a a->b a->cloud b->cloud i->cloud"),
        (("a",), "i->cloud", "i->cloud"),
        # The skip stands in for b->cloud, whatever a sends.
        (("b",), "i->a a->cloud i->cloud", "i->a a->cloud i->cloud"),
        (("b->cloud",), "i->a a->b a->cloud i->cloud", "i->a a->b a->cloud i->cloud"),
        (("b", "i->cloud"), "i->a a->cloud", "i->a a->cloud"),
        (("a", "i->cloud"), "", ""),
    ],
)
def test_a_skip_around_two_nodes_stands_in_for_the_last_link_of_its_path(dead, select, add):
    survival = np.array([[name not in dead for name in LADDER.fallible]])
    for always_active, expected in ((False, select), (True, add)):
        told = senders(LADDER, survival, always_active=always_active)
        named = {edge.name for edge, over in zip(LADDER.hyperconnections, told.arrives[0]) if over}
        assert named == set(expected.split())
        assert told.sends["b"][0] == (not {"a", "b"} & set(dead))
        assert told.sends["cloud"][0] == bool(expected)


def test_a_hyperconnection_that_does_not_exist_brings_nothing():
    # Without the skip, and then without b->cloud, for which the skip stands in.
    for absent, expected in (("i->cloud", "i->a a->b a->cloud b->cloud"), ("b->cloud", "i->a a->b a->cloud i->cloud")):
        present = np.array([edge.name != absent for edge in LADDER.hyperconnections])
        told = senders(LADDER, np.ones((1, len(LADDER.fallible))), present, always_active=False)
        assert [edge.name for edge, over in zip(LADDER.hyperconnections, told.arrives[0]) if over] == expected.split()
