import contextlib
import errno
import os
import signal
import subprocess
import sys

import pytest

from resilinet_jax import files
from resilinet_jax.errors import UserError
from resilinet_jax.files import (
    checked_json,
    default_data_dir,
    digest,
    discard,
    only_command_in,
    read_json,
    write_file,
    write_folder,
    zip_bytes,
)


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


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        """With two files that were written, and one of the user's own."""
        write_folder(tmp_path / "sweep", {"a": b"1", "b": b"2"}, {})
        (tmp_path / "sweep" / "my_notes.md").write_bytes(b"mine")
        return tmp_path / "sweep"

    def test_what_is_no_longer_wanted_goes_and_what_is_the_user_s_stays(self, folder):
        told = {name: digest(content) for name, content in {"a": b"1", "b": b"2", "my_notes.md": b"ours"}.items()}
        (folder.parent / ".sweep.backup").mkdir()
        write_folder(folder, {"a": b"3"}, told | {"../b": digest(b"")})
        assert contents(folder) == {"a": b"3", "my_notes.md": b"mine"}
        assert (folder.parent / ".sweep.backup").exists()

    def test_a_folder_inside_comes_and_goes_with_its_files(self, folder):
        write_folder(folder, {"paper/a": b"1"}, {})
        assert (folder / "paper" / "a").read_bytes() == b"1"
        write_folder(folder, {"b": b"2"}, {"paper/a": digest(b"1"), "paper\0/a": "", "/": "", "b/c": ""})
        assert not (folder / "paper").exists()

    def test_a_folder_inside_that_leads_elsewhere_is_refused(self, folder, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "b").write_bytes(b"1")
        (folder / "paper").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=r"paper leads out of .*sweep; remove it"):
            write_folder(folder, {"paper/a": b"1"}, {})
        write_folder(folder, {"a": b"1"}, dict.fromkeys(["paper/b", "../elsewhere/b"], digest(b"1")))
        assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["b"]

    def test_through_a_link_it_is_written_where_that_leads(self, folder, tmp_path):
        (tmp_path / "link").symlink_to(folder)
        write_folder(tmp_path / "link", {"a": b"3"}, {})
        assert contents(folder)["a"] == b"3"
        assert (tmp_path / "link").is_symlink()

    def test_a_link_in_it_is_replaced_and_never_written_through(self, folder, tmp_path):
        (tmp_path / "elsewhere").write_bytes(b"1")
        (folder / "a").unlink()
        (folder / "a").symlink_to(tmp_path / "elsewhere")
        write_folder(folder, {"a": b"3"}, {})
        assert contents(folder)["a"] == b"3"
        assert (tmp_path / "elsewhere").read_bytes() == b"1"

    def test_has_the_rights_that_the_user_wants(self, tmp_path):
        before = os.umask(0o077)
        try:
            write_folder(tmp_path / "private", {"a": b"1"}, {})
        finally:
            os.umask(before)
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


def test_parts_that_a_killed_command_left_go_with_the_next_one(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".settings.json.0123abcd.part").touch()
    with only_command_in(tmp_path):
        assert not list((tmp_path / "sweep").iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named_with_a_remedy(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"keeps no locks.*choose a --results_dir on a local disk"):  # noqa: SIM117
        with only_command_in(tmp_path):
            pass


def test_a_system_without_flock_has_another_way(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    with only_command_in(tmp_path), pytest.raises(UserError, match="another command"), only_command_in(tmp_path):
        pass


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_a_checked_file_is_noticed_or_changes_nothing(tmp_path, bit):
    values = {"epochs": 5, "name": "a", "rate": 0.25}
    whole, path = checked_json(values), tmp_path / "values.json"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with contextlib.suppress(ValueError):
            assert read_json(path) == values


def test_a_zip_file_does_not_depend_on_the_clock(monkeypatch):
    made = zip_bytes({"a.npy": b"1"})
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert zip_bytes({"a.npy": b"1"}) == made


def test_who_has_no_home_is_asked_for_a_folder_of_data(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match=r"no home folder to look for data sets in; give --data_dir$"):
        default_data_dir()
