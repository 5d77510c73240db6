"""What a notebook uses."""

import subprocess
import sys

import pytest

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
    code = "import sys, resilinet_jax; print({'jax', 'flax', 'numpy', 'pandas'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_the_quickstart_is_short_and_shows_that_skips_help(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import quickstart

    assert len((ROOT / "examples" / "quickstart.py").read_text().splitlines()) < 40
    accuracy = quickstart.main(examples=4000, epochs=8)
    assert {method: runs.shape for method, runs in accuracy.items()} == dict.fromkeys(accuracy, (3,))
    assert accuracy["resilinet"].mean() > accuracy["vanilla"].mean()
