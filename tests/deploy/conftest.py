"""One artefact, and what stands beside it, for all tests that change nothing in it."""

import functools

import pytest

from tests.helpers.deployed import make_artefact
from tests.helpers.nodes import Nodes


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """Makes the artefact of a method once: it, its model and its test split's labels."""
    return functools.cache(lambda method: make_artefact(tmp_path_factory.mktemp("artefact") / "a", method))


@pytest.fixture(scope="session")
def made(make):
    return make("resilinet")


@pytest.fixture(scope="session")
def artefact(made):
    return made[0]


@pytest.fixture(scope="session")
def together(artefact):
    """The artefact's nodes in plain loops."""
    return Nodes(artefact.folder)
