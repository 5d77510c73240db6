"""What the runs of a sweep are independent of: each other, or only those on other splits of the data.

Runs on one split share its training and test examples, so they say how much training varies and nothing about other
data. Where a sweep has several splits, the split is the unit: its runs count through their mean.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from jaxtyping import Float

PERSON = "person"
ONLY = "0"  # how a split is called where there is but one


@dataclasses.dataclass(frozen=True)
class Units:
    """The split of the data on which each run was trained and tested.

    Attributes:
      split: label of each run's split, in the order of the runs; empty where all are on one split. Runs on different
        splits must share nothing that training draws, or what they share counts for independent.
      kind: what a split is, in the singular: `person` (whose data are the test split, each person once),
        `random split`, `block split`.
      test_share: test examples / training examples, the mean over the splits.
    """

    split: tuple[str, ...] = ()
    kind: str = "random split"
    test_share: float = 0.0

    def numbered(self, runs: int) -> list[tuple[str, int]]:
        """Split and number of each of so many runs; they count from 0 on each split."""
        seen: collections.Counter[str] = collections.Counter()
        labels = self.split or (ONLY,) * runs
        return [(label, seen.update([label]) or seen[label] - 1) for label in labels]

    @property
    def several(self) -> bool:
        """Whether the split is the unit; else the run is."""
        return len(set(self.split)) > 1

    @property
    def overlap(self) -> float:
        """Share of the variance of a unit's mean that stays however many units there are.

        Re-splits draw the same examples again: by Nadeau and Bengio, test / training examples. People are tested once
        each, and runs on one split differ by what training draws anew.
        """
        return self.test_share if self.several and self.kind != PERSON else 0.0

    def groups(self, values: Float[np.ndarray, " runs"]) -> list[Float[np.ndarray, " finite_runs"]]:
        """Values of each unit's runs that did not diverge; a unit of which all did is left out.

        Raises:
          ValueError: if there are not as many values as labels.
        """
        if len(self.split) not in (0, len(values)):
            raise ValueError(f"expected a value for each of {len(self.split)} runs, got {len(values)}")
        kept = np.isfinite(values)
        if not self.several:
            return list(values[kept].reshape(-1, 1))
        labels = np.array(self.split)
        return [values[kept & (labels == each)] for each in dict.fromkeys(labels[kept].tolist())]

    def named(self, number: int) -> str:
        """So many units in words: `1 run`, `8 people`, `10 random splits`."""
        return f"{number:,} {self.noun if number == 1 else self.plural}"

    @property
    def noun(self) -> str:
        """One unit: `run`, `person`, `random split`."""
        return self.kind if self.several else "run"

    @property
    def plural(self) -> str:
        """Several units: `runs`, `people`, `random splits`."""
        return "people" if self.noun == PERSON else f"{self.noun}s"

    @property
    def covers(self) -> str:
        """What an interval covers, and what it doesn't."""
        if not self.several:
            return "training runs on this one split of the data, not other splits or other people"
        if self.kind == PERSON:
            return "other people to be tested, with networks trained on these people, not on others"
        return "other data of the same kind and size, split in the same way"

    def runs(self, total: int) -> str:
        """What a mean over the runs is over: `5 runs`, `40 runs on 8 people`.

        Args:
          total: number of runs.
        """
        runs = f"{total} {'run' if total == 1 else 'runs'}"
        return f"{runs} on {self.named(len(set(self.split)))}" if self.several else runs
