import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from resilinet_jax.command import main as command_line
from resilinet_jax.command.settings import Mode, Settings
from tests.helpers import tables
from tests.helpers.hostile import command, completed, nothing_changes
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
    for flag in (field.name for owner in (Settings, Mode) for field in dataclasses.fields(owner)):
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
    done = here(*completed(flags, ["--sweep=all", f"--dataset={npz}"]))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


# One compiled program for all tests of this file, whatever the sweep: these have the same cells.
PROGRAM = ["--split=subject", "--runs=2", "--batch_size=32", "--hidden_units=8"]
# Of a notebook, a cluster's launcher, and a careful developer.
INHERITED = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2", "PYTHONSAFEPATH": "1", "HOME": "/proc", "JAX_PLATFORMS": "CPU", "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_TRANSFER_GUARD": "disallow",
    "JAX_DEBUG_NANS": "1", "JAX_DISABLE_JIT": "1", "JAX_LOG_COMPILES": "1", "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_NUM_CPU_DEVICES": "2", "TF_CPP_MIN_LOG_LEVEL": "0", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_NTASKS": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "SLURM_JOB_ID": "1", "PMI_SIZE": "2",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
    """The flags of a sweep, and the folder from which it has run."""
    flags = [
        "--sweep=failure_combinations", f"--dataset={npz}", *PROGRAM, "--epochs=8", "--learning_rate=0.01",
        "--failout_rate=0.25", "--results_dir=[red]out",
    ]  # fmt: skip
    here = tmp_path_factory.mktemp("finished")
    # In a process that has inherited what would be in the way, and whose reader has gone.
    reading, writing = os.pipe()
    os.close(reading)
    done = launch(*flags, cwd=here, stdout=writing, **INHERITED)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert "epoch 8/8" in done.stderr
    assert all(re.match("(compiling|epoch|evaluating) ", line) for line in done.stderr.splitlines()), done.stderr
    return flags, here


def test_sweep_of_a_users_npz_from_flags_to_report(tmp_path, finished, here, monkeypatch):
    flags, where = finished
    monkeypatch.chdir(where)
    folder = where / "[red]out" / "health" / "failure_combinations"
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
    # A second time there is nothing to train: it leaves the same files, and prints what they say.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = here(*flags)
    assert again.returncode == 0
    assert "6 runs for failure_combinations, 6 of them finished already." in again.stdout
    assert "epoch" not in again.stderr
    assert "Data set: mine.npz: 600 rows, 6 features, 3 classes." in again.stdout
    assert "2 instead of 10 runs" in again.stdout
    assert "n1, n2, n3" in again.stdout
    assert "Written to [red]out" in again.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # The report alone comes from the folder alone, wherever it is.
    shutil.copytree(folder, tmp_path / "elsewhere")
    for lost in ("report.md", "figure.png", "averages.csv"):
        (tmp_path / "elsewhere" / lost).unlink()
    reported = here(f"--report={tmp_path / 'elsewhere'}")
    assert reported.returncode == 0, reported.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before
    # Other settings are refused, naming the difference.
    other = here(*(flag.replace("--epochs=8", "--epochs=4") for flag in flags))
    assert other.returncode == 1
    assert "holds runs made with --epochs 8, not 4; go back to that, choose another --results_dir" in other.stderr
    assert other.stderr.count("\n") == 1


@pytest.mark.usefixtures("unrendered")
def test_a_killed_command_goes_on_where_it_was(tmp_path, finished, here):
    flags = [flag.replace("[red]out", str(tmp_path / "killed")) for flag in finished[0]]
    command = [sys.executable, str(ROOT / "launch.py"), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # With the same variables of JAX, so that what was traced is found.
    with subprocess.Popen(command, text=True, env=os.environ | INHERITED, **pipes) as killed:
        while not list((tmp_path / "killed").glob("health/checkpoints/*/epochs/[1-9]")):
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.01)
        killed.kill()
    again = here(*flags)
    assert again.returncode == 0, again.stderr
    assert "Going on with 6 runs after epoch" in again.stderr
    one, other = (each / "health/failure_combinations" for each in (finished[1] / "[red]out", tmp_path / "killed"))
    for name in ("accuracies.csv", "history.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.usefixtures("unrendered")
def test_diverged_runs_are_told_at_the_end(npz, here):
    flags = ["--sweep=average_accuracy", f"--dataset={npz}", *PROGRAM, "--epochs=2"]
    done = here(*flags, "--learning_rate=1000")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.match("error: [1-6] of 6 runs diverged, in average_accuracy/", last)
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


def test_describe_tells_what_the_data_hold_and_draws_them(tmp_path, capsys):
    (shape, *_) = tables.SHAPES
    shape.write(tmp_path)
    frame = (tmp_path / "t.csv").read_text().split("\n")
    frame = [f"{line},{'twin' if not i else line.split(',')[2]}" for i, line in enumerate(frame) if line]
    (tmp_path / "t.csv").write_text("\n".join(frame))
    flags = [f"--dataset={tmp_path / 't.csv'}", *shape.flags, f"--results_dir={tmp_path}"]
    command("--describe", *flags)
    said = capsys.readouterr().out
    assert "Features a and twin hold the same, but for a factor." in said
    assert "4 people were recorded." in said
    assert re.search(r"climb +\d+ \(\d+\.\d %\) +\d+ \(\d+\.\d %\) +\d+ \(\d+\.\d %\)", said)
    least, mean, most, deviation = (
        float(text) for text in re.search(r"\nb +(\S+) +(\S+) +(\S+) +(\S+)\n", said).groups()
    )
    assert tables.X[:, 1].min() <= least < mean < most <= tables.X[:, 1].max() + 1e-4
    assert deviation == pytest.approx(tables.X[:, 1].std(), rel=0.2)
    assert (tmp_path / "health/data.png").read_bytes().startswith(b"\x89PNG")
    command("--describe", *flags, "--split=leave_one_subject_out")
    said = capsys.readouterr().out
    assert "The first of 4 splits:" in said
    assert re.search(r"\nb +\S+ +\S+ +\S+ +\S+\n", said)


def test_describe_tells_in_one_line_that_there_is_no_device(npz, here, monkeypatch):
    def fail():
        raise AssertionError

    monkeypatch.setattr("jax.devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    done = here("--describe", f"--dataset={npz}")
    assert re.fullmatch(r"error: JAX finds no device with .*JAX_PLATFORMS=cuda.*\n", done.stderr)


@pytest.mark.usefixtures("unrendered")
def test_classes_keep_their_names_from_the_table_to_the_report(tmp_path, capsys):
    (shape, *_) = tables.SHAPES
    shape.write(tmp_path)
    flags = [f"--dataset={tmp_path / 't.csv'}", *shape.flags, f"--results_dir={tmp_path}", "--runs=1", "--epochs=2"]
    command("--sweep=failure_combinations", *flags, "--hidden_units=4", "--batch_size=16", "--nocompilation_cache")
    folder = tmp_path / "health/failure_combinations"
    counts = pd.read_csv(folder / "class_counts.csv")
    assert dict(zip(counts["class"], counts.class_name)) == dict(enumerate(tables.CLASSES))
    assert json.loads((folder / "settings.json").read_text())["dataset"]["class_names"] == list(tables.CLASSES)
    named = rf"\| n1 \| ({'|'.join(tables.CLASSES)}|–)"
    assert re.search(named, (folder / "report.md").read_text())
    before = (folder / "report.md").read_text()
    capsys.readouterr()
    command(f"--report={folder}")
    assert (folder / "report.md").read_text() == before


def test_a_dry_run_tells_what_is_left_and_leaves_nothing(tmp_path, finished, here, monkeypatch):
    flags, where = finished
    done = here(*flags, "--dry_run")
    assert "failure_combinations: 6 of 6 runs are to be trained, in 1 pass." in done.stdout
    for name in ("compiling", "training", "evaluating", "in all", "memory", "operations"):
        assert re.search(rf"^  {name} +\S", done.stdout, re.MULTILINE), name
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.chdir(where)
    with nothing_changes(where):
        assert "0 of 6 runs are to be trained." in here(*flags, "--dry_run").stdout
        assert "6 of 6 runs are to be trained, in" in here(*flags, "--dry_run", "--keep_models").stdout
        again = here("--report=[red]out/health/failure_combinations", "--dry_run")
    assert "error: --dry_run is about training, and --report trains nothing; leave it out" in again.stderr
