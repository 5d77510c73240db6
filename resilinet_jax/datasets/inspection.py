"""What a look at the data tells before anything is trained: leaks, copies, rows on both sides of the split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt64

from resilinet_jax.datasets.splits import PIECE, Splits
from resilinet_jax.errors import listed

SAMPLE = 4_000  # training rows that are looked at
MOST_FEATURES = 300  # of a row; the windows and images that have more are no columns of a table
LEAKS = 0.995  # share of rows whose class one feature tells, above which it may be the label in disguise
BINS = 64
TELLING = 0.01  # share of test examples in training from which on it is told
COPIES = 0.9999  # correlation of two features that are one


def inspect_splits(splits: Splits) -> tuple[str, ...]:
    """Sentences about features that give the class away or repeat each other, and test rows that training has seen.

    Of examples that are no rows only those on both sides of the split are told.
    """
    x = np.asarray(splits.train.x)
    marks = np.concatenate([row_marks(np.asarray(part.x)) for part in (splits.train, splits.test)])
    told = list(seen_note(marks, [np.arange(len(x))], [np.arange(len(x), len(marks))]))
    if x.ndim == 2 and x.shape[1] <= MOST_FEATURES:
        chosen = np.random.default_rng(0).permutation(len(x))[:SAMPLE]
        x, y = x[chosen], np.asarray(splits.train.y)[chosen]
        names = splits.feature_names or tuple(map(str, range(x.shape[1])))
        telling = explained_by_each(x, y) if splits.target_names else told_by_each(x, y)
        what = ("what is to be predicted", "that") if splits.target_names else ("the class", "the label")
        if leaks := [names[i] for i in np.flatnonzero(telling >= LEAKS)]:
            called = f"Features {listed(leaks)} alone tell" if len(leaks) > 1 else f"Feature {leaks[0]} alone tells"
            told.append(f"{called} {what[0]}: is it {what[1]} in disguise?")
        if pairs := [f"{names[i]} and {names[j]}" for i, j in copies(x)]:
            told.append(f"Features {listed(pairs)} hold the same, but for a factor.")
    return tuple(told)


def told_by_each(x: Float[np.ndarray, "rows features"], y: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " features"]:
    """By how much a feature alone tells the class: accuracy above guessing the commonest class, 1 for all that is left.

    Half of the rows say which class is the commonest in each of `BINS` equal parts of the feature; the others are the
    test.

    Args:
      x: the rows.
      y: their labels.
    """
    half, classes = len(y) // 2, int(y.max()) + 1
    if half < 20:
        return np.zeros(x.shape[1])
    edges = np.quantile(x[:half], np.linspace(0, 1, BINS + 1)[1:-1], axis=0)
    right = []
    for own, edge in zip(x.T, edges.T):
        place = np.searchsorted(edge, own)
        counts = np.bincount(place[:half] * classes + y[:half], minlength=BINS * classes).reshape(BINS, classes)
        right.append((counts.argmax(1)[place[half:]] == y[half:]).mean())
    commonest = np.bincount(y[half:]).max() / len(y[half:])
    return (np.array(right) - commonest) / max(1 - commonest, 1e-9)


def explained_by_each(
    x: Float[np.ndarray, "rows features"], y: Float[np.ndarray, "rows targets"]
) -> Float[np.ndarray, " features"]:
    """Which share of the variance of some target a feature alone explains by a straight line: the largest one."""
    deviations = [np.asarray(each, np.float64) - each.mean(0, dtype=np.float64) for each in (x, y)]
    of_x, of_y = (np.sqrt(np.square(each).sum(0)) for each in deviations)
    together = np.abs(deviations[0].T @ deviations[1]) / np.maximum(np.outer(of_x, of_y), 1e-30)
    return np.square(together).max(1)


def copies(x: Float[np.ndarray, "rows features"]) -> list[tuple[int, int]]:
    """Pairs of features that are the same but for a factor and a constant."""
    varying = np.flatnonzero(x.std(0) > 0)
    if len(varying) < 2:
        return []
    related = np.abs(np.corrcoef(x[:, varying], rowvar=False)) >= COPIES
    return [(int(varying[i]), int(varying[j])) for i, j in np.argwhere(np.triu(related, 1))]


def row_marks(x: Float[np.ndarray, "examples *features"]) -> UInt64[np.ndarray, " examples"]:
    """A number for each example: the same for equal ones, and hardly ever for others.

    The sum over the values' bits, each by a random odd factor, modulo 2^64.

    Args:
      x: the examples, as float32.
    """
    width = int(np.prod(x.shape[1:]))
    factors = np.random.default_rng(0).integers(0, 2**63, width, np.uint64) * np.uint64(2) + np.uint64(1)
    marks = np.empty(len(x), np.uint64)
    for first in range(0, len(x), PIECE):
        bits = np.ascontiguousarray(x[first : first + PIECE], np.float32).view(np.uint32).reshape(-1, width)
        marks[first : first + PIECE] = bits.astype(np.uint64) @ factors
    return marks


def seen_note(
    marks: UInt64[np.ndarray, " examples"],
    train: Sequence[Int[np.ndarray, " _"]],
    test: Sequence[Int[np.ndarray, " _"]],
) -> tuple[str, ...]:
    """One sentence if test examples are in training as well, value for value; none if hardly any are.

    Args:
      marks: of all examples, from `row_marks`.
      train: numbers of those that each split trains on.
      test: numbers of those that it is tested on.
    """
    shares = [float(np.isin(marks[asked], marks[there]).mean()) for there, asked in zip(train, test)]
    if max(shares) <= TELLING:
        return ()
    among = f" in {sum(share > TELLING for share in shares)} of {len(shares)} splits" if len(shares) > 1 else ""
    return (
        f"{'Up to ' * (len(shares) > 1)}{100 * max(shares):.1f} % of the test examples are in training as well, value "
        f"for value{among}, which flatters accuracies.",
    )
