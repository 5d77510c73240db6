"""What a sweep is made of: its cells, and what is read off their results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.errors import UserError
from resilinet_jax.report.figures import Drawn
from resilinet_jax.report.tables import Table
from resilinet_jax.results.comparisons import Comparison
from resilinet_jax.results.results import Results
from resilinet_jax.runtime.user_code import UserFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _nothing(results: Results) -> list[Any]:
    del results
    return []


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A family of cells, with the tables and figures that are made of their results.

    Accuracies may be reported under more failure settings than the cells were made for: a user's own.

    Attributes:
      cells: the cells by name, made with a `CellBuilder`.
      tables: the paper's table, and what else belongs to it.
      figure: the paper's figure.
      comparisons: pairs of cells, made with `resilinet_jax.against`.
      sentences: to quote, without a full stop.
      more_figures: those that stand beside the paper's.
      network: further arguments of the scenario's `build_network`, for a network that other sweeps don't need.
      title: what it is about, in a line. Set by whoever loads it, from its file's docstring.
      file: the user's file that it is from; None for the project's own. Set by whoever loads it.
    """

    cells: Callable[[CellBuilder], Mapping[str, Cell]]
    tables: Callable[[Results], Sequence[Table]]
    figure: Callable[[Results], Figure]
    comparisons: Callable[[Results], Sequence[Comparison]] = _nothing
    sentences: Callable[[Results], Sequence[str]] = _nothing
    more_figures: Callable[[Results], Sequence[Drawn]] = _nothing
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    title: str = dataclasses.field(default="", metadata={"given": False})
    file: UserFile | None = dataclasses.field(default=None, metadata={"given": False})

    def __post_init__(self) -> None:
        """Refuses what can't be called.

        Raises:
          UserError: naming the field.
        """
        for field in ("cells", "tables", "figure", "comparisons", "sentences", "more_figures"):
            if not callable(getattr(self, field)):
                got = getattr(self, field)
                raise UserError(f"Sweep.{field} must be a function, given by its name without (), got {got!r}")
        if not isinstance(self.network, Mapping):
            raise UserError(f'Sweep.network must be as {{"skip_units": 64}}, got {self.network!r}')
