import dataclasses
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from resilinet_jax.command import main as command_line
from resilinet_jax.command.settings import Settings
from tests.helpers.hostile import command
from tests.helpers.process import ROOT, launch


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


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Runs commands in this process, which has imported JAX already: status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_set_up_jax", lambda mode: None)  # the tests' own devices are in place

    def run(*flags):
        capsys.readouterr()
        status, line = 0, ""
        try:
            command(*map(str, flags))
        except SystemExit as stop:
            status, line = 1, f"{stop.code}\n"
        said = capsys.readouterr()
        return subprocess.CompletedProcess(flags, status, said.out, said.err + line)

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size=481"], "--batch_size must be at most the 480 training examples, got 481"),
        (["--train_examples=100", "--batch_size=128"], "at most the 100 training examples"),
        (["--data_dir=.", "--dataset=mhealth"], "can't download mHealth"),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_compiling(tmp_path, npz, here, monkeypatch, flags, message):
    # An unroutable proxy stands for a missing network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    done = here("--sweep=all", f"--dataset={npz}", *flags)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sweep_of_a_users_npz_from_flags_to_report(tmp_path, npz, here):
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
    # A second time there is nothing to train: it prints the same tables and leaves the same files.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = here(*flags)
    assert again.returncode == 0
    assert "6 runs for failure_combinations, 6 of them finished already." in again.stdout
    assert "epoch" not in again.stderr
    tables = done.stdout.index("Accuracy (%)")
    assert done.stdout[tables:] == again.stdout[again.stdout.index("Accuracy (%)") :]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # The report alone comes from the folder alone, wherever it is.
    shutil.copytree(folder, tmp_path / "elsewhere")
    for lost in ("report.md", "figure.png", "averages.csv"):
        (tmp_path / "elsewhere" / lost).unlink()
    reported = here(f"--report={tmp_path / 'elsewhere'}")
    assert reported.returncode == 0, reported.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before
    # Other settings are refused, naming the difference.
    other = here(*flags, "--epochs=4")
    assert other.returncode == 1
    assert "holds runs made with --epochs 3, not 4; go back to that, choose another --results_dir" in other.stderr
    assert other.stderr.count("\n") == 1


SMALL = ["--sweep=average_accuracy", "--runs=1", "--batch_size=16", "--hidden_units=16", "--epochs=8"]


def test_a_killed_command_goes_on_where_it_was(tmp_path, npz, here):
    flags = [*SMALL, f"--dataset={npz}"]
    assert here(*flags, f"--results_dir={tmp_path / 'undisturbed'}").returncode == 0
    command = [sys.executable, str(ROOT / "launch.py"), *flags, f"--results_dir={tmp_path / 'killed'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as killed:
        while not list((tmp_path / "killed").glob("health/checkpoints/*/epochs/[1-9]")):
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.01)
        killed.kill()
    again = here(*flags, f"--results_dir={tmp_path / 'killed'}")
    assert again.returncode == 0, again.stderr
    assert "Going on with 3 runs after epoch" in again.stderr
    one, other = (tmp_path / name / "health/average_accuracy" for name in ("undisturbed", "killed"))
    for name in ("accuracies.csv", "history.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_diverged_runs_are_told_at_the_end(npz, here):
    done = here(*SMALL[:-1], "--epochs=2", f"--dataset={npz}", "--learning_rate=1000")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 3 of 3 runs diverged, in average_accuracy/")
    assert last.endswith("try a smaller --learning_rate")
    assert "Written to" in done.stdout


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no results"),
        ({"settings.json": "{"}, "damaged or not of this version"),
        ({"settings.json": "[]"}, "damaged or not of this version"),
        ({"settings.json": '{"settings": {"swep": 1}, "sweep": "failout_rate"}'}, "damaged or not of this version"),
    ],
)
def test_a_folder_without_sound_results_makes_no_report(tmp_path, here, files, message):
    (tmp_path / "results").mkdir()
    for name, text in files.items():
        (tmp_path / "results" / name).write_text(text)
    done = here(f"--report={tmp_path / 'results'}")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
