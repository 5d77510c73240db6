"""What was measured: a metric by cell, run and failure combination, and its averages."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from resilinet_jax.cells import Cell
from resilinet_jax.failures.averages import average_accuracy_bounds, usual_setting
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.failures.model import with_failout_at_inference
from resilinet_jax.failures.user_failures import YOUR_OWN
from resilinet_jax.network.graph import Graph
from resilinet_jax.network.senders import has_path
from resilinet_jax.results.metric_names import ACCURACY, METRIC_NAMES, OF_CLASSES, OF_TARGETS, R2, Columns, MetricName
from resilinet_jax.results.metrics import METRICS
from resilinet_jax.results.units import Units
from resilinet_jax.runtime.store import Measured

Run = TypeVar("Run")
SHOWN = 16  # failure combinations that a table or figure has room for


@dataclasses.dataclass(frozen=True)
class Results:
    """What was measured of a sweep's cells, told by one metric.

    Attributes:
      combinations: that were evaluated.
      failure_settings: by name, failure probability by node name.
      cells: by name.
      measured: by cell name, what its runs left, with leaves [runs, ...]; accuracies in the order of `combinations`.
      message_bytes: size of what a node sends for one example, by node; empty where it is not known.
      units: what the runs are independent of.
      metric: by which results are told, one of `METRICS`.
      select_by: which epoch of a run counts, as `--select_by` takes it.
      class_names: of classes 0..C-1; none if they have no other names.
      target_names: of the numbers that were predicted; none where there were classes.
    """

    combinations: Combinations
    failure_settings: Mapping[str, Mapping[str, float]]
    cells: Mapping[str, Cell]
    measured: Mapping[str, Measured]
    message_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    units: Units = dataclasses.field(default_factory=Units)
    metric: str = ACCURACY
    select_by: str = "no_failure"
    class_names: Sequence[str] = ()
    target_names: Sequence[str] = ()

    def class_name(self, number: int | np.integer) -> str:
        """What people call a class."""
        return self.class_names[int(number)] if self.class_names else str(number)

    @property
    def told_by(self) -> MetricName:
        """What the metric is called by which results are told."""
        return R2 if self.target_names else METRIC_NAMES[self.metric]

    @property
    def score_name(self) -> str:
        """What the score is called by which epochs are selected."""
        return (R2 if self.target_names else METRIC_NAMES[ACCURACY]).name

    @property
    def columns(self) -> Columns:
        """What files and their columns are called."""
        return OF_TARGETS if self.target_names else OF_CLASSES

    @property
    def has_class_counts(self) -> bool:
        """Whether the counts of each class are there, from which every metric of classes follows."""
        return not self.target_names and all(each.outcomes.shape[-2] for each in self.measured.values())

    @functools.cached_property
    def values(self) -> Mapping[str, Float[np.ndarray, "runs combinations"]]:
        """By cell name, the metric of each run under each failure combination; NaN where the run diverged."""
        if self.metric == ACCURACY:  # the score, known where counts are not
            return {name: each.score for name, each in self.measured.items()}
        return {name: METRICS[self.metric](each.outcomes) for name, each in self.measured.items()}

    @property
    def graph(self) -> Graph:
        """The scenario's graph."""
        return self.combinations.graph

    @property
    def runs(self) -> int:
        """How many runs a cell has, on all splits together."""
        return max((len(each.score) for each in self.measured.values()), default=0)

    def numbered(self, of_runs: Iterable[Run]) -> Iterator[tuple[tuple[str, int], Run]]:
        """What each run of a cell has, with its split and its number on that."""
        return zip(self.units.numbered(self.runs), of_runs)

    @functools.cached_property
    def failing_sets(self) -> list[tuple[str, ...]]:
        """Every failure combination that was evaluated, as the names of the failing nodes."""
        return self.combinations.failing_sets

    def shown_sets(self, setting: str) -> list[tuple[str, ...]]:
        """All failing sets, or the most probable ones under a failure setting where they are too many to show."""
        if len(self.failing_sets) <= SHOWN:
            return self.failing_sets
        likely = np.argsort(-self.combination_probability(setting), kind="stable")[:SHOWN]
        return [self.failing_sets[number] for number in sorted(likely)]

    @property
    def usual_setting(self) -> str:
        """The user's own failure setting; else the scenario's usual one."""
        return YOUR_OWN if YOUR_OWN in self._failing_settings else usual_setting(self.failure_settings)

    @property
    def harshest_setting(self) -> str:
        """The user's own failure setting; else the last in which anything fails, or the first of all."""
        return next(iter(reversed(self._failing_settings or list(self.failure_settings)[:1])))

    @property
    def _failing_settings(self) -> list[str]:
        """Names of the failure settings in which anything fails."""
        return [name for name, probability in self.failure_settings.items() if any(probability.values())]

    @property
    def diverged(self) -> dict[str, list[int]]:
        """The runs that diverged, by the name of their cell; cells of which none did are left out."""
        return {name: runs.diverged for name, runs in self.measured.items() if runs.diverged}

    def leaves_path(self, failing: Sequence[str]) -> bool:
        """Whether anything still reaches the cloud while just these nodes fail, with every skip present."""
        return has_path(self.graph, failing)

    def failure_probability(self, setting: str) -> Float[np.ndarray, " causes"]:
        """Failure probability of each of `Graph.causes` under a failure setting."""
        return np.array(self.graph.node_values(self.failure_settings[setting], f"failure setting {setting!r}"))

    def combination_probability(self, setting: str) -> Float[np.ndarray, " combinations"]:
        """Probability of each failure combination under a failure setting."""
        return self.combinations.probabilities(self.failure_probability(setting))

    def under(self, cell: str, failing: Sequence[str]) -> Float[np.ndarray, " runs"]:
        """The metric of each run while just these nodes fail."""
        return self.values[cell][:, self.failing_sets.index(tuple(failing))]

    def average(self, cell: str, setting: str) -> Float[np.ndarray, " runs"]:
        """The metric's average of each run under a failure setting: the middle of the interval that it lies in.

        It is exact where all failure combinations were evaluated; else `left_out` is how wide the interval is.
        """
        return self.average_at(cell, self.failure_probability(setting))

    def average_with_failout(self, cell: str, setting: str) -> Float[np.ndarray, " known_runs"]:
        """The metric's average of each run with failout left on while testing; of no run if that was not evaluated."""
        failure = with_failout_at_inference(
            self.failure_probability(setting), np.asarray(self.cells[cell].failout_rate, np.float64)
        )
        known = self.combinations.left_out(failure) <= max(map(self.left_out, self.failure_settings))
        return self.average_at(cell, failure)[: None if known else 0]

    def average_at(self, cell: str, failure: Float[np.ndarray, " causes"]) -> Float[np.ndarray, " runs"]:
        """The metric's average of each run under any failure probabilities, in the order of `Graph.causes`."""
        low, high = average_accuracy_bounds(self.values[cell], self.combinations, failure)
        return (low + high) / 2

    def left_out(self, setting: str) -> float:
        """Probability of the failure combinations that were not evaluated."""
        return self.combinations.left_out(self.failure_probability(setting))


def finite(values: Float[np.ndarray, " runs"]) -> Float[np.ndarray, " finite_runs"]:
    """Values of the runs that did not diverge."""
    return values[np.isfinite(values)]


def mean(values: Float[np.ndarray, " runs"]) -> float:
    """Mean over the runs that did not diverge; NaN if none is left."""
    kept = finite(values)
    return float(kept.mean()) if len(kept) else float("nan")


def sample_deviation(values: Float[np.ndarray, " runs"]) -> float:
    """Sample standard deviation (n-1) over the runs that did not diverge; NaN for fewer than two."""
    kept = finite(values)
    return float(kept.std(ddof=1)) if len(kept) > 1 else float("nan")


Column = str | Mapping[str, str]  # the name of a cell, or of a cell for each failure setting


def cell_of(column: Column, setting: str) -> str | None:
    """The cell that stands in a column for a failure setting, if there is one."""
    return column if isinstance(column, str) else column.get(setting)
