"""Beyond the paper: each method at its best learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.report.figures import Drawn, lines, new_figure, setting_bars, shared_legend
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent, setting_table
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Results, mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {"ResiliNet": "resilinet", "ResiliNet, add": "resilinet_add", "DFG": "dfg", "Vanilla": "vanilla"}
FACTORS = (0.3, 1.0, 3.0, 10.0)  # on the scenario's learning rate


def cell_name(method: str, factor: float) -> str:
    """`dfg_rate_x0.3`, ..."""
    return f"{method}_rate_x{factor:g}"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Every method at every learning rate, all with the same runs and epochs."""
    return {
        cell_name(method, factor): build(method, learning_rate=factor * build.learning_rate)
        for method in METHODS.values()
        for factor in FACTORS
    }


def validation_score(results: Results, cell: str) -> Float[np.ndarray, " runs"]:
    """Validation score of each run's epoch that counts, the best or the last one; NaN where it diverged."""
    measured = results.measured[cell]
    counting = measured.validation_score[:, -1 if results.select_by == "last" else 0 :]
    highest = np.fmax.reduce(counting, axis=-1, initial=np.nan)
    return np.where(np.isnan(measured.score).any(axis=-1), np.nan, highest)


def choose(results: Results, method: str) -> float:
    """The factor on the learning rate with the highest mean validation score, where the fewest runs diverged.

    The smaller one of equals. Test accuracies have no part in it.
    """

    def merit(factor: float) -> tuple[int, float]:
        score = validation_score(results, cell_name(method, factor))
        return -int(np.isnan(score).sum()), mean(score) if np.isfinite(score).any() else 0.0

    return max(FACTORS, key=merit)  # the first of equals


def chosen_cells(results: Results) -> dict[str, str]:
    """Each method's cell at the learning rate chosen for it."""
    return {label: cell_name(method, choose(results, method)) for label, method in METHODS.items()}


def tables(results: Results) -> list[Table]:
    """The methods at their own rates; and every rate with the validation score by which it was chosen or not."""
    chosen = chosen_cells(results)
    settings = list(results.failure_settings)
    rows = [
        [
            label,
            _rate(results, cell) + (" (chosen)" if cell == chosen[label] else ""),
            percent(validation_score(results, cell)),
            *(percent(results.average(cell, setting)) for setting in settings),
        ]
        for label, method in METHODS.items()
        for cell in (cell_name(method, factor) for factor in FACTORS)
    ]
    return [
        setting_table(
            f"Average {results.told_by.name} (%) of each method at the learning rate chosen for it", results, chosen
        ),
        Table(
            f"Validation {results.score_name} (%), which chooses, and average {results.told_by.name} (%) by rate",
            ["Method", "Learning rate", "Validation", *(setting.capitalize() for setting in settings)],
            rows,
            names=2,
        ),
    ]


def _rate(results: Results, cell: str) -> str:
    return f"{float(results.cells[cell].learning_rate):.3g}"


def comparisons(results: Results) -> list[Comparison]:
    """ResiliNet against the others, each at the rate chosen for it."""
    (first, reference), *others = chosen_cells(results).items()
    return against(results, "tuned", (first, reference), dict(others))


def sentences(results: Results) -> list[str]:
    """The rate chosen for each method, and whether a better one may lie beyond the grid."""
    said = []
    for label, method in METHODS.items():
        factor = choose(results, method)
        cell = cell_name(method, factor)
        score = validation_score(results, cell)
        if not np.isfinite(score).any():
            said.append(f"{label} has no learning rate of its own: every run diverged, or none tells its epochs")
            continue
        rate = f"{_rate(results, cell)}, {factor:g} times the scenario's"
        said.append(f"{label} is given the learning rate {rate}, for {percent(score)} % in validation")
        if factor in (FACTORS[0], FACTORS[-1]):
            end, beyond = ("smallest", "smaller") if factor == FACTORS[0] else ("largest", "larger")
            said.append(f"That is the {end} rate tried for {label}; a {beyond} one may suit it better")
    return said


def figure(results: Results) -> Figure:
    """The methods at their own rates, by failure setting."""
    return setting_bars(results, chosen_cells(results), 4)


def more_figures(results: Results) -> list[Drawn]:
    """Validation scores over the rate, by which it is chosen."""
    drawn, (ax,) = new_figure()
    places = range(len(FACTORS))
    series = {
        label: [validation_score(results, cell_name(method, factor)) for factor in FACTORS]
        for label, method in METHODS.items()
    }
    lines(ax, places, series, "learning rate")
    ax.set_xticks(places, [_rate(results, cell_name("resilinet", factor)) for factor in FACTORS])
    ax.set_ylabel(f"validation {results.score_name} (%)")
    shared_legend(drawn, ax)
    epoch = "last" if results.select_by == "last" else "best"
    caption = f"Validation {results.score_name} of the {epoch} epoch at each learning rate tried."
    return [Drawn("learning_rates", caption, drawn)]


SWEEP = Sweep(
    cells=cells,
    tables=tables,
    figure=figure,
    comparisons=comparisons,
    sentences=sentences,
    more_figures=more_figures,
)
