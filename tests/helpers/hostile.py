"""Puts bad inputs to the command line, in this process: to start Python and JAX for each would take minutes."""

import contextlib
import json
import os
import re
import resource
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from resilinet_jax import sweeps
from resilinet_jax.command import main as command_line
from resilinet_jax.errors import UserError, error_line
from tests.helpers.process import launch as start

# Derandomised, so that CI tries the same examples every time.
BOUNDED = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

SECONDS = 120.0  # as long as nobody would wait, on the busiest machine; the table tells what it took
FULL = ("--sweep=failure_combinations", "--nohuge_pages", "--nocompilation_cache")


def nothing(folder):
    """What most cases need in their folder."""


class Case(NamedTuple):
    """A bad input, and what is said about it.

    Attributes:
      name: of the case.
      flags: besides the sweep; `{here}` stands for the folder that `make` filled.
      message: a regular expression that the line has to match.
      make: puts what is needed into a folder.
    """

    name: str
    flags: tuple[str, ...]
    message: str
    make: Callable = nothing


def table(*cases):
    """Parameters of a test; names must differ."""
    assert len({case.name for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def command(*flags):
    """The command line, as often as need be in one process."""
    command_line.main(["launch.py", *flags], sweeps)


def completed(flags, sweep):
    """Flags, and those of a sweep that they don't give themselves."""
    given = {flag.split("=")[0] for flag in flags}
    return [*(flag for flag in sweep if flag.split("=")[0] not in given), *flags]


def run(*flags):
    """What the command line says before it ends, and its status; it has to end."""
    with pytest.raises(SystemExit) as stop:
        command(*flags)
    # What Python does with the exit of a main program: a text goes to standard error, and the status is 1.
    return (1, stop.value.code) if isinstance(stop.value.code, str) else (stop.value.code, "")


def contents(folder):
    """All that is in a folder, to see whether anything has changed."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def check_line(line, message, seconds, name, *folders):
    """One line that a person can act on, and a row for the table of all cases."""
    for folder in folders:
        line = line.replace(str(folder), ".")
    assert line.startswith("error: ")
    assert "\n" not in line.rstrip("\n")
    assert "Traceback" not in line
    assert re.search(message, line), line
    assert len(line) < 220 or " ... " in line, len(line)
    assert seconds < SECONDS
    row = f"| {name} | `{line.rstrip()}` | {seconds:.2f} |"
    print(row)
    if path := os.environ.get("RESILINET_HOSTILE_TABLE"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(row + "\n")


@contextlib.contextmanager
def nothing_changes(*folders):
    before = [contents(folder) for folder in folders]
    yield
    for folder, then in zip(folders, before):
        now = contents(folder)
        assert sorted(now) == sorted(then)
        assert now == then


class Refusals:
    """A test class with `check`; its cases may neither train nor write."""

    user = contextlib.nullcontext  # who runs them

    @pytest.fixture(autouse=True)
    def _surroundings(self, tmp_path, monkeypatch, capfd, unrendered):
        self.here, self.cwd, self.capfd = tmp_path / "here", tmp_path / "cwd", capfd
        self.here.mkdir()
        self.cwd.mkdir()
        monkeypatch.chdir(self.cwd)
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
        monkeypatch.setattr(command_line, "_set_up_jax", lambda mode: None)  # the tests' own devices are in place

        def train(*arguments):
            raise AssertionError("it would have trained")

        monkeypatch.setattr("resilinet_jax.command.experiment.run_cells", train)

    def check(self, case, sweep=FULL):
        """Runs a case; whatever it refuses, it leaves everything as it was."""
        case.make(self.here)
        self.capfd.readouterr()
        flags = [flag.replace("{here}", str(self.here)) for flag in case.flags]
        with nothing_changes(self.here, self.cwd):
            start = time.monotonic()
            with self.user():
                status, line = run(*completed(flags, sweep))
            seconds = time.monotonic() - start
        assert status == 1
        assert self.capfd.readouterr() == ("", "")
        assert not (self.here.parent / "tfds").exists()
        check_line(line, case.message, seconds, case.name, self.here, self.here.parent)


def check_process(folder, case):
    """The same with a process of its own, for a few."""
    case.make(folder)
    before = contents(folder)
    flags = [flag.replace("{here}", str(folder)) for flag in case.flags]
    done = start(*completed(flags, ["--sweep=all"]), cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    check_line(done.stderr, case.message, done.seconds, f"{case.name} (process)", folder)
    assert contents(folder) == before


def taken_or_refused(read):
    """What `read` returns; None where it refuses in one line."""
    try:
        return read()
    except (UserError, OSError) as error:
        line = error_line(error)
    assert line.isprintable()
    return None


def without_pickle(monkeypatch):
    """Makes every way to load a pickle fail."""

    def refuse(*arguments, **options):
        raise AssertionError("a pickle was loaded")

    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
        if not name.startswith("_"):
            monkeypatch.setattr(f"_pickle.{name}", refuse)


def flipped(content, place):
    changed = bytearray(content)
    changed[place] ^= 0xFF
    return bytes(changed)


def encrypted(content):
    """A zip that says that its members are encrypted."""
    changed = bytearray(content)
    for found in re.finditer(b"PK\x01\x02", content):
        changed[found.start() + 8] |= 1
    for found in re.finditer(b"PK\x03\x04", content):
        changed[found.start() + 6] |= 1
    return bytes(changed)


def claiming_size(content, size):
    """A zip that says that its last member unpacks to so many bytes."""
    changed = bytearray(content)
    place = content.rindex(b"PK\x01\x02") + 24
    changed[place : place + 4] = struct.pack("<I", size)
    return bytes(changed)


def mutations(content):
    """The content with bytes flipped, cut off, repeated or put in."""
    place = st.integers(0, len(content) - 1)
    flip = st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=4).map(
        lambda flips: bytes(byte ^ dict(flips).get(number, 0) for number, byte in enumerate(content))
    )
    cut = place.map(lambda end: content[:end])
    insert = st.tuples(place, st.binary(min_size=1, max_size=9)).map(
        lambda at: content[: at[0]] + at[1] + content[at[0] :]
    )
    return st.binary(max_size=200) | flip | cut | insert


@contextlib.contextmanager
def files_of_at_most(size):
    """What a full disk is like, as far as a process can have one to itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def info(change, name="dataset_info.json"):
    """Changes a file of a prepared data set that is kept as JSON."""

    def damage(folder):
        content = json.loads((folder / name).read_text())
        content = change(content) or content
        (folder / name).write_text(json.dumps(content))

    return damage


def records(change, split="train"):
    def damage(folder):
        (path,) = folder.glob(f"*-{split}.array_record*")
        path.write_bytes(change(path.read_bytes()))

    return damage


def strange(features):
    """Names a module that TFDS would import, and which opens a browser."""
    features["pythonClassName"] = "antigravity.It"


# What may happen to a data set after TFDS has prepared it; no message where the folder's name will do.
PREPARED = (
    Case("no JSON", (), "", lambda folder: (folder / "dataset_info.json").write_text("{")),
    Case("an empty dataset_info.json", (), "", lambda folder: (folder / "dataset_info.json").write_text("")),
    Case("a list in dataset_info.json", (), "", lambda folder: (folder / "dataset_info.json").write_text("[]")),
    Case("bytes in dataset_info.json", (), "", lambda folder: (folder / "dataset_info.json").write_bytes(b"\xff\x00")),
    Case("nothing in dataset_info.json", (), "", lambda folder: (folder / "dataset_info.json").write_text("{}")),
    Case("no splits", (), "", info(lambda info: info.update(splits=[]))),
    Case("shards of text", (), "", info(lambda info: info["splits"][0].update(shardLengths=["many"]))),
    Case("10^10 examples", (), "0,000,000,", info(lambda info: info["splits"][0].update(shardLengths=["10000000000"]))),
    Case("more shards than files", (), "", info(lambda info: info["splits"][0].update(shardLengths=["1", "2", "3"]))),
    Case("no features.json", (), "", lambda folder: (folder / "features.json").unlink()),
    Case("features of a stranger", (), "is 'antigravity.It', which is no part", info(strange, "features.json")),
    Case("no records", (), "", lambda folder: [path.unlink() for path in folder.glob("*-train*")]),
    Case("empty records", (), "", records(lambda content: b"")),
    Case("half of the records", (), "", records(lambda content: content[: len(content) // 2])),
    Case("a flipped byte in the records", (), "", records(lambda content: flipped(content, 100))),
    Case("zeros as records", (), "", records(lambda content: b"\0" * len(content))),
)  # fmt: skip
