from types import SimpleNamespace

import numpy as np
import pytest

from resilinet_jax.datasets.feed import Resident, first_split
from resilinet_jax.datasets.parts import draw_parts, neighbours_note
from resilinet_jax.datasets.split_settings import KINDS
from resilinet_jax.datasets.splits import PADDING, Dataset
from resilinet_jax.datasets.splitting import draw_splits, split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.errors import UserError

RNG = np.random.default_rng(0)
PEOPLE = np.repeat(["ann", "bob", "cid", "dan", "eve"], [60, 90, 120, 60, 150])


def recordings(scale=1.0, offset=0.0):
    """Five people, each with three activities of equal length; a row tells its own number by its first feature."""
    rows = np.arange(len(PEOPLE))
    y = np.concatenate([np.repeat([0, 1, 2], count // 3) for count in (60, 90, 120, 60, 150)])
    x = np.stack([rows, RNG.normal(size=len(rows)) * (1 + y), y + 0.1 * RNG.normal(size=len(rows))], 1)
    return Dataset("recordings", x * scale + offset, y, PEOPLE)


def flags(split="random", splits=1, test_subject=None, seed=0):
    return SimpleNamespace(split=split, splits=splits, test_subject=test_subject, seed=seed)


@pytest.mark.parametrize("by", KINDS)
def test_parts_share_no_row_and_no_split_depends_on_the_others(by):
    data = recordings()
    several, _ = draw_parts(data, by, seed=3, splits=3)
    for part in several:
        rows = np.concatenate([part.train, part.validation, part.test])
        assert len(np.unique(rows)) == len(rows)
    fewer, _ = draw_parts(data, by, seed=3, splits=2)
    for one, other in zip(several, fewer):
        assert all((a == b).all() for a, b in zip(one[2:], other[2:]))
    first = several[0].train, several[1].train
    assert len(first[0]) != len(first[1]) or (first[0] != first[1]).any()
    assert (draw_parts(data, by, seed=4, splits=3)[0][0].train[:10] != several[0].train[:10]).any()


def test_no_split_has_more_rows_than_it_is_said_to_have_at_most():
    data = recordings()
    for by in KINDS:
        for seed in range(20):
            parts, most = draw_parts(data, by, seed, splits=4)
            sizes = np.array([[len(rows) for rows in part[2:]] for part in parts])
            assert (sizes <= most[:3]).all(), by
            assert (sizes[:, 0] >= most.least).all(), by
    assert draw_parts(data, "block", 0)[1].train < 0.85 * len(PEOPLE), "steps without examples cost time"


@pytest.mark.parametrize("train_examples", [None, 150, 290, 330, 10_000])
def test_a_subject_alone_is_padded_as_it_is_among_all(train_examples):
    data = recordings()
    among = draw_splits(data, flags("leave_one_subject_out"), train_examples)
    for place, label in enumerate(among.labels.values()):
        alone = draw_splits(data, flags("leave_one_subject_out", test_subject=label), train_examples)
        for name, members in alone.members.items():
            np.testing.assert_array_equal(members.rows[0], among.members[name].rows[place])
        assert alone.members["train"].padded == among.members["train"].padded


def test_subjects_that_are_too_many_or_oddly_named_are_told_in_one_line():
    rows = np.arange(3003)
    many = Dataset("many", RNG.normal(size=(3003, 2)), rows % 3, rows // 3)
    with pytest.raises(UserError, match=r"takes at most 1,000 subjects, many has 1,001; name one by --test_subject"):
        draw_parts(many, "leave_one_subject_out", seed=0)
    assert draw_parts(many, "leave_one_subject_out", seed=0, test_subject="7")[0][0].label == "7"
    with pytest.raises(UserError, match=r"no such subject; it has 0, 1, 2 and 998 more$"):
        draw_parts(many, "leave_one_subject_out", seed=0, test_subject="x")
    odd = Dataset("odd", many.x[:6], rows[:6] % 3, np.repeat(["a\nb", "../../c", "\x1b[31md"], 2))
    parts, _ = draw_parts(odd, "leave_one_subject_out", seed=0)
    assert [part.label for part in parts] == ["\\x1b[31md", "../../c", "a\\nb"]


def test_everybody_is_left_out_once_and_somebody_else_validates():
    data = recordings()
    parts, most = draw_parts(data, "leave_one_subject_out", seed=0)
    assert [part.label for part in parts] == ["ann", "bob", "cid", "dan", "eve"]
    validating = []
    for part in parts:
        who = [set(PEOPLE[rows]) for rows in (part.train, part.validation, part.test)]
        assert who[2] == {part.label}
        assert [len(each) for each in who] == [3, 1, 1]
        assert set.union(*who) == set(PEOPLE)
        assert len(part.train) + len(part.validation) + len(part.test) == len(PEOPLE)
        validating += who[1]
    assert sorted(validating) == sorted(set(PEOPLE)), "everybody validates once"
    (alone,), same = draw_parts(data, "leave_one_subject_out", seed=0, test_subject="cid")
    assert (alone.number, alone.label, same) == (2, "cid", most)
    assert all((a == b).all() for a, b in zip(alone[2:], parts[2][2:]))
    with pytest.raises(UserError, match=r"--test_subject=bo: recordings has no such subject.*bob"):
        draw_parts(data, "leave_one_subject_out", seed=0, test_subject="bo")


def test_a_gap_keeps_blocks_of_a_stretch_apart():
    data = recordings()
    (part,), _ = draw_parts(data, "block", seed=0)
    train, held_out = np.sort(part.train), np.concatenate([part.validation, part.test])
    stretch = np.cumsum(np.r_[0, (np.diff(data.y) != 0) | (PEOPLE[1:] != PEOPLE[:-1])])
    for rows in (part.validation, part.test):
        assert len(rows) == len(data.y) / 10
        assert set(stretch[rows]) == set(stretch), "every activity of everybody is there"
        assert (np.sort(rows)[1:] - np.sort(rows)[:-1] == 1).mean() > 0.5, "rows follow each other"
    near = np.abs(train[:, None] - held_out[None]) <= 1
    assert not (near & (stretch[train][:, None] == stretch[held_out][None])).any()
    assert len(train) > 0.65 * len(data.y)
    with pytest.raises(UserError, match="needs 10 rows of one class that follow each other"):
        draw_parts(Dataset("mixed", data.x, np.arange(len(PEOPLE)) % 3), "block", seed=0)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 1.7e9), (1e12, 0.0)])
def test_each_split_is_standardised_by_what_it_trains_on(scale, offset):
    data = recordings(scale, offset)
    splits = draw_splits(data, flags("leave_one_subject_out"))
    parts, _ = draw_parts(data, "leave_one_subject_out", seed=0)
    for place, part in enumerate(parts):
        mean, deviation = data.x[part.train].mean(0), data.x[part.train].std(0)
        for name, rows in (("train", part.train), ("validation", part.validation), ("test", part.test)):
            members = splits.members[name].of(place)
            got = members.take(splits.examples, members.rows)
            kept = got.y != PADDING
            assert kept.sum() == len(rows)
            np.testing.assert_array_equal(got.y[kept], data.y[rows])
            np.testing.assert_allclose(got.x[kept], (data.x[rows] - mean) / deviation, rtol=1e-5, atol=5e-6)


def test_each_split_of_windows_is_standardised_by_each_channel_of_what_it_trains_on():
    """Readings rise within a window, and one person's lie far from all others'."""
    rise, far = np.arange(4)[:, None] * [1e3, -1e3], 1e4 * (PEOPLE == "cid")
    data = Dataset("windows", RNG.normal(size=(len(PEOPLE), 4, 2)) + rise + far[:, None, None], recordings().y, PEOPLE)
    parts, _ = draw_parts(data, "leave_one_subject_out", seed=0)
    several = draw_splits(data, flags("leave_one_subject_out"))
    for place, part in enumerate(parts):
        train = data.x[part.train].reshape(-1, 2)
        members = several.members["test"].of(place)
        got = members.take(several.examples, members.rows[: len(part.test)]).x
        np.testing.assert_allclose(got, (data.x[part.test] - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-5)


def test_one_subject_alone_reads_as_the_single_split_that_it_is():
    data = recordings()
    splits = draw_splits(data, flags("leave_one_subject_out", test_subject="dan"), train_examples=100)
    feed = Resident(splits)
    assert (feed.labels, {name: sizes.tolist() for name, sizes in feed.sizes.items()}) == (
        {3: "dan"},
        {"train": [100], "validation": [12], "test": [60]},
    )
    test = first_split(feed, "test")
    np.testing.assert_allclose(
        test.x, feed.standardisation(np.asarray(data.x)[np.isin(PEOPLE, "dan")][order(test, data)]), atol=1e-5
    )
    assert feed.class_counts("train")[0].sum() == 100


def order(test, data):
    """Where rows of a test split, in their own order, stand among dan's."""
    first = np.flatnonzero(np.isin(PEOPLE, "dan"))
    (part,), _ = draw_parts(data, "leave_one_subject_out", seed=0, test_subject="dan")
    return part.test - first[0]


def test_the_first_of_several_splits_has_the_rows_of_the_only_one():
    data = recordings()
    only, several = split_dataset(data, "random", seed=5), draw_splits(data, flags(splits=3, seed=5))
    for name, examples in (("train", only.train), ("validation", only.validation), ("test", only.test)):
        got = several.members[name].of(0).take(several.examples, several.members[name].rows[0])
        np.testing.assert_array_equal(got.y, examples.y)
        np.testing.assert_allclose(got.x, examples.x, atol=1e-5)
    for part in ("train", "test"):
        counts = [Resident(splits).class_counts(part)[0] for splits in (several, only)]
        np.testing.assert_array_equal(*counts)


def test_a_random_split_of_recordings_says_that_neighbours_are_alike():
    recorded = load_synthetic()
    (note,) = neighbours_note(recorded)
    assert "--split=block" in note
    few = Dataset("few", *(each[:20_000] for each in (recorded.x, recorded.y, recorded.subject)))
    assert note in split_dataset(few, "random", seed=0).notes
    assert note not in split_dataset(few, "block", seed=0).notes
    assert note in draw_splits(few, flags(splits=2)).notes
    unsigned = np.repeat(np.arange(2_000) % 200, 3)[:, None].astype(np.uint8)  # differences would wrap around
    assert neighbours_note(Dataset("bytes", unsigned, np.zeros(6_000, int)))
    noise = Dataset("noise", RNG.normal(size=(5000, 3)), np.repeat([0, 1], 2500))
    assert not neighbours_note(noise)
    mixed = np.random.default_rng(1).permutation(len(recorded.y))[:20_000]
    assert not neighbours_note(Dataset("mixed", recorded.x[mixed], recorded.y[mixed], recorded.subject[mixed]))
