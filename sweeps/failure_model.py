"""Beyond the paper: failout from right and wrong models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.failures.model import FailureModel
from resilinet_jax.network.graph import Graph
from resilinet_jax.report.figures import setting_bars
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, setting_table
from resilinet_jax.results.comparisons import Comparison, against
from resilinet_jax.results.results import Column, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {"Matched": "matched_{}", "Independent": "independent_{}", "Alike": "alike_{}", "Default": "default"}


def models(graph: Graph, probability: dict[str, float]) -> dict[str, dict[str, float]]:
    """Failout rates for a failure setting: as it is, without what fails together, and without who fails more often.

    `Independent` fails each node and link as often, but never one because another does; it is `Matched` where no
    groups fail. `Alike` fails all of them equally often.
    """
    alone = FailureModel(graph).marginals(probability)
    mean = sum(alone.values()) / len(alone)
    return {"Matched": probability, "Independent": alone, "Alike": dict.fromkeys(alone, mean)}


def cells(build: CellBuilder) -> dict[str, Cell]:
    """Each model for each failure setting in which anything fails, and the default rate of every node."""
    made = {
        LABELS[label].format(setting.replace(" ", "_")): build("resilinet", failout_rate=rates)
        for setting, probability in build.failure_settings.items()
        if any(probability.values())
        for label, rates in models(build.graph, dict(probability)).items()
    }
    return made | {"default": build("resilinet")}


def tables(results: Results) -> list[Table]:
    """Each model where its failure setting holds."""
    return [
        setting_table(f"Average {results.told_by.name} (%) by what failout is drawn from", results, columns(results))
    ]


def columns(results: Results) -> dict[str, Column]:
    """The cell of each model under each failure setting."""
    made: dict[str, Column] = {}
    for label, name in LABELS.items():
        by_setting = {setting: name.format(setting.replace(" ", "_")) for setting in results.failure_settings}
        made[label] = {setting: cell for setting, cell in by_setting.items() if cell in results.cells}
    return made


def comparisons(results: Results) -> list[Comparison]:
    """The right model against the others."""
    (first, reference), *others = columns(results).items()
    return against(results, "failout", (first.lower(), reference), {label.lower(): cell for label, cell in others})


def figure(results: Results) -> Figure:
    """Bars by failure setting."""
    return setting_bars(results, columns(results))


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons)
