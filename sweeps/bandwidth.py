"""Beyond the paper: accuracy against bytes per inference.

One training serves select and add, so that two such cells differ in nothing but what is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from resilinet_jax.cells import Cell, CellBuilder
from resilinet_jax.network.graph import Graph
from resilinet_jax.report.figures import new_figure, scatter, shared_legend
from resilinet_jax.report.sweep import Sweep
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.comparisons import Comparison, against, under_setting
from resilinet_jax.results.messages import expected_messages, hyperconnection_bytes, pareto_front
from resilinet_jax.results.results import Results, mean

from .skip_activity import AT_INFERENCE
from .skip_configuration import configurations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_SKIPS = "no skips"  # in place of what skips do at inference
ON_FRONT, NOTHING = "●", "·"
LETTERS, ROOM = 8, np.array([0.22, 0.08])  # of a name on the front, and the share of a panel that it takes


class Variant(NamedTuple):
    """The labels of the skips that are present, and what they do at inference."""

    skips: tuple[str, ...]
    inference: str

    @property
    def told(self) -> str:
        """`n2+n1+i`, or `none`."""
        return "+".join(self.skips) or "none"

    @property
    def cell(self) -> str:
        """`skips_n2+i_select`, ..., and `skips_none`."""
        return f"skips_{self.told}" + (f"_{self.inference}" if self.skips else "")


def variants(graph: Graph) -> list[Variant]:
    """Every subset of the skips with select and with add; the empty one, which knows no difference, once."""
    some = [skips for skips in configurations(graph) if skips]
    return [Variant((), NO_SKIPS), *(Variant(skips, inference) for skips in some for inference in AT_INFERENCE)]


def cells(build: CellBuilder) -> dict[str, Cell]:
    """A removed skip is absent in training and at inference; one training serves select and add."""
    return {
        each.cell: build("resilinet", skips=each.skips, inference_activity=AT_INFERENCE.get(each.inference, 0))
        for each in variants(build.graph)
    }


class Expected(NamedTuple):
    """Messages or bytes per inference; the half width is of the interval that they lie in, mostly 0."""

    middle: float
    half_width: float

    def told(self, digits: int = 0) -> str:
        """Text for people, e.g. `1,234 ± 5`; the interval only where there is one."""
        around = f" ± {self.half_width:,.{digits}f}" if self.half_width else ""
        return f"{self.middle:,.{digits}f}{around}"


def expected(results: Results, cell: str, setting: str, worth: Float[np.ndarray, " hyperconnections"]) -> Expected:
    """Expected messages or bytes per inference, summed over the hyperconnections.

    Args:
      results: of this sweep.
      cell: its name.
      setting: name of the failure setting.
      worth: of a message over each hyperconnection: 1 to count messages, its size to count bytes, 0 to leave it out.
    """
    low, high = expected_messages(results.combinations, results.cells[cell], results.failure_probability(setting))
    return Expected(float((low + high) @ worth) / 2, float((high - low) @ worth) / 2)


def bytes_of(results: Results, cell: str, setting: str) -> Expected:
    """Expected bytes per inference over all hyperconnections together.

    Args:
      results: of this sweep.
      cell: its name.
      setting: name of the failure setting.
    """
    return expected(results, cell, setting, hyperconnection_bytes(results.graph, results.message_bytes))


def front(results: Results, setting: str) -> Bool[np.ndarray, " variants"]:
    """Whether each of `variants` is on the Pareto front of the metric's mean average and expected bytes."""
    names = [each.cell for each in variants(results.graph)]
    cost = np.array([bytes_of(results, name, setting).middle for name in names])
    return pareto_front(cost, np.array([mean(results.average(name, setting)) for name in names]))


def tables(results: Results) -> list[Table]:
    """The metric beside messages and bytes under each failure setting; then the bytes of each hyperconnection."""
    everything = [each for each in variants(results.graph) if each.skips == configurations(results.graph)[-1]]
    return [
        *(_trade_off(results, setting) for setting in results.failure_settings),
        *(_by_hyperconnection(results, each) for each in everything),
    ]


def _trade_off(results: Results, setting: str) -> Table:
    one_each = np.ones(len(results.graph.hyperconnections))
    rows = [
        [
            each.told,
            each.inference if each.skips else NOTHING,
            expected(results, each.cell, setting, one_each).told(2),
            bytes_of(results, each.cell, setting).told(),
            percent(results.average(each.cell, setting)),
            ON_FRONT if on_front else NOTHING,
        ]
        for each, on_front in zip(variants(results.graph), front(results, setting))
    ]
    columns = ["Skips", "At inference", "Messages", "Bytes", f"{results.told_by.title} (%)", "Pareto front"]
    title = f"Cost of an inference and average {results.told_by.name} {under_setting(results, setting)}"
    return Table(title, columns, rows, names=2)


def _by_hyperconnection(results: Results, variant: Variant) -> Table:
    sizes = hyperconnection_bytes(results.graph, results.message_bytes)
    only = np.diag(sizes)  # the bytes of one hyperconnection in each row
    rows = [
        [edge.name, f"{size:,.0f}"]
        + [expected(results, variant.cell, setting, own).told() for setting in results.failure_settings]
        for edge, size, own in zip(results.graph.hyperconnections, sizes, only)
    ]
    total = [bytes_of(results, variant.cell, setting).told() for setting in results.failure_settings]
    columns = ["From -> to", "A message", *(setting.capitalize() for setting in results.failure_settings)]
    title = f"Expected traffic (bytes) per inference, {variant.inference}" + ", all skips" * bool(variant.skips)
    return Table(title, columns, [*rows, ["All", "", *total]])


def comparisons(results: Results) -> list[Comparison]:
    """Select against add, for each subset of the skips: what the bytes that add costs buy."""
    first, second = AT_INFERENCE
    return [
        comparison
        for skips in configurations(results.graph)
        if skips
        for one, other in ((Variant(skips, first), Variant(skips, second)),)
        for comparison in against(results, f"skips {one.told}:", (first, one.cell), {second: other.cell})
    ]


def figure(results: Results) -> Figure:
    """The metric's average over expected kilobytes with the Pareto front, a panel for each failure setting."""
    settings = list(results.failure_settings)
    rows = -(-len(settings) // 2)
    drawn, axes = new_figure(min(2, len(settings)), height=0.6 + 2.6 * rows, share_y=False, rows=rows)
    for ax, setting in zip(axes, settings):
        _panel(ax, results, setting)
    for ax in axes[len(settings) :]:
        ax.remove()
    shared_legend(drawn, axes[0])
    return drawn


def _panel(ax: Axes, results: Results, setting: str) -> None:
    kilobytes = {each: bytes_of(results, each.cell, setting).middle / 1000 for each in variants(results.graph)}
    kinds = {kind: [each for each in kilobytes if each.inference == kind] for kind in (*AT_INFERENCE, NO_SKIPS)}
    scatter(
        ax,
        {kind: [kilobytes[each] for each in own] for kind, own in kinds.items()},
        {kind: [results.average(each.cell, setting) for each in own] for kind, own in kinds.items()},
        "kilobytes per inference",
        results.told_by.name,
    )
    best = sorted(
        (kilobytes[each], 100 * mean(results.average(each.cell, setting)), each.told)
        for each, on_front in zip(kilobytes, front(results, setting))
        if on_front
    )
    ax.step([x for x, _, _ in best], [y for _, y, _ in best], where="post", color="black", label="Pareto front")
    low, high = ax.get_xlim()
    ax.set_xlim(low - (high - low) / 4, high)
    _name_points(ax, best)
    ax.set_title(setting.capitalize(), fontsize="medium")


def _name_points(ax: Axes, best: Sequence[tuple[float, float, str]]) -> None:
    """Names on the front, but for those that are too long, or too near to another one: they stand in the tables."""
    named: list[np.ndarray] = []
    for x, y, told in best:
        place = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
        if len(told) <= LETTERS and all((abs(place - other) > ROOM).any() for other in named):
            # Nothing lies above and to the left of the front, so there is room, given some beside the axis.
            ax.annotate(told, (x, y), (-5, 1), textcoords="offset points", fontsize="x-small", ha="right", va="bottom")
            named.append(place)


SWEEP = Sweep(cells=cells, tables=tables, figure=figure, comparisons=comparisons)
