"""How long the epochs of a pass take, by the engine's own reports of progress."""

from __future__ import annotations

import statistics
import time
from typing import Any

from resilinet_jax.runtime.progress import Progress


class Clock(Progress):
    """Notes when each epoch ended, before its checkpoint, and prints nothing."""

    def __init__(self) -> None:
        """Before any pass."""
        super().__init__(quiet=True)
        self._ends: list[float] = []

    def resumed(self, epochs: int, **told: Any) -> None:
        """A pass begins."""
        super().resumed(epochs, **told)
        self._ends.clear()

    def epoch(self, number: int, **told: Any) -> None:
        """One more epoch has ended."""
        super().epoch(number, **told)
        self._ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Of an epoch of the last pass: the median, the first left out."""
        return statistics.median(b - a for a, b in zip(self._ends, self._ends[1:]))
