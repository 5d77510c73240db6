"""Metrics of a classifier, from the counts of each class; and of predicted numbers, from their errors.

With TP, FP and FN the true positives, false positives and false negatives of a class, the number of its examples is
TP + FN, and the number of examples that were taken for it TP + FP. All metrics are in [0, 1], and those of no
information are those of the expected counts, not the expected metrics.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

Counts = Float[np.ndarray, "*stack classes 3"]  # true positives, false positives, false negatives


def accuracy(counts: Counts) -> Float[np.ndarray, "*stack"]:
    """Share of the examples that were classified correctly: sum_c TP / sum_c (TP + FN)."""
    positive, _, missed = _parts(counts)
    return _share(positive.sum(-1), (positive + missed).sum(-1))


def recall(counts: Counts) -> Float[np.ndarray, "*stack classes"]:
    """Share of each class that was classified correctly: TP / (TP + FN); NaN for a class without examples."""
    positive, _, missed = _parts(counts)
    return _share(positive, positive + missed)


def balanced_accuracy(counts: Counts) -> Float[np.ndarray, "*stack"]:
    """Mean of the recalls TP / (TP + FN) over the classes that have examples.

    As `sklearn.metrics.balanced_accuracy_score`.
    """
    positive, _, missed = _parts(counts)
    return _mean(recall(counts), positive + missed > 0, counts)


def macro_f1(counts: Counts) -> Float[np.ndarray, "*stack"]:
    """Mean of 2 TP / (2 TP + FP + FN) over the classes that have examples, or that some example was taken for.

    As `sklearn.metrics.f1_score(average="macro")`, which leaves out other classes. A class without examples counts as
    0 once it has been predicted.
    """
    positive, wrong, missed = _parts(counts)
    total = 2 * positive + wrong + missed
    return _mean(_share(2 * positive, total), total > 0, counts)


def micro_f1(counts: Counts) -> Float[np.ndarray, "*stack"]:
    """2 sum_c TP / sum_c (2 TP + FP + FN): the accuracy, where every example has one class and is taken for one.

    As `sklearn.metrics.f1_score(average="micro")`.
    """
    positive, wrong, missed = _parts(counts)
    return _share(2 * positive.sum(-1), (2 * positive + wrong + missed).sum(-1))


# By what `--metric` takes; `metric_names` says how each is called.
METRICS: dict[str, Callable[[Counts], Float[np.ndarray, "*stack"]]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
}


def r2(errors: Float[np.ndarray, "*stack targets 4"]) -> Float[np.ndarray, "*stack"]:
    """Mean over the targets of R², 1 - MSE / MSE of the training mean, where numbers are predicted.

    As `sklearn.metrics.r2_score`, which knows no training split and compares with the mean of the test split. It is 0
    where nothing is known, and less for predictions that are worse than the mean. A target that is the training mean in
    every example has none, and is left out.

    Args:
      errors: mean squared and mean absolute error, and the same of the training mean.
    """
    varies = errors[..., 2] != 0
    explained = np.where(varies, 1 - _share(errors[..., 0], errors[..., 2]), 0.0)
    return _share(explained.sum(-1), varies.sum(-1))


def _parts(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positive, wrong, missed = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    return positive, wrong, missed


def _share(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """Part / whole; NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray, counted: Bool[np.ndarray, "*stack classes"], counts: Counts) -> np.ndarray:
    """Mean over the classes that count; NaN for a run that has diverged, so that it has no counts."""
    mean = _share(np.where(counted, values, 0.0).sum(-1), counted.sum(-1))
    return np.where(np.isnan(counts).any((-1, -2)), np.nan, mean)
