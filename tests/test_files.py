import os
import signal
import subprocess
import sys

import pytest

from resilinet_jax import files
from resilinet_jax.errors import UserError
from resilinet_jax.files import discard, only_command_in, write_file


def test_a_write_that_fails_leaves_nothing_and_names_its_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*mine'"):
        write_file(tmp_path / "mine", b"content")
    assert not list(tmp_path.iterdir())


def test_processes_may_write_the_same_file_at_once(tmp_path, monkeypatch):
    sync = files.os.fsync

    def meanwhile(descriptor):
        sync(descriptor)
        monkeypatch.setattr(files.os, "fsync", sync)
        write_file(tmp_path / "mine", b"theirs")

    monkeypatch.setattr(files.os, "fsync", meanwhile)
    write_file(tmp_path / "mine", b"ours")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("mine", b"ours")]


def test_a_folder_that_is_discarded_disappears_at_once(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "one").touch()

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            discard(folder)
    assert not folder.exists()
    folder.mkdir()
    discard(folder)
    assert not list(folder.parent.iterdir())


def test_a_second_command_is_told_and_the_lock_of_a_dead_one_does_not_count(tmp_path):
    code = (
        "import pathlib, time\n"
        "from resilinet_jax.files import only_command_in\n"
        f"with only_command_in(pathlib.Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="another command is at work in"), only_command_in(tmp_path):
            pass
        os.kill(first.pid, signal.SIGKILL)
    with only_command_in(tmp_path):
        pass
