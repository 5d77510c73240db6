"""Which rows of a data set train, validate and test: in one split or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from resilinet_jax.datasets.labels import plain
from resilinet_jax.datasets.split_settings import LEAVE_ONE_OUT
from resilinet_jax.datasets.splits import Dataset, Places, take_rows
from resilinet_jax.errors import UserError, listed, printable, suggest

BLOCKS = 10  # of a stretch of rows: one validates, one tests
MOST = 1_000  # subjects that are each left out: rows are kept for each of them
GAP = 0.1  # of a block, left out where a block that trains meets one that does not


class Parts(NamedTuple):
    """The rows of one split.

    Attributes:
      number: of the split, among all that there could be.
      label: how results call it.
      train: rows to train on, in random order.
      validation: rows that choose a model's best epoch.
      test: rows that results are measured on.
    """

    number: int
    label: str
    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


class Lengths(NamedTuple):
    """The most rows that a part of any split of the same data and kind can have, whichever splits are drawn.

    Attributes:
      least: that may train, so that it is known whether all splits have equally many.
    """

    train: int
    validation: int
    test: int
    least: int


def draw_parts(
    dataset: Dataset, by: str, seed: int, splits: int = 1, test_subject: str | None = None
) -> tuple[list[Parts], Lengths]:
    """Splits a data set 80/10/10, or leaves out one subject after the other.

    A split depends on the data, the seed and its own number alone, not on which others are drawn.

    Where a split is published its test rows are kept, and the kind is that of the validation rows among the others.
    Windows that share rows with one that tests or validates, or lie next to it, don't train.

    Args:
      dataset: what to split.
      by: one of `split_settings.KINDS`: random rows; blocks of rows that follow each other; whole subjects; or each
        subject by itself, with the next one by seed for validation.
      seed: of all splits.
      splits: how many; as many as there are subjects where each is left out in turn.
      test_subject: the one that is left out, by its number or name; None for all.

    Raises:
      UserError: if a part would be empty, or there are no subjects to split by.
    """
    if dataset.test is not None and (by == LEAVE_ONE_OUT or splits > 1):
        what = f"--split={by}" if by == LEAVE_ONE_OUT else f"--splits={splits}"
        raise UserError(f"{what}: {dataset.name} comes with its test rows; leave the flag out")
    if by == LEAVE_ONE_OUT:
        parts, lengths = _one_left_out(dataset, seed, test_subject)
    else:
        draw = {"random": _random, "block": _blocks, "subject": _by_subject}[by]
        generators = [np.random.default_rng([seed, number] if number else seed) for number in range(splits)]
        drawn = [_apart(dataset, *_keeping_published(draw, dataset, rng)) for rng in generators]
        parts = [Parts(number, str(number), *rows) for number, rows in enumerate(drawn)]
        lengths = {
            "random": lambda: _lengths_at_random(len(dataset.y), least=0 if dataset.places else None),
            "block": lambda: _lengths_of_blocks(dataset),
            "subject": lambda: _lengths_by_subject(dataset, lambda total: _cuts(total, 1)),
        }[by]()
    for part in parts:
        for name, rows in (("training", part.train), ("validation", part.validation), ("test", part.test)):
            if not len(rows):
                raise UserError(f"{dataset.name}: {len(dataset.y)} examples leave none for {name}; bring more data")
    return parts, lengths


def neighbours_note(dataset: Dataset) -> tuple[str, ...]:
    """One sentence if rows that follow each other are much more alike than others of the same class; else none."""
    x = dataset.x.reshape(len(dataset.y), -1)
    starts = np.flatnonzero(_begins(dataset))
    lengths = np.diff(np.r_[starts, len(x)])
    if len(x) - len(starts) < len(x) / 2:  # rows whose next row is of the same stretch
        return ()
    rng = np.random.default_rng(0)
    stretch = rng.choice(len(starts), 5_000, p=(lengths - 1) / (len(x) - len(starts)))
    start, length = starts[stretch], lengths[stretch]
    first = start + (rng.random(len(start)) * (length - 1)).astype(int)
    other = start + (rng.random(len(start)) * length).astype(int)  # any row of the same stretch
    own, after, another = (take_rows(x, rows).astype(np.float64) for rows in (first, first + 1, other))
    deviation = own.std(0)
    scale = np.where(deviation == 0, 1, deviation)
    near, far = ((((own - rows) / scale) ** 2).mean() for rows in (after, another))
    if not near < 0.5 * far:
        return ()
    return (
        "Rows were split at random, and rows that follow each other are alike: those of one recording are in training "
        f"and in test, which flatters every accuracy. --split=block and --split={LEAVE_ONE_OUT} keep them apart.",
    )


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def _random(dataset: Dataset, rng: np.random.Generator) -> Drawn:
    train, validation, test = np.split(rng.permutation(len(dataset.y)), _cuts(len(dataset.y)))
    return train, validation, test


def _keeping_published(
    draw: Callable[[Dataset, np.random.Generator], Drawn], dataset: Dataset, rng: np.random.Generator
) -> Drawn:
    """A split as it is drawn; where one is published, what is drawn validates, out of the rows that train."""
    if dataset.test is None:
        return draw(dataset, rng)
    own, test = np.flatnonzero(~dataset.test), np.flatnonzero(dataset.test)
    train, validation, also = draw(dataset.taken(own, test=None, places=None), rng)
    return own[rng.permutation(np.concatenate([train, also]))], own[validation], rng.permutation(test)


def _apart(dataset: Dataset, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Drawn:
    """The parts without windows that are near those of a part that counts more: the test first, then validation."""
    if dataset.places is not None:
        validation = _far_from(dataset.places, validation, test)
        train = _far_from(dataset.places, _far_from(dataset.places, train, test), validation)
    return train, validation, test


def _far_from(places: Places, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    there = np.sort(places.begin[others])
    if not len(there):
        return rows
    after = np.searchsorted(there, places.begin[rows])
    distances = [np.abs(places.begin[rows] - there[np.clip(after - back, 0, len(there) - 1)]) for back in (0, 1)]
    return rows[np.minimum(*distances) > places.reach]


def _lengths_at_random(total: int, least: int | None) -> Lengths:
    cut, later = _cuts(total)
    return Lengths(cut, later - cut, total - later, cut if least is None else least)


def _cuts(total: int, least: int = 0) -> tuple[int, int]:
    """Where 80/10/10 of `total` ends its first and second part; each of the others has at least `least`."""
    held_out = max(least, round(0.1 * total))
    return total - 2 * held_out, total - held_out


def _subjects(dataset: Dataset, by: str) -> np.ndarray:
    if dataset.subject is None:
        why = f"{dataset.name}: {dataset.no_subject}, or" if dataset.no_subject else f"{dataset.name} has no 'subject';"
        raise UserError(f"--split={by}: {why} use --split=random")
    subjects = np.unique(dataset.subject)
    if len(subjects) < 3:
        raise UserError(
            f"--split={by} needs at least 3 subjects, {dataset.name} has {len(subjects)}; use --split=random"
        )
    return subjects


def _by_subject(dataset: Dataset, rng: np.random.Generator) -> Drawn:
    subjects = rng.permutation(_subjects(dataset, "subject"))
    train, validation, test = np.split(subjects, _cuts(len(subjects), 1))
    return _rows_of(dataset, rng, train), _rows_of(dataset, rng, validation), _rows_of(dataset, rng, test)


def _rows_of(dataset: Dataset, rng: np.random.Generator, subjects: Iterable[object]) -> np.ndarray:
    return rng.permutation(np.flatnonzero(np.isin(np.asarray(dataset.subject), np.asarray(subjects))))


def _lengths_by_subject(dataset: Dataset, cuts: Callable[[int], tuple[int, int]]) -> Lengths:
    rows = np.sort(np.unique(np.asarray(dataset.subject), return_counts=True)[1])
    cut, later = cuts(len(rows))
    held_out = int(rows[later:].sum())
    return Lengths(int(rows[len(rows) - cut :].sum()), held_out, held_out, least=int(rows[:cut].sum()))


def _one_left_out(dataset: Dataset, seed: int, test_subject: str | None) -> tuple[list[Parts], Lengths]:
    subjects = _subjects(dataset, LEAVE_ONE_OUT)
    numbers = subjects.dtype.kind == "f"  # which nobody types with a point
    labels = [printable(plain(str(subject)) if numbers else str(subject)) for subject in subjects]
    if test_subject is None and len(labels) > MOST:
        raise UserError(
            f"--split={LEAVE_ONE_OUT} takes at most {MOST:,} subjects, {dataset.name} has {len(labels):,}; name one by "
            "--test_subject, or use --split=subject"
        )
    if test_subject is not None and test_subject not in labels:
        known = suggest(test_subject, labels) if len(labels) <= 30 else f"; it has {listed(labels)}"
        raise UserError(f"--test_subject={test_subject}: {dataset.name} has no such subject{known}")
    turn = np.random.default_rng(seed).permutation(len(subjects))
    after = dict(zip(turn, np.roll(turn, -1)))
    parts = []
    for number, label in enumerate(labels):
        if test_subject in (None, label):
            rng = np.random.default_rng([seed, number])
            others = [subjects[other] for other in range(len(subjects)) if other not in (number, after[number])]
            groups = others, [subjects[after[number]]], [subjects[number]]
            parts.append(Parts(number, label, *(_rows_of(dataset, rng, group) for group in groups)))
    return parts, _lengths_by_subject(dataset, lambda total: (total - 2, total - 1))


def _begins(dataset: Dataset) -> np.ndarray:
    """Whether a row begins a stretch of rows of one class, if there are classes, one subject and one recording."""
    begins = np.ones(len(dataset.y), bool)
    begins[1:] = False if dataset.target_names else np.diff(dataset.y) != 0
    for of_each in (dataset.subject, dataset.recording):
        if of_each is not None:
            begins[1:] |= of_each[1:] != of_each[:-1]
    return begins


def _lengths_of_blocks(dataset: Dataset) -> Lengths:
    stretches = np.diff(np.r_[np.flatnonzero(_begins(dataset)), len(dataset.y)])
    cut = stretches[stretches >= BLOCKS]
    held_out = int(-(-cut // BLOCKS).sum())
    return Lengths(len(dataset.y) - 2 * int((cut // BLOCKS).sum()), held_out, held_out, least=0)


def _blocks(dataset: Dataset, rng: np.random.Generator) -> Drawn:
    """Cuts each stretch into blocks; one validates, one tests, and rows of training next to them are left out."""
    part = np.zeros(len(dataset.y), int)  # 0 trains, 1 validates, 2 tests, 3 is left out
    starts = np.flatnonzero(_begins(dataset))
    for stretch in np.split(np.arange(len(part)), starts[1:]):
        if len(stretch) < BLOCKS:
            continue  # too short to cut: it trains
        blocks = np.array_split(stretch, BLOCKS)
        for kind, number in enumerate(rng.choice(BLOCKS, 2, replace=False), 1):
            part[blocks[number]] = kind
        gap = max(1, round(GAP * len(blocks[0])))
        held_out = np.isin(part[stretch], (1, 2))
        near = np.convolve(held_out, np.ones(2 * gap + 1), "same") > 0
        part[stretch[near & ~held_out]] = 3
    if not (part == 2).any():
        raise UserError(
            f"--split=block needs {BLOCKS} rows of one class that follow each other, {dataset.name} has nowhere so "
            "many; use --split=random"
        )
    train, validation, test = (rng.permutation(np.flatnonzero(part == kind)) for kind in range(3))
    return train, validation, test
