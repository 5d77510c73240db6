"""Fig. 6: every subset of the skip hyperconnections."""

import itertools
from collections.abc import Sequence

from matplotlib.figure import Figure

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.comparisons import Comparison, against
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


def comparisons(results: Results) -> list[Comparison]:
    """All skips against fewer."""
    names = {
        f"{number} ({'+'.join(chosen) or 'no skip'})": cell_name(chosen)
        for number, chosen in enumerate(configurations(results.graph), 1)
    }
    *others, last = names.items()
    return against(results, "config", last, dict(others))


def figure(results: Results) -> Figure:
    """Bars per configuration over a table of the skips that are present."""
    configs = configurations(results.graph)
    labels = [results.graph.skip_label(skip) for skip in results.graph.skips]
    drawn, (ax, below) = new_figure(height=3.4 + 0.2 * len(labels), stacked=(3, 0.2 * len(labels)))
    series = {
        setting.capitalize(): averages(results, [cell_name(chosen) for chosen in configs], setting)
        for setting in results.failure_settings
    }
    grouped_bars(ax, [str(number) for number, _ in enumerate(configs, 1)], series, legend_columns=4)
    ax.set_ylabel("average accuracy (%)")
    places = [(x, y, label in chosen) for x, chosen in enumerate(configs) for y, label in enumerate(labels)]
    for there, size in ((True, 40), (False, 2)):
        marked = [(x, y) for x, y, present in places if present == there]
        below.scatter([x for x, _ in marked], [y for _, y in marked], s=size, color="black")
    below.set_yticks(range(len(labels)), labels)
    below.set_ylim(len(labels) - 0.5, -0.5)
    below.grid(visible=False)
    below.set_xlabel("config; a dot marks a skip that is present")
    return drawn
