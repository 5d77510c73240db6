import re

import pytest

from resilinet_jax.deploy.placement import Placement
from resilinet_jax.errors import UserError

GOOD = """
heartbeat = 0.1
[nodes.i]
address = "10.0.0.1:5000"
[nodes."Ü n"]
address = "[::1]:5001"
engine = "numpy"
"""


def read(tmp_path, text):
    (tmp_path / "placement.toml").write_text(text, encoding="utf-8")
    return Placement.read(tmp_path / "placement.toml", ("i", "Ü n"))


def test_a_placement_says_where_nodes_run_and_how_long_they_wait(tmp_path):
    placement = read(tmp_path, GOOD)
    assert (placement.nodes["i"].address, placement.nodes["i"].engine) == ("10.0.0.1:5000", "jax")
    assert placement.nodes["Ü n"].engine == "numpy"
    assert (placement.heartbeat, placement.suspicion) == (0.1, 0.5)
    assert read(tmp_path, placement.to_toml()) == placement


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('address = "10.0.0.1:5000"', 'address = "10.0.0.1"', r"nodes.i.address must be host:port, got '10.0.0.1'"),
        ('address = "10.0.0.1:5000"', 'address = "a:70000"', r"nodes.i.address must be host:port, got 'a:70000'"),
        ('address = "10.0.0.1:5000"', "port = 3", r"nodes.i must have address = .*, got {'port': 3}"),
        ('"numpy"', '"tpu"', r"engine must be one of jax, numpy, onnx, got 'tpu'"),
        ('"Ü n"', "U", r"node 'Ü n' is missing; add \[nodes.\"Ü n\"\] with address"),
        (GOOD[1:], "nodes = 5", r"nodes must be a table \[nodes.\"i\"\] for each node, got 5"),
        (GOOD[1:], 'nodes = ["i", "Ü n"]', r"nodes must be a table \[nodes.\"i\"\] for each node, got \['i', 'Ü n'\]"),
        ("[nodes.i]", "[nodes.x]", r"node 'i' is missing; add \[nodes.\"i\"\] with address"),
        ("[nodes.i]", '[nodes.x]\naddress = "a:1"\n[nodes.i]', r"nodes.x: the artefact has no such node"),
        (
            "heartbeat = 0.1",
            "heartbeat = 0.4",
            r"heartbeat must be above 0 and at most half of suspicion = 0.5, got 0.4",
        ),
        ("heartbeat = 0.1", "heartbeat = 'fast'", r"heartbeat must be a number of at least 0, got 'fast'"),
        ("heartbeat = 0.1", "window = 0", r"window must be an integer in \[1, 32768\], got 0"),
        ("heartbeat = 0.1", "hartbeat = 0.1", r"unknown name 'hartbeat'; did you mean heartbeat\?"),
        ("heartbeat = 0.1", "heartbeat", r"expected a placement in TOML"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(UserError, match=message) as told:
        read(tmp_path, GOOD.replace(old, new))
    assert str(told.value).startswith(str(tmp_path / "placement.toml"))
    assert not re.search(r"\n", str(told.value))
