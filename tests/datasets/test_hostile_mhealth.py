import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given

from resilinet_jax.datasets import mhealth
from resilinet_jax.datasets.mhealth import load_mhealth, recordings
from resilinet_jax.datasets.readings import load_dataset
from resilinet_jax.datasets.splits import Dataset
from tests.helpers.hostile import (
    BOUNDED,
    FULL,
    PREPARED,
    Case,
    Refusals,
    claiming_size,
    command,
    encrypted,
    files_of_at_most,
    flipped,
    mutations,
    table,
    taken_or_refused,
    without_pickle,
)
from tests.helpers.mhealth import write_zip

# Ten small logs: the published number of rows would take seconds, so the tests expect another.
ROWS = dict.fromkeys(range(1, 13), 20)
X, Y = np.ones((3, 2)), np.arange(3)


def logs():
    labels = [0, *np.repeat(np.arange(1, 13), 2), 0]
    return {
        subject: b"".join(b"\t".join([b"%d.5" % subject, *[b"0.25"] * 22, b"%d" % label]) + b"\n" for label in labels)
        for subject in range(1, 11)
    }


def zipped(change=lambda logs: logs, name="mhealth.zip", damage=lambda content: content, also=()):
    def make(here):
        write_zip(here / name, change(logs()))
        with zipfile.ZipFile(here / name, "a") as archive:
            for member, content in also:
                archive.writestr(member, content)
        (here / name).write_bytes(damage((here / name).read_bytes()))

    return make


def without(*subjects):
    return lambda logs: {subject: log for subject, log in logs.items() if subject not in subjects}


def with_log(subject, change):
    return lambda logs: logs | {subject: change(logs[subject])}


def loose(change=lambda logs: logs, name="{}.log"):
    def make(here):
        for subject, log in change(logs()).items():
            path = here / name.format(f"mHealth_subject{subject}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(log)

    return make


def holding(*names, content=""):
    """Puts files of that name into a folder."""

    def make(here):
        for name in names:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(content)

    return make


MHEALTH = ("--dataset=mhealth", "--data_dir={here}")
AUTO = ("--data_dir={here}",)
DAMAGED = "^error: ./.*zip: damaged zip .*; fetch it again from https"
MHEALTH_CASES = (
    Case(
        "mhealth: nothing, and no network",
        MHEALTH,
        r"can't download mHealth \(.*\); fetch it by hand and give its folder",
    ),
    Case("mhealth: an empty zip", MHEALTH, DAMAGED, zipped(damage=lambda content: b"")),
    Case("mhealth: text as zip", MHEALTH, DAMAGED, zipped(damage=lambda content: b"<html>404</html>")),
    Case("mhealth: half a zip", MHEALTH, DAMAGED, zipped(damage=lambda content: content[: len(content) // 2])),
    Case("mhealth: a flipped bit", MHEALTH, DAMAGED, zipped(damage=lambda content: flipped(content, 200))),
    Case("mhealth: an encrypted zip", MHEALTH, DAMAGED, zipped(damage=encrypted)),
    Case(
        "mhealth: a log of a terabyte",
        MHEALTH,
        "subject10.log unpacks to 4,294,967,280 bytes, expected at most 268,",
        zipped(damage=lambda content: claiming_size(content, 2**32 - 16)),
    ),
    Case(
        "mhealth: text as data_dir",
        ("--dataset=mhealth", "--data_dir={here}/f"),
        "./f: damaged zip",
        lambda here: (here / "f").write_text("f"),
    ),
    Case(
        "mhealth: a zip without logs",
        ("--dataset=mhealth", "--data_dir={here}/o.zip"),
        "./o.zip: no mHealth_subject1.log ... 10.log in it",
        zipped(lambda logs: {}, "o.zip"),
    ),
    Case("mhealth: auto, and nothing", AUTO, "no mHealth in it, .*; found nothing; leave the flag out for synthetic"),
    Case(
        "mhealth: auto, and an .npz",
        AUTO,
        "no mHealth in it, .*; found other, own.npz; give your own as --dataset=./own.npz$",
        lambda here: ((here / "own.npz").touch(), (here / "other").mkdir()),
    ),
    Case(
        "mhealth: auto, and half a zip",
        AUTO,
        "./mhealth.zip: damaged zip",
        zipped(damage=lambda content: content[:900]),
    ),
    Case("mhealth: auto, and three logs", AUTO, "and 4 more missing", loose(without(1, 2, 3, 4, 5, 6, 7))),
    Case(
        "mhealth: auto, and text as data_dir",
        ("--data_dir={here}/f",),
        "./f: damaged zip",
        lambda here: (here / "f").write_text("f"),
    ),
    *(
        Case(
            f"mhealth: {shape}{', auto' if flags is AUTO else ''}",
            flags,
            rf"found .*{found}; {remedy}.*, or give an empty",
            make,
        )
        for flags in (MHEALTH, AUTO)
        for shape, found, remedy, make in (
            ("text files", "and 7 more", "call the logs so", loose(name="logs/{}.txt")),
            ("copies", r"\(1\).log and 7 more", "call the logs so", loose(name="{} (1).log")),
            ("Kaggle's table", "mhealth_raw_data.csv", "put the published", holding("mhealth_raw_data.csv")),
            ("Kaggle's archive", "archive.zip", "put the published", zipped(lambda logs: {}, "archive.zip")),
            (
                "what is of others",
                "mhealth/2.0.0/dataset_info.json",
                "put the",
                holding("mhealth/2.0.0/dataset_info.json"),
            ),
        )
    ),
    Case(
        "mhealth: others' data in TFDS' folder",
        MHEALTH,
        "can't download mHealth",
        holding(
            "cifar10/3.0.2/dataset_info.json", "cifar-10-binary.tar.gz", "downloads/x.zip", "._a.zip", "a/b/c/d/e.csv"
        ),
    ),
    Case(
        "mhealth: prepared by others",
        MHEALTH,
        "./mhealth/1.0.0: prepared by my.builder, not by this program; give another folder as --data_dir$",
        holding("mhealth/1.0.0/dataset_info.json", content='{"moduleName": "my.builder"}'),
    ),
    Case(
        "mhealth: an offset",
        MHEALTH,
        "mHealth_subject3.log: column 2 has readings that float32 does not tell apart, .*; take the logs as",
        loose(
            with_log(
                3,
                lambda log: log.replace(b"3.5\t0.25", b"3.5\t1700000000", 1).replace(
                    b"3.5\t0.25", b"3.5\t1700000001", 1
                ),
            )
        ),
    ),
    Case(
        "mhealth: two logs missing",
        MHEALTH,
        r"mHealth: mHealth_subject3.log, mHealth_subject7.log missing; fetch the whole",
        zipped(without(3, 7)),
    ),
    Case(
        "mhealth: one loose log",
        MHEALTH,
        "mHealth: mHealth_subject2.log, mHealth_subject3.log, mHealth_subject4.log and 6 more missing",
        loose(lambda logs: {1: logs[1]}),
    ),
    Case(
        "mhealth: a folder as log",
        MHEALTH,
        "Is a directory: ./mHealth_subject1.log",
        lambda here: (here / "mHealth_subject1.log").mkdir(),
    ),
    Case(
        "mhealth: an empty log",
        MHEALTH,
        "18 rows have label 1, expected 20; this is not the published data",
        zipped(with_log(5, lambda log: b"")),
    ),
    Case(
        "mhealth: a row too few",
        MHEALTH,
        "19 rows have label 2, expected 20",
        loose(with_log(2, lambda log: log.replace(b"\t2\n", b"\t0\n", 1))),
    ),
    Case(
        "mhealth: a row cut off",
        MHEALTH,
        "19 rows have label 12, expected 20",
        loose(with_log(2, lambda log: log[: log.rindex(b"12\n")] + log[log.rindex(b"0.25\t0\n") :])),
    ),
    Case(
        "mhealth: label 13",
        MHEALTH,
        "mHealth_subject2.log: row \\d+ has label '13', expected 0..12",
        loose(with_log(2, lambda log: log.replace(b"\t12\n", b"\t13\n", 1))),
    ),
    Case(
        "mhealth: label -1",
        MHEALTH,
        "log: row \\d+ has label '-1', expected 0..12",
        loose(with_log(1, lambda log: log.replace(b"\t1\n", b"\t-1\n", 1))),
    ),
    Case(
        "mhealth: a label of megabytes",
        MHEALTH,
        "has label '77777777777777777777', expected",
        loose(with_log(1, lambda log: log + b"7" * 10**6)),
    ),
    Case(
        "mhealth: a label that is no text",
        MHEALTH,
        "log: row 27 has label '.+', expected 0..12",
        loose(with_log(1, lambda log: log + b"\xff\xfe\x00")),
    ),
    Case(
        "mhealth: an empty row",
        MHEALTH,
        "log: row \\d+ has label '', expected 0..12",
        loose(with_log(1, lambda log: log + b"\n\n")),
    ),
    Case(
        "mhealth: a column too few",
        MHEALTH,
        "mHealth_subject4.log: row 1 has 23 columns, expected 24",
        zipped(with_log(4, lambda log: log.replace(b"0.25\t", b"", 1))),
    ),
    Case(
        "mhealth: a column too many",
        MHEALTH,
        "mHealth_subject4.log: row 1 has 25 columns, expected 24",
        zipped(with_log(4, lambda log: b"1\t" + log)),
    ),
    Case(
        "mhealth: commas",
        MHEALTH,
        "log: row 1 has label .*, expected 0..12",
        zipped(with_log(4, lambda log: log.replace(b"\t", b","))),
    ),
    Case(
        "mhealth: a word",
        MHEALTH,
        "mHealth_subject9.log: .*what.*; expected 24 numbers a row",
        zipped(with_log(9, lambda log: log.replace(b"0.25", b"what", 1))),
    ),
    Case(
        "mhealth: a quote",
        MHEALTH,
        "mHealth_subject9.log: .*; expected 24 numbers a row",
        zipped(with_log(9, lambda log: log.replace(b"0.25", b'"0.25', 1))),
    ),
    Case(
        "mhealth: bytes that are no text",
        MHEALTH,
        "mHealth_subject9.log: .*; expected 24 numbers a row",
        zipped(with_log(9, lambda log: log.replace(b"0.25", b"\xff\xfe", 1))),
    ),
    Case(
        "mhealth: NaN",
        MHEALTH,
        "mHealth_subject9.log: row 1 holds a reading that is not a finite number",
        zipped(with_log(9, lambda log: log.replace(b"0.25", b"nan", 1))),
    ),
    Case(
        "mhealth: beyond float32",
        MHEALTH,
        "mHealth_subject9.log: row 1 holds a reading",
        zipped(with_log(9, lambda log: log.replace(b"0.25", b"1e40", 1))),
    ),
    Case(
        "mhealth: NUL",
        MHEALTH,
        "mHealth_subject9.log: ",
        zipped(with_log(9, lambda log: log.replace(b"0.25", b"\x00", 1))),
    ),
)


@pytest.fixture
def small_mhealth(monkeypatch):
    monkeypatch.setattr(recordings, "ROWS_PER_LABEL", ROWS)
    monkeypatch.setattr(mhealth, "ROWS_PER_LABEL", ROWS)


@pytest.fixture(scope="module")
def prepared_mhealth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mhealth")
    loose()(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordings, "ROWS_PER_LABEL", ROWS)
        patch.setattr(mhealth, "ROWS_PER_LABEL", ROWS)
        load_mhealth(folder)
    return folder / "mhealth"


class TestMhealth(Refusals):
    @pytest.fixture(autouse=True)
    def _small(self, small_mhealth, monkeypatch):
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # an unroutable proxy stands for a missing network
        monkeypatch.setenv("no_proxy", "")

    @table(*MHEALTH_CASES)
    def test_a_bad_zip_or_log_is_one_line(self, case):
        self.check(case)

    @table(*PREPARED)
    def test_damage_after_preparation_is_one_line(self, case, prepared_mhealth):
        shutil.copytree(prepared_mhealth, self.here / "mhealth")
        case.make(self.here / "mhealth" / "1.0.0")
        message = f"./mhealth.*{case.message}.*; (remove|prepare)"
        self.check(Case(f"mhealth prepared: {case.name}", MHEALTH, message))

    def test_the_prepared_logs_are_taken_by_the_same_command(self, prepared_mhealth):
        shutil.copytree(prepared_mhealth, self.here / "mhealth")
        with pytest.raises(AssertionError, match="it would have trained"):
            command(*FULL, "--dataset=mhealth", f"--data_dir={self.here}", "--batch_size=32")


def lower(here):
    loose(name="mhealth+dataset/mhealthdataset/{}.LOG")(here)
    for path in here.rglob("*.LOG"):
        path.rename(path.with_name(path.name.lower()))


def backslashes(here):
    with zipfile.ZipFile(here / "a.ZIP", "w") as archive:
        for subject, log in logs().items():
            archive.writestr(f"MHEALTHDATASET\\mHealth_subject{subject}.log", log)


def beside(name, content):
    """A zip with all logs, and another file that sorts before it."""

    def make(here):
        zipped(name="mhealth.zip")(here)
        (here / name).write_bytes(content)

    return make


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(loose(name="MHEALTHDATASET/{}.LOG"), id="upper case"),
        pytest.param(lower, id="lower case, two folders deeper"),
        pytest.param(loose(lambda logs: logs | {3: logs[3].replace(b"\n", b".0\r\n")}), id="labels as 3.0"),
        pytest.param(backslashes, id="a zip from Windows"),
        pytest.param(beside("._mhealth.zip", b"\0\5\x16\7\0\2\0\0Mac OS X"), id="what macOS puts beside a zip"),
        pytest.param(beside("mhealth (1).zip", b"PK half"), id="half a download beside the zip"),
    ],
)
def test_the_ten_logs_are_taken_as_they_lie(tmp_path, small_mhealth, make):
    make(tmp_path)
    found = recordings.load_recordings(tmp_path)
    np.testing.assert_array_equal(found[3].readings[:, 0], np.float32(3.5))
    assert [len(recording.label) for recording in found.values()] == [24] * 10


def test_whoever_names_a_folder_is_given_what_is_in_it(tmp_path, small_mhealth, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    loose(name="raw/{}.log")(tmp_path)
    zipped()(tmp_path)
    for _ in range(2):  # as published, then as prepared
        dataset, told = load_dataset("auto", tmp_path)
        assert dataset.name == "mhealth"
        assert str(tmp_path) in told
    dataset, told = load_dataset("auto", tmp_path / "mhealth.zip")
    assert (dataset.name, len(dataset.y)) == ("mhealth", sum(ROWS.values()))


def test_who_has_no_home_trains_on_synthetic_readings(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("resilinet_jax.datasets.readings.LOADERS", {"synthetic": lambda *_: Dataset("synthetic", X, Y)})
    assert load_dataset("auto", None)[1].endswith("(no home folder that could hold mHealth; see --dataset)")


class TestFullDisk(Refusals):
    user = staticmethod(lambda: files_of_at_most(5000))

    def test_preparing_leaves_nothing(self, small_mhealth):
        message = r"can't write ./mhealth/1.0.0 \(.*File too large.*choose another --data_dir"
        self.check(Case("mhealth: a full disk", MHEALTH, message, loose()))


def test_no_pickle_is_loaded(tmp_path, monkeypatch, small_mhealth):
    loose()(tmp_path)
    without_pickle(monkeypatch)
    for _ in range(2):  # preparing it, then as prepared
        assert len(load_mhealth(tmp_path).y) == sum(ROWS.values())


def table_of(log):
    """A log's rows as a plain reader has them."""
    return np.array([[float(field) for field in line.split()] for line in log.decode().splitlines()])


LOG = logs()[1]


@BOUNDED
@given(mutations(LOG))
def test_a_log_is_read_as_it_stands_or_refused_in_one_line(content):
    def read():
        recordings.check_rows(logs() | {1: content})
        return recordings._parse("mHealth_subject1.log", content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordings, "ROWS_PER_LABEL", ROWS)
        recording = taken_or_refused(read)
    if recording is not None:
        expected = table_of(content)
        expected = expected[expected[:, -1] != 0]
        np.testing.assert_allclose(recording.readings, expected[:, :-1], rtol=1e-6)
        np.testing.assert_array_equal(recording.label, expected[:, -1] - 1)
