"""A short form of the campaign, on real nodes of Ray."""

import subprocess
import sys

import numpy as np

from tests.helpers.process import ROOT

OWN = """
import dataclasses

from beside import build_network

from resilinet_jax.scenarios.health import SCENARIO as HEALTH

SCENARIO = dataclasses.replace(HEALTH, name="own", build_network=build_network)
"""


def test_a_sweep_under_deaths_ends_as_it_does_alone(tmp_path):
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 2_000)
    np.savez(tmp_path / "data.npz", x=draw.normal(size=(2_000, 5)) + 2 * np.eye(3, 5)[y], y=y)
    # A file of a user's own, and what it imports, which workers have to be given.
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("from resilinet_jax.scenarios.health import build_network\n")
    campaign = [f"--folder={tmp_path}", "--deaths=1", "--in_training", "--kinds", "node removed", "--"]
    own = [f"--scenario={tmp_path / 'own.py'}", f"--dataset={tmp_path / 'data.npz'}"]
    sweep = ["--sweep=average_accuracy", "--hidden_units=4", "--batch_size=16", "--runs=2", "--epochs=30"]
    # Ray forks, which a process that holds JAX should not.
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.deaths", *campaign, *own, *sweep],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "byte for byte as alone, under 1 deaths" in done.stdout
    assert (tmp_path / "log").read_text().count("is begun again") == 1
