"""What a notebook uses."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import resilinet_jax
from tests.helpers.process import ROOT


def test_every_exported_name_is_there():
    for name in resilinet_jax.__all__:
        assert getattr(resilinet_jax, name).__name__ == name
    assert set(resilinet_jax.__all__) <= set(dir(resilinet_jax))


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'run_cell'; it exports .*run_cells"):
        _ = resilinet_jax.run_cell


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"jax", "flax", "numpy", "pandas", "grpc"}
    code = f"import sys, resilinet_jax as rj; rj.deploy; print({heavy} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_whoever_asks_nodes_finds_a_client_or_what_it_lacks(monkeypatch):
    assert resilinet_jax.deploy.Client is importlib.import_module("resilinet_jax.deploy.client").Client
    with pytest.raises(AttributeError, match="has no attribute 'Clint'; it exports Artefact, Client, Placement"):
        _ = resilinet_jax.deploy.Clint
    monkeypatch.setitem(sys.modules, "grpc", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "resilinet_jax.deploy.client")
    with pytest.raises(resilinet_jax.UserError, match=r"Client needs grpc, .*; pip install 'resilinet_jax\[edge\]'"):
        _ = resilinet_jax.deploy.Client


def test_shapes_are_checked_while_testing():
    from resilinet_jax.results.results import mean
    from resilinet_jax.sweeps.bandwidth import expected

    for wrong in (lambda: mean(np.zeros((2, 2))), lambda: expected(None, "cell", "normal", np.zeros((2, 2)))):
        with pytest.raises(TypeCheckError):
            wrong()
