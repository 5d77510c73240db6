"""What a look at the data finds, on data in which it was hidden."""

import numpy as np
import pytest

from resilinet_jax.command.settings import Settings
from resilinet_jax.datasets.inspection import copies, told_by_each
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.splitting import draw_splits, split_dataset

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2_000, 4)), RNG.integers(0, 3, 2_000)
NAMES = ("a", "b", "c", "d")


def told(x, y=Y, names=NAMES[: X.shape[1]]):
    return split_dataset(Dataset("mine", x, y, feature_names=names), "random", 0).notes


def test_of_clean_data_nothing_is_told():
    assert told(X) == ()


def test_a_feature_that_gives_the_class_away_is_named():
    assert told(np.where(np.arange(4) == 2, 7 - 2 * Y[:, None], X)) == (
        "Feature c alone tells the class: is it the label in disguise?",
    )


def test_a_feature_is_measured_against_guessing_the_commonest_class():
    """Nine in ten are of one class, so that a feature of no use is right in nine of ten: it tells nothing."""
    y = (RNG.random(2_000) < 0.1).astype(int)
    x = np.stack([RNG.normal(size=2_000), y + 0.0, np.where(RNG.random(2_000) < 0.5, y, 0)], 1)
    useless, whole, half = told_by_each(x, y)
    assert useless < 0.05
    assert whole == 1
    assert half == pytest.approx(0.5, abs=0.15)


def test_features_that_hold_the_same_are_named():
    x = np.concatenate([X, -3 * X[:, 1:2] + 5, np.ones((2_000, 1))], 1)
    assert copies(x) == [(1, 4)]
    assert "Features b and e hold the same, but for a factor." in told(x, names=(*NAMES, "e", "f"))


def test_test_rows_that_training_has_seen_are_counted():
    twice = np.concatenate([X[:1_000], X[:1_000]])
    (note,) = told(twice, np.concatenate([Y[:1_000], Y[:1_000]]))
    order = np.random.default_rng(0).permutation(2_000) % 1_000
    share = np.isin(order[1_800:], order[:1_600]).mean()
    assert note.startswith(f"{100 * share:.1f} % of the test examples are in training as well, value for value, which")


def test_recordings_that_two_people_share_are_told_of_each_split():
    x, who = X.copy(), np.arange(2_000) // 400
    x[who == 3] = x[who == 1]
    notes = draw_splits(Dataset("mine", x, Y, who), Settings("all", split="leave_one_subject_out")).notes
    turn = np.random.default_rng(0).permutation(5).tolist()  # who comes next validates, so does not train
    beside = (turn.index(1) - turn.index(3)) % 5 in (1, 4)
    assert [note.split(" which")[0] for note in notes] == [
        "Up to 100.0 % of the test examples are in training as well, value for value in "
        f"{1 if beside else 2} of 5 splits,"
    ]


def test_constant_features_go_by_their_names():
    assert told(X * [1, 0, 1, 0])[0].startswith("Features b, d of mine are constant in training")
