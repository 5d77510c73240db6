import numpy as np
import pytest
from jaxtyping import config

from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.npz import load_npz
from resilinet_jax.datasets.parts import draw_parts
from resilinet_jax.datasets.readings import load_dataset
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.datasets.synthetic import ROWS, SUBJECTS, load_synthetic
from resilinet_jax.errors import UserError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)), np.arange(60) % 3
SUBJECT = np.arange(60) // 6


def numbered(rows=1000, subjects=10):
    """A data set in which every row can be told apart by its first feature."""
    row = np.arange(rows)
    x = np.stack([row, np.ones(rows), 5 + 3 * RNG.normal(size=rows)], 1).astype(np.float32)
    return Dataset("numbered", x, (row % 4).astype(np.int32), row % subjects)


def test_synthetic_has_the_shape_of_mhealth_and_is_always_the_same():
    dataset = load_synthetic()
    assert dataset.name == "synthetic"
    assert dataset.x.shape == (SUBJECTS * sum(ROWS), 23)
    assert dataset.classes == 12
    assert np.bincount(dataset.y).tolist() == [SUBJECTS * rows for rows in ROWS]
    assert np.isfinite(dataset.x).all()
    assert dataset.fingerprint() == load_synthetic().fingerprint()


def test_fingerprint_sees_every_array():
    base = Dataset("d", X.astype(np.float32), Y.astype(np.int32), SUBJECT)
    prints = {base.fingerprint()}
    for field in ("x", "y", "subject"):
        array = getattr(base, field).copy()
        array[-1] += 1
        prints.add(Dataset(**{**vars(base), field: array}).fingerprint())
    assert len(prints) == 4


def test_random_split_is_80_10_10_without_overlap():
    dataset = numbered()
    splits = split_dataset(dataset, "random", seed=0)
    assert [len(part.y) for part in splits[:3]] == [800, 100, 100]
    first = [np.asarray(part.x)[:, 0] for part in splits[:3]]
    assert len(np.unique(np.concatenate(first).round(6))) == 1000
    again, other = split_dataset(dataset, "random", seed=0), split_dataset(dataset, "random", seed=1)
    np.testing.assert_array_equal(splits.train.x, again.train.x)
    assert (splits.train.y != other.train.y).any()


def test_features_are_standardised_by_the_training_split_alone():
    dataset = numbered()
    splits = split_dataset(dataset, "random", seed=0, train_examples=300)
    assert len(splits.train.y) == 300
    assert len(splits.validation.y) == 37
    assert len(splits.test.y) == 100
    rows = np.concatenate([part.x[:, 0] for part in splits[:3]])  # that tell examples apart
    assert len(np.unique(rows.round(6))) == 437, "a smaller split shares no example with another"
    np.testing.assert_allclose(splits.train.x[:, [0, 2]].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(splits.train.x[:, [0, 2]].std(0), 1, rtol=1e-5)
    assert not splits.train.x[:, 1].any(), "a constant feature becomes zero"
    assert abs(splits.test.x[:, 2].mean()) > 1e-3


@pytest.mark.parametrize("offset", [1.7e9, 1e8, 1e6, 1700000000])  # seconds since 1970 first
def test_an_offset_loses_no_signal(tmp_path, offset):
    integers = isinstance(offset, int)
    signal = RNG.integers(-5, 5, (1000, 2)) if integers else RNG.normal(size=(1000, 2))
    y = np.arange(1000) % 3
    expected = split_dataset(Dataset("d", signal, y), "random", seed=0)
    np.savez(tmp_path / "offset.npz", x=signal + offset, y=y)
    for dataset in (load_npz(tmp_path / "offset.npz"), Dataset("d", signal + offset, y)):
        splits = split_dataset(dataset, "random", seed=0)
        for got, without in zip(splits[:3], expected):
            assert got.x.dtype == np.float32
            np.testing.assert_allclose(got.x, without.x, atol=1e-6)


def test_float32_is_standardised_as_ever():
    x = (100 * RNG.normal(size=(1000, 3)) + 7).astype(np.float32)
    splits = split_dataset(Dataset("d", x, np.arange(1000) % 3), "random", seed=0)
    train = x[np.random.default_rng(0).permutation(1000)[:800]]
    scaled = ((train - train.mean(0, dtype=np.float64)) / train.std(0, dtype=np.float64)).astype(np.float32)
    np.testing.assert_array_equal(splits.train.x, scaled)
    assert splits.notes == ()


@pytest.mark.parametrize("value", [0.1, 1.7e9 + 1 / 3, 1e-300])
def test_a_constant_feature_becomes_zero_and_is_told(value):
    x = np.concatenate([RNG.normal(size=(1000, 1)), np.full((1000, 5), value)], 1)
    y = np.arange(1000) % 3
    splits = split_dataset(Dataset("mine", x[:, :2], y), "random", seed=0)
    assert splits.notes == ("Feature 1 of mine is constant in training: nothing is learned from it.",)
    assert not any(part.x[:, 1].any() for part in splits[:3])
    (note,) = split_dataset(Dataset("mine", x, y), "random", seed=0).notes
    assert note.startswith("Features 1, 2, 3 and 2 more of mine are constant in training: nothing is learned from them")
    (note,) = Resident(split_dataset(Dataset("maps", x.reshape(1000, 2, 3, 1), y), "random", seed=0)).notes
    assert note.startswith("Features (0, 1, 0), (0, 2, 0), (1, 0, 0) and 2 more of maps are")


def test_a_channel_of_windows_is_one_feature_at_whatever_time():
    x = RNG.normal(size=(1000, 5, 2)) * [3, 0] + [10, 7]
    splits = split_dataset(Dataset("windows", x, np.arange(1000) % 3), "random", seed=0)
    assert splits.notes == ("Feature 1 of windows is constant in training: nothing is learned from it.",)
    train = x[np.random.default_rng(0).permutation(1000)[:800], :, 0]
    np.testing.assert_allclose(splits.train.x[..., 0], (train - train.mean()) / train.std(), rtol=1e-5, atol=1e-6)
    assert not splits.train.x[..., 1].any()


def test_subject_split_keeps_subjects_apart():
    dataset = numbered(subjects=10)
    # The second feature is constant; make it the subject, which standardisation keeps distinct.
    dataset.x[:, 1] = dataset.subject
    splits = split_dataset(dataset, "subject", seed=3)
    subjects = [set(np.unique(np.asarray(part.x)[:, 1].round(4))) for part in splits[:3]]
    assert [len(group) for group in subjects] == [8, 1, 1]
    assert len(set.union(*subjects)) == 10
    assert [len(part.y) for part in splits[:3]] == [800, 100, 100]


def test_split_refuses_what_it_cannot_split():
    with pytest.raises(UserError, match="leave none for"):
        split_dataset(Dataset("tiny", X[:4].astype(np.float32), Y[:4].astype(np.int32)), "random", 0)
    with pytest.raises(UserError, match="has no 'subject'"):
        split_dataset(Dataset("d", X.astype(np.float32), Y.astype(np.int32)), "subject", 0)
    with pytest.raises(UserError, match="at least 3 subjects"):
        split_dataset(Dataset("d", X.astype(np.float32), Y.astype(np.int32), Y % 2), "subject", 0)


def test_npz_keeps_what_was_saved(tmp_path):
    people = np.array([f"s{s}" for s in SUBJECT])
    np.savez(tmp_path / "mine.npz", x=X, y=Y, subject=people)
    dataset = load_npz(tmp_path / "mine.npz")
    np.testing.assert_allclose(dataset.x, X, rtol=1e-6)
    np.testing.assert_array_equal(dataset.y, Y)
    np.testing.assert_array_equal(dataset.subject, people)
    assert dataset.classes == 3


PEOPLE = [f"Zoé {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("people", "called"),
    [
        (np.arange(1, 11), [str(number) for number in range(1, 11)]),
        (np.arange(1.0, 11.0), [str(number) for number in range(1, 11)]),
        (np.array(PEOPLE), PEOPLE),
        (np.array([each.encode() for each in PEOPLE]), PEOPLE),
    ],
    ids=["numbers", "floats", "texts", "bytes"],
)
def test_who_is_left_out_of_an_npz_is_whom_the_flag_names(tmp_path, people, called):
    """All splits by person have the rows that they had when people were numbered from 0."""
    np.savez(tmp_path / "mine.npz", x=X, y=Y, subject=people[SUBJECT])
    dataset, numbered = load_npz(tmp_path / "mine.npz"), Dataset("d", X, Y, SUBJECT)
    for number, name in enumerate(called):
        (part,), _ = draw_parts(dataset, "leave_one_subject_out", 3, test_subject=name)
        assert part.label == name
        assert set(SUBJECT[part.test]) == {number}
    for by in ("subject", "leave_one_subject_out"):
        for own, other in zip(draw_parts(dataset, by, 3)[0], draw_parts(numbered, by, 3)[0]):
            assert all((a == b).all() for a, b in zip(own[2:], other[2:]))


@pytest.mark.parametrize("kind", ["S", object])
def test_people_whose_names_are_bytes_are_called_by_them(kind):
    people = np.array([each.encode() for each in PEOPLE]).astype(kind)
    parts, _ = draw_parts(Dataset("d", X, Y, people[SUBJECT]), "leave_one_subject_out", 0)
    assert [part.label for part in parts] == PEOPLE


def test_labels_of_bytes_are_those_of_text(tmp_path):
    for texts in (["10", "2", "1"], ["walk", "sit", "clîmb"]):
        names = np.array([each.encode() for each in texts])
        np.savez(tmp_path / "bytes.npz", x=X, y=names[Y])
        np.savez(tmp_path / "texts.npz", x=X, y=np.array(texts)[Y])
        got, expected = (load_npz(tmp_path / name) for name in ("bytes.npz", "texts.npz"))
        np.testing.assert_array_equal(got.y, expected.y)
        assert got.class_names == expected.class_names
    for absent in (b"", b"NA"):
        np.savez(tmp_path / "bytes.npz", x=X, y=np.where(Y == 2, absent, names[Y]))
        with pytest.raises(UserError, match=rf"row 2 of y is '{absent.decode()}', no label; leave it out"):
            load_npz(tmp_path / "bytes.npz")


@pytest.mark.parametrize("test", [(Y == 2) * 1, (Y == 2) * 1.0, np.where(Y == 2, "test", "train")])
def test_what_does_not_say_true_or_false_of_the_test_is_refused(monkeypatch, test):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # the check of types says it in other words
    with pytest.raises(UserError, match=r"d's test must be True or False for each of x, got .*; compare it with"):
        Dataset("d", X, Y, test=test)
    (part,), _ = draw_parts(Dataset("d", X, Y, test=(Y == 2).tolist()), "random", 0)
    np.testing.assert_array_equal(np.sort(part.test), np.flatnonzero(Y == 2))


def test_npz_reads_or_refuses_a_flipped_byte_but_never_fails_otherwise(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", x=X, y=Y)
    content = (tmp_path / "whole.npz").read_bytes()
    refused = 0
    for place in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            load_npz(tmp_path / "flipped.npz")
        except UserError:
            refused += 1
    assert refused > len(content) / 10


def test_auto_takes_synthetic_where_there_is_no_mhealth_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("resilinet_jax.datasets.readings.LOADERS", {"synthetic": lambda *_: Dataset("synthetic", X, Y)})
    dataset, told = load_dataset("auto", None)
    assert dataset.name == "synthetic"
    assert "synthetic, made-up" in told
    assert "no prepared mHealth" in told


def test_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown --dataset=mheath"):
        load_dataset("mheath", tmp_path)
