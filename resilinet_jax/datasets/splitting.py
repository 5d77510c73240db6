"""Splits a data set, and standardises each split by what it trains on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from resilinet_jax.datasets.inspection import inspect_splits, row_marks, seen_note
from resilinet_jax.datasets.parts import draw_parts, neighbours_note
from resilinet_jax.datasets.split_settings import LEAVE_ONE_OUT, SplitSettings
from resilinet_jax.datasets.splits import (
    PADDING,
    Dataset,
    Examples,
    Members,
    Resplits,
    Splits,
    Standardisation,
    check_spread,
    constant_note,
    standardisation_of,
    take_rows,
    target_standardisation,
)

SAMPLE = 10_000  # rows of which a median is taken


def split_dataset(dataset: Dataset, by: str, seed: int, train_examples: int | None = None) -> Splits:
    """Splits 80/10/10, keeps at most `train_examples` for training, and standardises.

    Args:
      dataset: what to split.
      by: `random` rows, `block`s of rows that follow each other, or `subject`: whole subjects.
      seed: of the split.
      train_examples: at most so many for training, drawn at random, and an eighth of it for validation, which
        keeps the two in proportion; the test split stays whole. None keeps all.

    Raises:
      UserError: if a split would be empty, or there are no subjects to split by.
    """
    (drawn, *_), _ = draw_parts(dataset, by, seed)
    rows = drawn.train[:train_examples], drawn.validation[: _validating(train_examples)], drawn.test
    standardise, constant = standardisation_of(take_rows(dataset.x, rows[0]))
    with np.errstate(over="ignore"):  # refused at once
        y, target_scaling = _ready(dataset)
        ready = [Examples(standardise(dataset.x, part), y[part]) for part in rows]
    for examples in ready:
        check_spread(dataset.name, np.asarray(examples.x), standardise.scale)
    notes = _notes(dataset, by, constant)
    whole = _as_recorded(dataset, standardise)
    names = dataset.class_names, dataset.feature_names, dataset.target_names
    splits = Splits(ready[0], ready[1], ready[2], dataset.classes, notes, whole, *names, target_scaling)
    return splits._replace(notes=(*notes, *inspect_splits(splits)))


def draw_splits(dataset: Dataset, settings: SplitSettings, train_examples: int | None = None) -> Splits | Resplits:
    """The split or splits that the flags ask for; several have their examples in common.

    Args:
      dataset: what to split.
      settings: how.
      train_examples: as in `split_dataset`, of each split.

    Raises:
      UserError: as `split_dataset`.
    """
    by, seed = settings.split, settings.seed
    if settings.splits == 1 and by != LEAVE_ONE_OUT:
        return split_dataset(dataset, by, seed, train_examples)
    drawn, most = draw_parts(dataset, by, seed, settings.splits, settings.test_subject)
    x = np.asarray(dataset.x)
    # About a value in the midst of all, so that float32 keeps every digit; what splits train on differs little from it.
    some = x[:: -(-len(x) // SAMPLE)]
    middle = np.median(some.reshape(-1, x.shape[-1]) if x.ndim == 3 else some, 0)  # as `standardisation_of` has it
    shared = Standardisation(middle, standardisation_of(x)[0].scale)
    with np.errstate(over="ignore"):  # refused below
        x, (y, target_scaling) = shared(x), _ready(dataset)
    rows = {
        "train": [part.train[:train_examples] for part in drawn],
        "validation": [part.validation[: _validating(train_examples)] for part in drawn],
        "test": [part.test for part in drawn],
    }
    fitted, constant = zip(*(standardisation_of(x[own]) for own in rows["train"]))
    for own in fitted:
        with np.errstate(over="ignore"):
            check_spread(dataset.name, own(x), own.scale * shared.scale)
    scaling = Standardisation(*(np.stack(each).astype(np.float32) for each in zip(*fitted)))
    longest = {
        "train": min(most.train, train_examples or most.train),
        "validation": min(most.validation, _validating(train_examples) or most.validation),
        "test": most.test,
    }
    # One more where some split may have fewer, so that none is without padding: all of them run the same operations.
    longest["train"] += most.least < longest["train"]
    targets = None
    if called := dataset.target_names:
        of_splits = (target_standardisation(dataset.name, y[own], called) for own in rows["train"])
        targets = Standardisation(*(np.stack(each).astype(np.float32) for each in zip(*of_splits)))
    members = {name: Members(_padded(own, longest[name]), scaling, targets) for name, own in rows.items()}
    notes = (
        *_notes(dataset, by, np.logical_and.reduce(constant)),
        *seen_note(row_marks(x), rows["train"], rows["test"]),
    )
    first = Standardisation(shared.centre + shared.scale * fitted[0].centre, shared.scale * fitted[0].scale)
    labels = {part.number: part.label for part in drawn}
    whole = _as_recorded(dataset, first)
    names = dataset.class_names, dataset.feature_names, dataset.target_names
    return Resplits(Examples(x, y), members, labels, dataset.classes, notes, whole, *names, target_scaling)


def _ready(dataset: Dataset) -> tuple[np.ndarray, Standardisation | None]:
    """Labels as devices hold them; or numbers to predict, in a scale that float32 can hold, and that scale."""
    if not dataset.target_names:
        return dataset.y.astype(np.int32), None
    scaling = target_standardisation(dataset.name, dataset.y, dataset.target_names)
    return scaling(dataset.y), scaling


def _as_recorded(dataset: Dataset, standardise: Standardisation) -> Standardisation:
    """The same for readings as they were recorded, where something has been taken off them since."""
    return standardise if dataset.offset is None else standardise._replace(centre=standardise.centre + dataset.offset)


def _notes(dataset: Dataset, by: str, constant: Bool[np.ndarray, "*constant"]) -> tuple[str, ...]:
    alone = neighbours_note(dataset) if by == "random" and dataset.places is None and dataset.test is None else ()
    own = dataset.test
    kept = () if own is None else (
        f"{dataset.name} comes with its split, which is kept: {own.sum():,} of {len(own):,} examples test; validation "
        "is taken from the others.",
    )  # fmt: skip
    return (*dataset.notes, *kept, *constant_note(dataset, constant), *alone)


def _validating(train_examples: int | None) -> int | None:
    return None if train_examples is None else max(1, train_examples // 8)


def _padded(rows: list[np.ndarray], longest: int) -> np.ndarray:
    return np.stack([np.pad(own, (0, longest - len(own)), constant_values=PADDING) for own in rows]).astype(np.int32)
