"""Table 2: vanilla, DFG, ResiliNet while nodes fail."""

from matplotlib.figure import Figure

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.failout import combination_name
from resilinet_jax.plots import grouped_bars, new_figure
from resilinet_jax.results import Results, Table, percent

METHODS = {"ResiliNet": "resilinet", "DFG": "dfg", "Vanilla": "vanilla"}
SETTING = "normal"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """The three methods."""
    return {method: build(method) for method in METHODS.values()}


def tables(results: Results) -> list[Table]:
    """Every failure combination with its probability."""
    probabilities = dict(zip(results.failing_sets, results.combination_probability(SETTING)))
    rows = [
        [
            ", ".join(failing) or "None",
            _percent_of(probabilities[failing]),
            *(percent(results.under(cell, failing)) for cell in METHODS.values()),
        ]
        for failing in results.shown_sets(SETTING)
    ]
    return [
        Table("Accuracy (%) while nodes fail", ["Failing nodes", f"Prob. (%), {SETTING}", *METHODS], rows),
    ]


def figure(results: Results) -> Figure:
    """The same as bars."""
    drawn, (ax,) = new_figure(width=8)
    shown = results.shown_sets(SETTING)
    series = {label: [results.under(cell, failing) for failing in shown] for label, cell in METHODS.items()}
    grouped_bars(ax, [combination_name(failing).replace("+", "+\n") for failing in shown], series)
    ax.set_xlabel("failing nodes")
    return drawn


def _percent_of(probability: float) -> str:
    return f"{100 * probability:.2f}" if probability >= 0.0001 else f"{100 * probability:.1g}"
