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
    rows = b"".join((b"0\t" * 23 + b"%d\n" % label) * count for label, count in enumerate(COUNTS, 1))
    whole = dict.fromkeys(range(1, 11), b"") | {4: rows}
    recordings.check_rows(whole)
    with pytest.raises(UserError, match="10,341 rows have label 12, expected 10,342"):
        recordings.check_rows(whole | {4: rows.replace(b"\t12\n", b"\t0\n", 1)})
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
