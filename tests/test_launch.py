import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from resilinet_jax.settings import Settings

ROOT = pathlib.Path(__file__).parent.parent


def launch(*flags, cwd=None, **environment):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *map(str, flags)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )
    done.seconds = time.monotonic() - start
    return done


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    np.savez(path, x=rng.normal(size=(600, 6)) + 2 * np.eye(3, 6)[y], y=y, subject=np.arange(600) % 6)
    return path


def test_list_names_every_sweep():
    done = launch("--sweep=list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in (ROOT / "sweeps").glob("[!_]*.py"))
    assert all(len(line) <= 80 for line in lines)


def test_help_names_every_flag():
    text = launch("--help").stdout
    fields = {field.name for field in dataclasses.fields(Settings)}
    others = {"huge_pages", "compilation_cache", "coordinator_address", "num_processes", "process_id", "distributed"}
    for flag in fields | others:
        assert f"--{flag}:" in text or f"--[no]{flag}:" in text, flag


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size=481"], "--batch_size must be at most the 480 training examples, got 481"),
        (["--train_examples=100", "--batch_size=128"], "at most the 100 training examples"),
        (["--data_dir=.", "--dataset=mhealth"], "can't download mHealth"),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_compiling(tmp_path, npz, flags, message):
    # An unroutable proxy stands for a missing network.
    done = launch(
        "--sweep=all", f"--dataset={npz}", *flags, cwd=tmp_path, https_proxy="http://127.0.0.1:9", no_proxy=""
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sweep_of_a_users_npz_from_flags_to_report(tmp_path, npz):
    flags = [
        "--sweep=failure_combinations", f"--dataset={npz}", "--split=subject", "--runs=2", "--epochs=3",
        "--batch_size=32", "--hidden_units=8", "--learning_rate=0.01", "--failout_rate=0.25", "--results_dir=[red]out",
    ]  # fmt: skip
    done = launch(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Data set: mine.npz: 600 rows, 6 features, 3 classes." in done.stdout
    assert "2 instead of 10 runs" in done.stdout
    assert "n1, n2, n3" in done.stdout
    assert "epoch 3/3" in done.stderr
    assert "Written to [red]out" in done.stdout
    folder = tmp_path / "[red]out" / "health" / "failure_combinations"
    frame = pd.read_csv(folder / "accuracies.csv", keep_default_na=False)
    assert len(frame) == 3 * 2 * 8
    assert (frame.query("cell == 'vanilla' and failing != 'none'").accuracy.nunique()) == 1
    assert set(frame.learning_rate) == {0.01}
    assert set(frame.query("cell == 'resilinet'").failout_rate) == {0.25}
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["settings"]["seed"] == 0
    assert settings["preset"]["network"]["hidden_units"] == 8
    assert settings["dataset"]["fingerprint"]
    # Six subjects of a hundred rows: four, one and one.
    assert settings["examples"] == {"train": 400, "validation": 100, "test": 100}
    # A second time it refuses at once, naming the way out; the results are untouched.
    before = (folder / "accuracies.csv").stat().st_mtime_ns
    again = launch(*flags, cwd=tmp_path)
    assert again.returncode == 1
    assert "holds results already; add --overwrite" in again.stderr
    assert (folder / "accuracies.csv").stat().st_mtime_ns == before
