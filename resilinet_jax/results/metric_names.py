"""How the metrics are called by which results can be told; what they are stands in `metrics`. No NumPy."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from resilinet_jax.files import beside


class MetricName(NamedTuple):
    """What a metric is called.

    Attributes:
      name: in a sentence.
      plural: what several values of it are called.
      points: what a difference of 0.01 is, in the plural.
    """

    name: str
    plural: str
    points: str

    @property
    def title(self) -> str:
        """The name at the beginning of a sentence."""
        return _opening(self.name)

    @property
    def plural_title(self) -> str:
        """The plural at the beginning of a sentence."""
        return _opening(self.plural)


ACCURACY = "accuracy"
# By what `--metric` takes.
METRIC_NAMES = {
    ACCURACY: MetricName("accuracy", "accuracies", "points"),
    "balanced_accuracy": MetricName("balanced accuracy", "balanced accuracies", "points of balanced accuracy"),
    "macro_f1": MetricName("macro F1", "macro F1 scores", "points of macro F1"),
    "micro_f1": MetricName("micro F1", "micro F1 scores", "points of micro F1"),
}


# By what results are told where numbers are predicted.
R2 = MetricName("R²", "R² values", "points of R²")


class Columns(NamedTuple):
    """What files and their columns are called.

    Attributes:
      score: the column of the score, `ACCURACY` or what stands for it.
      scores: the file of it.
      outcomes: the file of what there is of each class or target.
      each: the column of its number.
      parts: the columns of its outcomes.
    """

    score: str
    scores: str
    outcomes: str
    each: str
    parts: tuple[str, ...]


OF_CLASSES = Columns(ACCURACY, "accuracies.csv", "class_counts.csv", "class", ("tp", "fp", "fn"))
OF_TARGETS = Columns("r2", "r2.csv", "errors.csv", "target", ("mse", "mae", "mse_of_mean", "mae_of_mean"))


def metric_folder(folder: pathlib.Path, metric: str) -> pathlib.Path:
    """Where a sweep's report by another metric than accuracy goes: beside the sweep's folder, which stays as it is."""
    return folder if metric == ACCURACY else beside(folder, metric)


def _opening(text: str) -> str:
    return text[:1].upper() + text[1:]
