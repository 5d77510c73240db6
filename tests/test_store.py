import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from resilinet_jax import store
from resilinet_jax.errors import UserError
from resilinet_jax.store import Measured, Store, check_identity, only_command_in, write_file, write_identity
from tests.test_launch import ROOT


def measured(run):
    rng = np.random.default_rng(run)
    return Measured(
        rng.uniform(size=8), rng.uniform(size=3), np.array([np.nan, 0.5, rng.uniform()]), rng.uniform(size=7)
    )


RUNS = {(cell, run): measured(run) for cell in ("aa", "bb") for run in (0, 3)}


@pytest.fixture
def folder(tmp_path):
    """Of two finished passes."""
    for cell in ("aa", "bb"):
        Store(tmp_path / "runs").add({name: run for name, run in RUNS.items() if name[0] == cell})
    return tmp_path / "runs"


def test_finished_runs_come_back_to_the_last_bit(folder):
    known = Store(folder, pytest.fail)
    for name, expected in RUNS.items():
        assert [leaf.tobytes() for leaf in known[name]] == [leaf.tobytes() for leaf in expected]
    assert ("aa", 1) not in known
    assert ("cc", 0) not in known


@pytest.mark.parametrize("how", [lambda b: b[:-40], lambda b: b[:200] + bytes([b[200] ^ 8]) + b[201:], lambda b: b""])
def test_a_damaged_file_counts_for_nothing_and_is_told(folder, how):
    path = next(path for path in folder.glob("*.npz") if np.load(path)["cell"][0] == "aa")
    path.write_bytes(how(path.read_bytes()))
    said = []
    known = Store(folder, said.append)
    assert said == [f"{path} is damaged: its runs are trained again."]
    assert [name in known for name in RUNS] == [False, False, True, True]


def test_a_pickle_is_never_loaded(folder):
    np.savez(folder / "evil.npz", cell=np.array([{"a": 1}], object), run=np.array([0]))
    said = []
    Store(folder, said.append)
    assert len(said) == 1


def test_without_a_folder_runs_stay_in_memory():
    known = Store()
    known.add(RUNS)
    assert all(name in known for name in RUNS)


def test_a_write_that_fails_leaves_nothing_and_names_its_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*mine'"):
        write_file(tmp_path / "mine", b"content")
    assert not list(tmp_path.iterdir())


def test_processes_may_write_the_same_file_at_once(tmp_path, monkeypatch):
    sync = store.os.fsync

    def meanwhile(descriptor):
        sync(descriptor)
        monkeypatch.setattr(store.os, "fsync", sync)
        write_file(tmp_path / "mine", b"theirs")

    monkeypatch.setattr(store.os, "fsync", meanwhile)
    write_file(tmp_path / "mine", b"ours")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("mine", b"ours")]


def test_rounding_keeps_what_results_on_disk_hold():
    (value,) = Measured(np.array([1 / 3]), *[np.zeros(1)] * 3).rounded().accuracy
    assert value == float(f"{1 / 3:.7f}")


IDENTITY = {"--epochs": 5, "data set": "synthetic 12", "code": "abc", "--alpha": None}


def test_the_same_identity_is_welcome_and_so_is_a_part_of_it(tmp_path):
    check_identity(tmp_path / "runs", IDENTITY)
    write_identity(tmp_path / "runs", IDENTITY)
    check_identity(tmp_path / "runs", IDENTITY)
    check_identity(tmp_path / "runs", {"--epochs": 5})


@pytest.mark.parametrize("change", [{"--epochs": 6}, {"data set": "mine 34"}, {"code": "abd"}, {"--alpha": 0.5}])
def test_another_identity_is_refused_naming_difference_and_remedies(tmp_path, change):
    write_identity(tmp_path / "runs", IDENTITY)
    ((name, value),) = change.items()
    with pytest.raises(UserError) as error:
        check_identity(tmp_path / "runs", IDENTITY | change)
    assert f"holds runs made with {name} {IDENTITY[name]}, not {value}; go back" in str(error.value)
    assert "another --results_dir, or add --overwrite" in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_identity_is_refused(tmp_path, content):
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(UserError, match="is damaged; choose another --results_dir"):
        check_identity(tmp_path, IDENTITY)


def test_a_store_that_is_discarded_disappears_at_once(folder, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.discard(folder)
    assert not folder.exists()
    folder.mkdir()
    store.discard(folder)
    assert not list(folder.parent.iterdir())


def test_the_code_version_counts_every_module_but_those_around():
    modules = {path.stem for path in (ROOT / "resilinet_jax").glob("*.py")}
    assert set(store._AROUND) <= modules
    # What computes.
    computing = {"cells", "evaluation", "failout", "graph", "network", "ops", "plan", "program", "stages", "training"}
    assert computing <= modules - set(store._AROUND)


def test_the_code_version_follows_code_and_not_comments(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(store, "__file__", str(package / "store.py"))

    def version(name, text):
        (package / name).write_text(text)
        return store.code_version()["code"]

    first = version("network.py", "x = 1\n")
    assert version("network.py", "x = 1  # one\n") == first
    assert version("report.py", "y = 1\n") == first
    assert version("network.py", "x = 2\n") != first


def test_a_second_command_is_told_and_the_lock_of_a_dead_one_does_not_count(tmp_path):
    code = (
        f"import pathlib, sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from resilinet_jax.store import only_command_in\n"
        f"with only_command_in(pathlib.Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="another command is at work in"), only_command_in(tmp_path):
            pass
        os.kill(first.pid, signal.SIGKILL)
    with only_command_in(tmp_path):
        pass
