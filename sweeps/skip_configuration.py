"""Fig. 6: every subset of the skip hyperconnections."""

import itertools
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.graph import Graph
from resilinet_jax.plots import averages, grouped_bars, new_figure
from resilinet_jax.results import Results, Table, percent

PRESENT, REMOVED = "●", "·"


def configurations(graph: Graph) -> list[tuple[str, ...]]:
    """Subsets of the skips' labels in the paper's order: by size, the skips nearest to the cloud first."""
    labels = [graph.skip_label(skip) for skip in reversed(graph.skips)]
    return [chosen for size in range(len(labels) + 1) for chosen in itertools.combinations(labels, size)]


def cell_name(chosen: Sequence[str]) -> str:
    """`skips_none`, `skips_n2+i`, ..."""
    return f"skips_{'+'.join(chosen) or 'none'}"


def cells(build: CellBuilder) -> dict[str, Cell]:
    """A removed skip is absent in training and at inference."""
    return {cell_name(chosen): build("resilinet", skips=chosen) for chosen in configurations(build.graph)}


def tables(results: Results) -> list[Table]:
    """Fig. 6's numbers beside the skips that are present."""
    labels = [results.graph.skip_label(skip) for skip in results.graph.skips]
    rows = [
        [str(number), *(PRESENT if label in chosen else REMOVED for label in labels)]
        + [percent(results.average(cell_name(chosen), setting)) for setting in results.failure_settings]
        for number, chosen in enumerate(configurations(results.graph), 1)
    ]
    columns = ["Config", *labels, *(setting.capitalize() for setting in results.failure_settings)]
    return [Table("Average accuracy (%) by the skips that are present", columns, rows)]


def figure(results: Results) -> Figure:
    """Bars per configuration, and beside them the table of present skips."""
    configs = configurations(results.graph)
    drawn, (ax, side) = new_figure(panels=2, width=9, height=3.8, widths=(4, 1.3))
    series = {
        setting.capitalize(): averages(results, [cell_name(chosen) for chosen in configs], setting)
        for setting in results.failure_settings
    }
    numbers = [str(number) for number in range(1, len(configs) + 1)]
    grouped_bars(ax, numbers, series, legend_columns=4)
    ax.set_xlabel("config")
    ax.set_ylabel("average accuracy (%)")
    labels = [results.graph.skip_label(skip) for skip in results.graph.skips]
    marks = [[PRESENT if label in chosen else "" for label in labels] for chosen in configs]
    side.axis("off")
    table = side.table(
        [[number, *row] for number, row in zip(numbers, marks)],
        colLabels=["Config", *labels],
        cellLoc="center",
        bbox=Bbox.unit(),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    return drawn
