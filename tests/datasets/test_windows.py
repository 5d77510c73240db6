"""Windows: what they hold, and that none reaches into another recording or part of the split."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from resilinet_jax.datasets.parts import draw_parts
from resilinet_jax.datasets.split_settings import KINDS
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.windows import cut_windows
from resilinet_jax.errors import UserError
from tests.helpers.hostile import BOUNDED


def numbered(recordings, people=None, seed=0):
    """Rows whose values say who they are: their number, recording and person; recordings lie between each other."""
    rng = np.random.default_rng(seed)
    recording = rng.permutation(np.repeat(np.arange(len(recordings)), recordings))
    person = np.zeros_like(recording) if people is None else np.asarray(people)[recording]
    row = np.arange(len(recording))
    x = np.stack([row, recording, person], 1).astype(np.float32)
    return Dataset("rows", x, row % 2, person, recording=recording)


def test_windows_hold_the_rows_of_one_recording_in_their_order():
    """By a loop over recordings, rows 7 and 6 apart."""
    dataset = numbered([19, 13, 5])
    windows = cut_windows(dataset, 7, 6, "last")
    expected = [
        [row for row in range(37) if dataset.recording[row] == recording][begin : begin + 7]
        for recording, rows in enumerate([19, 13, 5])
        for begin in range(0, rows - 6, 6)
    ]
    assert windows.x[:, :, 0].astype(int).tolist() == expected
    assert windows.y.tolist() == [own[-1] % 2 for own in expected]
    of = [windows.places.begin[windows.recording == recording] for recording in (0, 1)]
    assert windows.places.reach == 7
    assert abs(of[0][:, None] - of[1][None]).min() > 7  # so that windows of two recordings are never near each other
    assert windows.recording.tolist() == [dataset.recording[own[0]] for own in expected]


def test_the_majority_names_a_window_and_of_equals_the_smaller():
    y = np.array([2, 2, 1, 0, 0, 0, 1, 1, 1, 2, 0, 1])
    windows = cut_windows(Dataset("rows", np.zeros((12, 1), np.float32), y), 4, 4, "majority")
    assert windows.y.tolist() == [2, 0, 1]


@pytest.mark.parametrize("by", KINDS)
@settings(BOUNDED, max_examples=20)
@given(
    recordings=st.lists(st.integers(40, 90), min_size=6, max_size=9),
    rows=st.integers(2, 9),
    hop=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_no_row_of_a_test_window_trains_and_none_spans_two_recordings(recordings, rows, hop, by, seed):
    dataset = numbered(recordings, people=np.arange(len(recordings)) // 2, seed=seed)
    windows = cut_windows(dataset, rows, hop, "majority")
    assert (windows.x[:, :, 1:] == windows.x[:, :1, 1:]).all()
    try:
        drawn = draw_parts(windows, by, seed)
    except UserError:  # too few are left, or follow each other
        reject()  # others are tried in its place, and some must be left
    check_apart(dataset, windows, hop > rows, *drawn)


def check_apart(dataset, windows, gaps, parts, lengths):
    at = {row: (r, place) for r in np.unique(dataset.recording) for place, row in
          enumerate(np.flatnonzero(dataset.recording == r))}  # fmt: skip
    for part in parts:
        rows_of = [set(windows.x[own][:, :, 0].ravel().tolist()) for own in part[2:]]
        for more, fewer in ((2, 1), (2, 0), (1, 0)):  # the test counts more than validation, validation than training
            assert not rows_of[more] & rows_of[fewer]
            taken = {at[row] for row in rows_of[more]}
            for recording, place in (at[row] for row in rows_of[fewer]):  # nor do windows follow each other
                assert gaps or not {(recording, place - 1), (recording, place + 1)} & taken
        assert len(part.train) <= lengths.train
        assert len(part.validation) <= lengths.validation
        assert len(part.test) <= lengths.test


def test_a_published_split_is_kept_and_validation_comes_from_training():
    x = np.arange(200, dtype=np.float32)[:, None]
    published = np.arange(200) % 4 == 0
    dataset = Dataset("d", x, np.arange(200) % 2, np.arange(200) // 20, test=published)
    for by in ("random", "subject"):
        (part,), _ = draw_parts(dataset, by, 3)
        assert sorted(part.test) == np.flatnonzero(published).tolist()
        assert sorted([*part.train, *part.validation]) == np.flatnonzero(~published).tolist()
        assert len(part.validation) == 15
    assert len({row // 20 for row in part.validation} & {row // 20 for row in part.train}) == 0
    with pytest.raises(UserError, match=r"--splits=3: d comes with its test rows"):
        draw_parts(dataset, "random", 0, splits=3)


def test_windows_longer_than_any_recording_are_refused():
    with pytest.raises(UserError, match=r"--window=30: the longest recording of rows has 20 rows; give at most that"):
        cut_windows(numbered([20, 10]), 30, 30, "last")
    with pytest.raises(UserError, match=r"holds examples of shape \(2, 3\), expected rows"):
        cut_windows(Dataset("maps", np.zeros((4, 2, 3), np.float32), np.arange(4) % 2), 2, 2, "last")
