import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from resilinet_jax import files
from resilinet_jax.command.flags import define_flags
from resilinet_jax.command.reporting import publish
from resilinet_jax.command.settings import Settings, check_flag, choose
from resilinet_jax.errors import one_line
from resilinet_jax.report.report import RECORD
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.fakes import fake, record, with_history
from tests.helpers.hostile import (
    BOUNDED,
    FULL,
    Case,
    Refusals,
    check_line,
    check_process,
    command,
    completed,
    contents,
    nothing,
    nothing_changes,
    run,
    table,
    taken_or_refused,
)
from tests.helpers.own_scenario import leave_out_training
from tests.helpers.process import ROOT

FLAGS = define_flags()
FIELDS = typing.get_type_hints(Settings)
INTEGERS = {
    "runs": "[1, 10000]", "epochs": "[1, 1000000]", "batch_size": "[1, 2147483647]", "hidden_units": "[1, 65536]",
    "train_examples": "[1, 2147483647]", "runs_per_pass": "[1, 2147483647]", "seed": "[0, 2147483647]",
}  # fmt: skip
REALS = {
    "learning_rate": "[1e-30, 1000]", "failout_rate": "[0, 1]", "learning_rate_decay": "(0, 1]", "tolerance": "(0, 1]",
}  # fmt: skip
CIFAR10 = "--scenario=cifar10"


def numbers():
    """Every number's flag with what is none, and with what is out of its range."""
    for name, within in INTEGERS.items():
        for value in ("-1", "0", str(10**30)):
            if (name, value) != ("seed", "0"):
                expected = re.escape(f"--{name} must be an integer in {within}, got {value}")
                yield Case(f"{name} {value[:6]}", (f"--{name}={value}",), expected)
        for value in ("two", "1.5", "nan", "inf", "1e400", ""):
            yield Case(f"{name} {value}", (f"--{name}={value}",), f"--{name} must be an integer, got '{value}'$")
    for name, within in REALS.items():
        for value, got in (("-0.5", "-0.5"), ("nan", "nan"), ("inf", "inf"), ("1e400", "inf"), ("-1e400", "-inf")):
            expected = re.escape(f"--{name} must be in {within}, got {got}")
            yield Case(f"{name} {value}", (f"--{name}={value}",), expected)
        for value in ("much", "5%", "0,5"):
            yield Case(f"{name} {value}", (f"--{name}={value}",), f"--{name} must be a number, got '{value}'$")


CASES = (
    *numbers(),
    Case("learning_rate 0", ("--learning_rate=0",), r"in \[1e-30, 1000\], got 0"),
    Case("learning_rate that float32 has not", ("--learning_rate=1e-50",), r"in \[1e-30, 1000\], got 1e-50"),
    Case("tolerance 0", ("--tolerance=0",), r"--tolerance must be in \(0, 1\], got 0"),
    Case("learning_rate_decay above 1", ("--learning_rate_decay=1.1",), r"in \(0, 1\], got 1.1"),
    Case("failout_rate in percent", ("--failout_rate=5",), r"in \[0, 1\], got 5"),
    Case("alpha 0", (CIFAR10, "--alpha=0"), r"--alpha must be in \(0, 10\], got 0"),
    Case("alpha nan", (CIFAR10, "--alpha=nan"), r"--alpha must be in \(0, 10\], got nan"),
    Case("alpha 1e308", (CIFAR10, "--alpha=1e308"), r"--alpha must be in \(0, 10\], got 1e\+308"),
    Case("image_size 0", (CIFAR10, "--image_size=0"), r"--image_size must be an integer in \[1, 4096\], got 0"),
    Case("image_size 10**9", (CIFAR10, "--image_size=1000000000"), "--image_size must be an integer in"),
    Case("ten thousand digits", ("--runs=" + "9" * 10_000,), "--runs must be an integer, got '999.* 9+'$"),
    Case("a newline in a number", ("--runs=1\n2",), r"--runs must be an integer, got '1\\+n2'$"),
    Case("a number without value", ("--runs",), "Missing value for flag --runs"),
    Case("an argument that is no flag", ("failout_rate",), r"unexpected argument 'failout_rate'; flags start with --"),
    Case("an unknown flag", ("--swep=x",), "unknown flag --swep; did you mean --sweep?"),
    Case("an unknown flag like none", ("--x\n=1",), r"unknown flag --x\\n \(--help shows all\)"),
    Case("a switch that is neither", ("--overwrite=maybe",), "--overwrite=maybe must be true or false"),
    Case("a flag twice", ("--runs=1", "--runs=2"), "--runs is given twice; keep one$"),
    Case("a switch and its opposite", ("--overwrite", "--nooverwrite"), "--overwrite is given twice; keep one$"),
    Case("a text twice", ("--failure_probability=n1:0.1", "--failure_probability=n2:0"), "_probability is given twice"),
    Case(
        "a flag in a file, and beside it", ("--flagfile={here}/f", "--runs=2"), "--runs is given twice; keep one$",
        lambda here: (here / "f").write_text("--runs=1\n"),
    ),
    Case(
        "a blank in a flag file", ("--flagfile={here}/f",), "--runs 2: write --runs=2, with = instead of the blank$",
        lambda here: (here / "f").write_text("# mine\n--runs 2\n"),
    ),
    Case("a missing flag file", ("--flagfile={here}/none",), "--flagfile can't be read: No such file or directory"),
    Case("a folder as flag file", ("--flagfile={here}",), "--flagfile can't be read: Is a directory"),
    Case(
        "bytes as flag file", ("--flagfile={here}/f",), "--flagfile must name a text file",
        lambda here: (here / "f").write_bytes(b"--runs=\xff\xfe"),
    ),
    Case("no address", ("--ray=here",), "--ray must be host:port, auto, or stand alone, got 'here'"),
    Case("no port", ("--ray=here:",), "must be host:port, .* got 'here:'"),
    Case("no cluster", ("--ray=127.0.0.1:1",), r"--ray=127.0.0.1:1: nothing answers there \(.*\); start a cluster"),
    Case("an unknown sweep", ("--sweep=failoutrate",), "unknown sweep 'failoutrate'; did you mean failout_rate?"),
    Case("an empty sweep", ("--sweep=",), "--sweep is empty; give it a value, or leave it out"),
    Case("a sweep with a newline", ("--sweep=failout\nrate",), r"--sweep must be plain text.*got 'failout\\+nrate'$"),
    Case("an unknown scenario", ("--scenario=helth",), r"unknown scenario 'helth'; did you mean health\? \(known: "),
    Case("a module as scenario", ("--scenario=_mobilenet",), "unknown scenario '_mobilenet'"),
    Case("an unknown preset", ("--preset=fast",), r"unknown preset 'fast' \(known: quick, paper\)"),
    Case("an unknown split", ("--split=rows",), r"unknown split 'rows' \(known: random, block, subject, "),
    Case("an unknown data set", ("--dataset=mheath",), "--dataset=mheath is unknown to --scenario=health; expected"),
    Case("a data set of the other", (CIFAR10, "--dataset=mhealth"), "expected auto, digits, cifar10"),
    Case("a flag of the other", ("--alpha=0.5",), "--alpha means nothing to --scenario=health"),
    Case("augmentation of readings", ("--augment",), "--augment means nothing to --scenario=health"),
    Case("units of MobileNet", (CIFAR10, "--hidden_units=5"), "its network has --alpha, --image_size"),
    Case("subjects of images", (CIFAR10, "--split=subject"), "--split=subject: the images .* come as they were"),
    Case("splits of images", (CIFAR10, "--splits=3"), "--splits=3: the images of .* come as they were split"),
    Case("a number of people", ("--split=leave_one_subject_out", "--splits=3"), "has a split for each subject; leave"),
    Case("a test subject of rows", ("--test_subject=3",), "--test_subject=3 belongs to --split=leave_one_subject_out"),
    Case("an unknown metric", ("--metric=f1",), r"unknown metric 'f1'; did you mean macro_f1\? \(known: accuracy, bal"),
    Case(
        "a file where a metric goes", ("--results_dir={here}", "--metric=macro_f1"), "_macro_f1 is a file; remove it",
        lambda here: ((here / "health").mkdir(), (here / "health" / "failure_combinations_macro_f1").touch()),
    ),
    Case("an unknown selection", ("--select_by=best",), r"unknown select_by 'best' \(known: no_failure, ave"),
    Case("an unknown precision", ("--matmul_precision=bf16",), r"unknown matmul_precision 'bf16'.* \(known: bfl"),
    Case("no such file", ("--dataset={here}/none.npz",), "--dataset=./none.npz: no such file"),
    Case("a folder as .npz", ("--dataset={here}/d.npz",), "no such file", lambda here: (here / "d.npz").mkdir()),
    Case("nobody's file", ("--dataset=~nosuchuser/x.npz",), "no such home folder; write the path in full"),
    Case("a data set with NUL", ("--dataset=a\0.npz",), r"--dataset must be plain text"),
    Case("no such data_dir", ("--data_dir={here}/none",), "--data_dir=./none: no such folder; make it, or leave"),
    Case("nobody's data_dir", ("--data_dir=~nosuchuser",), "--data_dir=~nosuchuser: there is no such home folder"),
    Case("an empty data_dir", ("--data_dir=",), "--data_dir is empty"),
    Case("data_dir below a file", ("--data_dir=/dev/null/x",), "no such folder"),
    Case("an overlong data_dir", ("--data_dir=" + "x" * 5000,), "File name too long: x.*; choose a shorter path"),
    Case("results in a bucket", ("--results_dir=gs://b/x",), "--results_dir=gs://b/x: expected a path on this machine"),
    Case("data in a bucket", ("--data_dir=s3://b/x",), "--data_dir=s3://b/x: .* got an address; copy or mount it$"),
    Case("a data set's address", ("--dataset=https://x.org/y.npz",), "--dataset=https://x.org/y.npz: expected a path"),
    Case("results in a device", ("--results_dir=/dev/null",), r"can't write in /dev/null \(Not a directory\)"),
    Case(
        "results in a file", ("--results_dir={here}/f",), r"can't write in ./f \(Not a directory\); choose another",
        lambda here: (here / "f").touch(),
    ),
    Case("results where nobody may write", ("--results_dir=/proc",), "can't write in /proc .*choose another --results"),
    Case("nobody's results", ("--results_dir=~nosuchuser/r",), "--results_dir=~nosuchuser/r: there is no such home"),
    Case("results with NUL", ("--results_dir=a\0b",), r"--results_dir must be plain text.*got 'a\\+x00b'$"),
    Case("results with a newline", ("--results_dir=a\nb",), r"--results_dir must be plain text.*got 'a\\+nb'$"),
    Case("results that are no text", ("--results_dir=a\udcff",), r"--results_dir must be plain text.*'a\\+udcff'$"),
    Case("empty results_dir", ("--results_dir=",), "--results_dir is empty"),
    Case("overlong results_dir", ("--results_dir=" + "r" * 5000,), "File name too long: r.*; choose a shorter path"),
    Case(
        "results behind a link", ("--results_dir={here}/r",), r"can't write in ./r \(No such file or directory\)",
        lambda here: (here / "r").symlink_to(here / "nowhere"),
    ),
    Case(
        "results that are there", ("--results_dir={here}",), "holds results whose runs are gone; add --overwrite",
        lambda here: (here / "health" / "failure_combinations").mkdir(parents=True),
    ),
    Case(
        "a file to overwrite", ("--results_dir={here}", "--overwrite"), "health/failure_combinations is a file; remove",
        lambda here: ((here / "health").mkdir(), (here / "health" / "failure_combinations").touch()),
    ),
    Case("no probability", ("--failure_probability=n1",), "must be name:probability with .* as n1:0.1.* got 'n1'$"),
    Case("a probability of nothing", ("--failure_probability=:0.1",), "must be name:probability with .* got ':0.1'$"),
    Case("a probability in words", ("--failure_probability=n1:some",), "must be name:probability .* got 'n1:some'$"),
    Case("a comma at the end", ("--failure_probability=n1:0.1,",), "must be name:probability with .* got ''$"),
    Case("a probability in percent", ("--failure_probability=n1:10",), r"of 'n1' must be in \[0, 1\], got 10$"),
    Case("a negative probability", ("--failure_probability=n1:-0.1",), r"of 'n1' must be in \[0, 1\], got -0.1$"),
    Case("a probability nan", ("--failure_probability=n2:nan",), r"of 'n2' must be in \[0, 1\], got nan$"),
    Case("a node twice", ("--failure_probability=n1:0.1,n1:0.2",), "--failure_probability names 'n1' twice; keep one"),
    Case("empty failures", ("--failure_probability=",), "--failure_probability is empty; give it a value, or leave"),
    Case("failures with a newline", ("--failure_probability=n\n1:0",), r"must be plain text.*got 'n\\+n1:0'$"),
    Case("overlong failures", ("--failure_probability=" + "n" * 5000,), "must be name:probability with .*n+ ... n+"),
    Case(
        "a file where own failures go", ("--results_dir={here}",), "failure_combinations_your_own is a file; remove it",
        lambda here: ((here / "health").mkdir(), (here / "health" / "failure_combinations_your_own").touch()),
    ),
)  # fmt: skip


class TestFlags(Refusals):
    @table(*CASES)
    def test_a_wrong_flag_is_one_line(self, case):
        self.check(case)

    def test_a_missing_sweep_is_one_line(self):
        self.check(
            Case(
                "no sweep",
                (),
                "--sweep is missing; give average_accuracy, all, or another one that --sweep=list shows$",
            ),
            sweep=(),
        )


def stored(folder):
    """Results of a sweep, with accuracies made up on the spot."""
    name = "average_accuracy"
    publish(load_sweep(name), folder / name, with_history(fake(name)), record(name), Console(quiet=True))


STORED = "--report={here}/average_accuracy"


class TestOwnFailures(Refusals):
    @table(
        Case(
            "an unknown node",
            (STORED, "--failure_probability=n9:0.1"),
            r"unknown node 'n9' \(known: n1, n2, n3\)$",
            stored,
        ),
        Case("the source", (STORED, "--failure_probability=i:0.1"), "'i' is the source, which never fails", stored),
        Case("the cloud", (STORED, "--failure_probability=n1:0.1,n4:0"), "'n4' is the cloud, which never", stored),
        Case("no colon", (STORED, "--failure_probability=n1=0.1"), "must be name:probability .* got 'n1=0.1'$", stored),
        Case("no flag's value", (STORED, "--failure_probability="), "--failure_probability is empty", stored),
        Case("a name of blanks", (STORED, "--failure_probability= :0.1"), "must be name:probability", stored),
        Case("above 1", (STORED, "--failure_probability=n1:1.01"), r"must be in \[0, 1\], got 1.01$", stored),
        Case("no folder", ("--report={here}/none", "--failure_probability=n1:0.1"), "none: no such folder; give a"),
        Case("no results", ("--report={here}", "--failure_probability=n1:0.1"), "holds no results; give a sweep's"),
    )
    def test_a_report_under_impossible_failures_is_one_line(self, case):
        self.check(case, sweep=())

    @table(
        Case("a node of another scenario", ("--failure_probability=m1:0.1",), "unknown node 'm1'.*known: n1, n2, n3"),
        Case("the cloud in a sweep", ("--failure_probability=n4:0.1",), "'n4' is the cloud, which never fails; name"),
    )
    def test_a_sweep_under_impossible_failures_trains_nothing(self, case):
        self.check(case, sweep=(*FULL, *small_data(self.here)))


def small_data(folder):
    """Flags of data that load in no time."""
    np.savez(folder / "mine.npz", x=np.random.default_rng(0).normal(size=(120, 3)), y=np.arange(120) % 3)
    return f"--dataset={folder / 'mine.npz'}", "--batch_size=10", "--runs=1"


ALL_IN_ONE = """
import contextlib, io, json, sys
from resilinet_jax import sweeps
from resilinet_jax.command import main
main.restart_with_huge_pages = lambda: None
said = []
for flags in json.load(sys.stdin):
    try:
        main.main(["launch.py", *flags], sweeps)
    except SystemExit as stop:
        said.append(stop.code)
heavy = {"jax", "numpy", "pandas", "rich", "tensorflow_datasets"} & set(sys.modules)
json.dump([said, sorted(heavy)], sys.stdout)
"""


def test_no_wrong_flag_costs_more_than_a_blink(tmp_path):
    asked = [completed(case.flags, FULL) for case in CASES if case.make is nothing]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE], input=json.dumps(asked), capture_output=True, text=True, check=True,
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said, heavy = json.loads(done.stdout)
    assert done.stderr == ""
    assert len(said) == len(asked) > 100
    assert all(line.startswith("error: ") for line in said)
    assert heavy == [], "nothing heavy is imported before the flags are checked"
    assert time.monotonic() - start < len(asked) / 5


def test_data_and_a_busy_folder_are_refused_before_jax_is_imported(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros((9, 2)), y=np.arange(9) / 2)
    refused = {
        "--dataset=synthetic": "--batch_size must be at most the 10 training examples, got 64",
        "--dataset=mine.npz": "mine.npz: y must hold whole numbers",
        "--dataset=../mine.npz": "--dataset=../mine.npz: no such file",
        "--results_dir=busy": "another command is at work in busy/health",
    }
    more = ["--train_examples=10", "--batch_size=64"]
    with files.only_command_in(tmp_path / "busy" / "health"):
        done = subprocess.run(
            [sys.executable, "-c", ALL_IN_ONE], input=json.dumps([[*FULL, *more, flag] for flag in refused]),
            capture_output=True, text=True, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    said, heavy = json.loads(done.stdout)
    assert [line.removeprefix("error: ")[: len(start)] for line, start in zip(said, refused.values())] == [
        *refused.values()
    ]
    assert heavy == ["numpy"]


@table(
    Case("an unknown sweep", ("--sweep=failoutrate",), "unknown sweep 'failoutrate'; did you mean failout_rate"),
    Case("a newline in a number", ("--runs=a\nb",), r"--runs must be an integer, got 'a\\+nb'"),
)
def test_a_process_of_its_own_ends_in_one_line_as_well(tmp_path, case):
    check_process(tmp_path, case)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_is_full_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, ROOT / "launch.py", "--sweep=list"], stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b"error: No space left on device; make room: the same command goes on where it stopped\n"


class TestWriting(Refusals):
    @pytest.fixture
    def trained(self, monkeypatch):
        """Accuracies made up on the spot."""
        leave_out_training(monkeypatch)

    def test_failures_that_were_not_evaluated_are_one_line(self, trained, monkeypatch):
        monkeypatch.setattr("resilinet_jax.failures.combinations.MOST_NODES", 2)
        flags = (*small_data(self.cwd), "--tolerance=0.06", f"--results_dir={self.here}")
        command(*FULL, *flags)
        more = "--failure_probability=n1:0.5,n2:0.5,n3:0.5"
        expected = r"not evaluated weigh 0\.\d+ under it, expected at most --tolerance=0.06; give smaller probabilities"
        self.check(Case("too much left out", (*flags, more), expected))
        self.check(Case("the same in a report", (f"--report={self.here}/health", more), expected), sweep=())

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_disk_that_is_full_leaves_no_half_of_the_results(self, trained, monkeypatch, overwrite):
        flags = (*FULL, *small_data(self.cwd), f"--results_dir={self.here}")
        if overwrite:
            command(*flags)
            flags += ("--overwrite", "--seed=1")
        folder = self.here / "health" / "failure_combinations"
        before = contents(folder)
        write = files.write_file

        def full(path, content):
            if path.name == "report.md":
                raise OSError(28, "No space left on device", str(path))
            write(path, content)

        monkeypatch.setattr(files, "write_file", full)
        start = time.monotonic()
        status, line = run(*flags)
        assert status == 1
        name = f"results on a full disk{' over old ones' * overwrite}"
        expected = "No space left on device: .*failure_combinations/report.md; make room"
        check_line(line, expected, time.monotonic() - start, name, self.here)
        # Old results stay as they are; without its record, nothing takes a folder for results.
        assert (folder / RECORD).exists() is overwrite
        assert not overwrite or contents(folder) == before


@contextlib.contextmanager
def somebody():
    """Nothing is forbidden to root, who is nobody meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


DENIED = "Permission denied: ./.*x.npz; get the right to it, or choose another path"


class TestRights(Refusals):
    user = staticmethod(somebody)

    @pytest.fixture(autouse=True)
    def _reachable(self, _surroundings):
        """Pytest keeps others out of its folders."""
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder).chmod(0o755)
            self.here = pathlib.Path(folder, "here")
            self.here.mkdir()
            os.chdir(folder)
            yield

    @table(
        Case(
            "a data set that nobody may read", ("--dataset={here}/x.npz", "--results_dir=/tmp"), DENIED,
            lambda here: ((here / "x.npz").touch(), (here / "x.npz").chmod(0)),
        ),
        Case(
            "a folder that nobody may read", ("--dataset={here}/f/x.npz",), DENIED,
            lambda here: ((here / "f").mkdir(), (here / "f").chmod(0o600)),
        ),
        Case(
            "a folder that nobody may write to", ("--results_dir={here}/r",), r"can't write in ./r \(Permission denied",
            lambda here: ((here / "r").mkdir(), (here / "r").chmod(0o555)),
        ),
    )  # fmt: skip
    def test_what_is_not_allowed_is_one_line(self, case):
        self.check(case)


class TestAnything:
    @BOUNDED
    @given(st.sampled_from([*INTEGERS, *REALS]), st.text(max_size=40) | st.integers().map(str) | st.floats().map(str))
    def test_a_number_is_taken_or_refused_in_one_line(self, name, text):
        def parse():
            value = FLAGS[name].parser.parse(text)
            check_flag(name, value)
            return value

        value = taken_or_refused(parse)
        assert value is None or 0 <= value < 2**31  # which NaN is not

    @BOUNDED
    @given(st.fixed_dictionaries({}, optional={name: st.from_type(kind) for name, kind in FIELDS.items()}))
    def test_settings_are_taken_or_refused_in_one_line(self, values):
        taken_or_refused(lambda: choose(Settings(**{"sweep": "all", **values})).check_training(sweep_names()))

    @BOUNDED
    @given(st.text(max_size=2000))
    def test_a_line_is_one_line(self, text):
        line = one_line(text)
        assert line.isprintable()
        assert one_line(line) == line
        assert len(line) <= 310


def test_a_refused_run_changes_nothing_is_itself_tested(tmp_path):
    with pytest.raises(AssertionError), nothing_changes(tmp_path):
        (tmp_path / "left").touch()
