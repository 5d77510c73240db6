import io
import urllib.error

import numpy as np
import pytest

from resilinet_jax.datasets import download, mhealth
from resilinet_jax.datasets.mhealth import recordings
from resilinet_jax.datasets.readings import load_dataset
from resilinet_jax.errors import UserError
from tests.helpers.mhealth import write_zip

# Published rows per label, typed from the data set's own description, labels 1 to 12.
COUNTS = [30720, 30720, 30720, 30720, 30720, 28315, 29441, 29337, 30720, 30720, 30720, 10342]


# A hundredth of them, which the tests expect instead: to read all would take seconds.
FEWER = [count // 100 for count in COUNTS]


def make_logs(counts):
    """Ten logs in the published format, with so many rows of each label."""
    labels = {subject: [] for subject in range(1, 11)}
    for label, count in enumerate(counts, 1):
        for subject, part in enumerate(np.array_split(np.arange(count), 10), 1):
            labels[subject] += [0, *[label] * len(part), 0]
    made = {}
    for subject, column in labels.items():
        rows = (
            "\t".join([f"-{subject}.5", f"{row % 7}.25", *["0.5"] * 20, str(row % 10), str(label)])
            for row, label in enumerate(column)
        )
        made[subject] = ("\n".join(rows) + "\n").encode()
    return made


@pytest.fixture
def logs(monkeypatch):
    for module in (mhealth, recordings):
        monkeypatch.setattr(module, "ROWS_PER_LABEL", dict(enumerate(FEWER, 1)))
    return make_logs(FEWER)


def test_the_published_rows_are_expected():
    whole = make_logs(COUNTS)
    recordings.check_rows(whole)
    with pytest.raises(UserError, match="10,341 rows have label 12, expected 10,342"):
        recordings.check_rows(one_row_less(whole, 4, 12))
    assert mhealth.ROWS_PER_LABEL is recordings.ROWS_PER_LABEL


def test_zip_goes_through_the_builder(tmp_path, logs):
    write_zip(tmp_path / "mhealth+dataset.zip", logs)
    dataset, told = load_dataset("mhealth", tmp_path)
    assert told == f"mhealth: {sum(FEWER):,} rows, 23 features, 12 classes"
    assert np.bincount(dataset.y).tolist() == FEWER
    assert dataset.x.shape == (sum(FEWER), 23)
    # Row by row against the text: subject 3's first active row is the log's second.
    of_third = dataset.x[dataset.subject == 3]
    np.testing.assert_allclose(of_third[0], [-3.5, 1.25, *[0.5] * 20, 1])
    expected = [line.split() for line in logs[3].decode().splitlines() if not line.endswith("\t0")]
    np.testing.assert_allclose(of_third, np.array(expected, float)[:, :-1])
    np.testing.assert_array_equal(dataset.y[dataset.subject == 3], np.array(expected, float)[:, -1] - 1)
    # From now on it is prepared, so `auto` takes it, even without the zip.
    (tmp_path / "mhealth+dataset.zip").unlink()
    again, told = load_dataset("auto", tmp_path)
    assert again.fingerprint() == dataset.fingerprint()
    assert told.endswith(f"(prepared in {tmp_path})")


def test_logs_are_found_wherever_they_lie(tmp_path, logs):
    for subject, log in logs.items():
        (tmp_path / f"mHealth_subject{subject}.log").write_bytes(log)
    found = recordings.load_recordings(tmp_path)
    assert sorted(found) == list(range(1, 11))
    assert sum(len(recording.label) for recording in found.values()) == sum(FEWER)
    (tmp_path / "other").mkdir()
    write_zip(tmp_path / "other" / "319.zip", logs)
    np.testing.assert_array_equal(recordings.load_recordings(tmp_path / "other")[7].readings, found[7].readings)
    named = recordings.load_recordings(tmp_path / "nowhere", tmp_path / "other" / "319.zip")
    np.testing.assert_array_equal(named[10].label, found[10].label)


def one_row_less(logs, subject, label):
    return logs | {subject: logs[subject].replace(b"\t%d\n" % label, b"\t0\n", 1)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda logs: one_row_less(logs, 4, 5), "306 rows have label 5, expected 307"),
        (lambda logs: {s: log for s, log in logs.items() if s != 7}, "mHealth_subject7.log missing"),
        (lambda logs: logs | {2: logs[2].replace(b"0.5\t", b"", 1)}, "subject2.log: row 1 has 23 columns, expected 24"),
        (
            lambda logs: logs | {2: logs[2].replace(b"\t5\n", b"\t13\n", 1)},
            r"subject2.log: row \d+ has label '13', expected 0..12",
        ),
        (lambda logs: logs | {9: logs[9].replace(b"0.5\t", b"what\t", 1)}, "mHealth_subject9.log: .*what"),
        (lambda logs: logs | {9: logs[9].replace(b"0.5\t", b"nan\t", 1)}, "subject9.log: row 1 holds a reading"),
        (lambda logs: logs | {1: b""}, "rows have label 1, expected 307"),
    ],
)
def test_damaged_logs_are_refused(tmp_path, logs, damage, message):
    write_zip(tmp_path / "mhealth.zip", damage(logs))
    with pytest.raises(UserError, match=message) as error:
        recordings.load_recordings(tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_zips_are_refused(tmp_path, logs):
    write_zip(tmp_path / "whole.zip", logs)
    content = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "whole.zip").unlink()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    for damaged in (content[:1000], content[: len(content) // 2], b"", bytes(flipped)):
        (tmp_path / "mhealth.zip").write_bytes(damaged)
        with pytest.raises(UserError, match="damaged zip") as error:
            recordings.load_recordings(tmp_path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "mhealth").exists()


def test_named_source_without_logs_is_refused(tmp_path):
    write_zip(tmp_path / "other.zip", {})
    with pytest.raises(UserError, match=r"no mHealth_subject1\.log"):
        recordings.load_recordings(tmp_path, tmp_path / "other.zip")


def test_no_network_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def unreachable(url, timeout):
        assert timeout <= 5
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(download.urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError, match=r"can't download mHealth \(Name or service not known\); fetch it by hand"):
        load_dataset("mhealth", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_download_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"<html>moved</html>"))
    with pytest.raises(UserError, match="SHA-256 differs"):
        recordings.load_recordings(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
