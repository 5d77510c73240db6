"""A short form of the campaign, on real nodes of Ray."""

import numpy as np

from tests.campaigns.deaths import run


def test_a_sweep_under_deaths_ends_as_it_does_alone(tmp_path):
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 2_000)
    np.savez(tmp_path / "data.npz", x=draw.normal(size=(2_000, 5)) + 2 * np.eye(3, 5)[y], y=y)
    flags = [f"--dataset={tmp_path / 'data.npz'}", "--sweep=average_accuracy", "--hidden_units=4", "--batch_size=32"]
    flags += ["--runs=2", "--epochs=100"]
    struck, sweeps = run(
        2, 2, flags, tmp_path, pause=(0.1, 0.2), kinds=("worker killed", "node removed"), in_training=True
    )
    assert (struck.total(), sweeps) == (2, 1)
    said = (tmp_path / "log").read_text()
    assert said.count("is begun again") == 2
