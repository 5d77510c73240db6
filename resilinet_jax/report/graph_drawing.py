"""A graph drawn as an arc diagram in SVG: any graph, one node a row, from the source down to the cloud.

Simple hyperconnections are solid (straight between neighbouring rows, else arcs on the right), skips are dashed arcs
on the left with their labels; beside each node stands its failure probability under each failure setting, and below
them what else may fail: links, and groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resilinet_jax.network.graph import Graph, Hyperconnection
from resilinet_jax.report.markup import Markup, tag

ROW = 58  # pixels between two nodes
BOX = 28  # a node's height
LINE_OF_TEXT = 24  # pixels between what else may fail
LETTER = 8  # a letter's width at most, at the font size used
MARGIN = 8
LANE = 24  # between arcs without labels
LINE = {"fill": "none", "stroke": "#000", "stroke_width": "1.5", "marker_end": "url(#arrow)"}
HALO = {"text_anchor": "start", "font_size": "13", "stroke": "#fff", "stroke_width": "3", "paint_order": "stroke"}


# What a page says around a drawing, and a file has to say itself.
ALONE = {"xmlns": "http://www.w3.org/2000/svg", "font_family": "system-ui, sans-serif"}


def draw_graph(graph: Graph, failure_settings: Mapping[str, Mapping[str, float]], alone: bool = False) -> Markup:
    """The drawing, with a description for those who can't see it.

    Args:
      graph: of any size.
      failure_settings: by name, failure probability by node name; those in which nothing fails are left out.
      alone: for a file of its own, on white; else for a page.
    """
    settings = {name: failure for name, failure in failure_settings.items() if any(failure.values())}
    row = {node: 30 + ROW * number + BOX // 2 for number, node in enumerate(graph.order)}
    far = [edge for edge in graph.hyperconnections if not edge.is_skip and not _neighbours(graph, edge)]
    skips, others = _lanes(graph, graph.skips), _lanes(graph, far)
    reach = _reach(skips)
    more = {name: f"{name}: {', '.join(failing)}" for name, failing in graph.groups} | {
        name: f"link {name.replace('->', '→')}" for name in graph.links
    }
    below = {name: row[graph.cloud] + BOX + LINE_OF_TEXT * number + 12 for number, name in enumerate(more)}
    box = max(48, (LETTER + 1) * max(map(len, graph.order)) + 12)
    lanes = LANE * (max(others.values(), default=-1) + 1)
    # What stands below ends where the columns begin.
    left = max(
        2 * MARGIN + max(reach.values(), default=0), LETTER * max(map(len, more.values()), default=0) - box - lanes
    )
    right = left + box
    column = right + 2 * MARGIN + lanes
    columns, end = _failure_columns(graph, settings, row | below, column)
    width = end + MARGIN
    height = max(row[graph.cloud] + BOX // 2, *below.values(), 0) + MARGIN

    arcs = [_arc(edge, row, left, left - distance) for edge, distance in reach.items()]
    arcs += [_arc(edge, row, right, right + LANE * (lane + 1)) for edge, lane in others.items()]
    straight = [
        _straight(edge, row, (left + right) / 2)
        for edge in graph.hyperconnections
        if edge not in reach and edge not in others
    ]
    labels = [  # last, so that no arc crosses them
        _text(_label(skip), left - distance + 6, (row[skip.source] + row[skip.target]) / 2 + 4, **HALO)
        for skip, distance in reach.items()
    ]
    columns += [_text(told, column - MARGIN, below[name] + 5, text_anchor="end") for name, told in more.items()]
    return tag(
        "svg",
        tag("title", describe_graph(graph, settings)),
        *([tag("rect", width="100%", height="100%", fill="#fff")] if alone else []),
        _arrow_head(),
        *straight,
        *arcs,
        *(box for node, y in row.items() for box in _box(node, y, left, right)),
        *labels,
        *columns,
        role="img",
        viewBox=f"0 0 {width:g} {height:g}",
        style=f"width:{width:g}px;min-width:{0.75 * width:g}px",
        font_size="14",
        **(ALONE if alone else {}),
    )


def describe_graph(graph: Graph, failure_settings: Mapping[str, Mapping[str, float]]) -> str:
    """What the drawing shows, in words."""
    simple = ", ".join(_label(edge) for edge in graph.hyperconnections if not edge.is_skip)
    skips = ", ".join(f"{_label(skip)} around {' and '.join(skip.bypassed)}" for skip in graph.skips)
    failures = "; ".join(
        f"{name}: " + ", ".join(f"{node} {_chance(graph, node, failure)}" for node in graph.causes)
        for name, failure in failure_settings.items()
    )
    return f"Simple hyperconnections: {simple}. Skips: {skips or 'none'}. Failure probabilities: {failures or 'none'}."


def _failure_columns(
    graph: Graph, settings: Mapping[str, Mapping[str, float]], places: Mapping[str, int], start: float
) -> tuple[list[Markup], float]:
    """A column for each failure setting, beside what may fail; and where they end."""
    columns = []
    for name, failure in settings.items():
        width = LETTER * max(len(name), 5) + 10
        middle = start + width / 2
        columns.append(_text(name, middle, 16))
        columns += [_text(_chance(graph, cause, failure), middle, y + 5) for cause, y in places.items()]
        start += width
    return columns, start


def _chance(graph: Graph, cause: str, failure: Mapping[str, float]) -> str:
    return f"{100 * failure.get(cause, 0.0):g} %" if cause in graph.causes else "never"


def _label(edge: Hyperconnection) -> str:
    return f"{edge.source}→{edge.target}"


def _neighbours(graph: Graph, edge: Hyperconnection) -> bool:
    return graph.order.index(edge.target) - graph.order.index(edge.source) == 1


def _lanes(graph: Graph, edges: Sequence[Hyperconnection]) -> dict[Hyperconnection, int]:
    """A lane for each arc, the innermost first, so that arcs which pass the same row have lanes of their own."""
    ends = {edge: (graph.order.index(edge.source), graph.order.index(edge.target)) for edge in edges}
    lanes: dict[Hyperconnection, int] = {}
    for edge, (first, last) in sorted(ends.items(), key=lambda item: (item[1][1] - item[1][0], item[1])):
        taken = {lane for other, lane in lanes.items() if ends[other][0] < last and first < ends[other][1]}
        lanes[edge] = next(lane for lane in range(len(edges)) if lane not in taken)
    return lanes


def _arrow_head() -> Markup:
    head = tag("path", d="M0 0L8 4L0 8z")
    size = {"markerWidth": "8", "markerHeight": "8", "refX": "7", "refY": "4"}
    return tag("defs", tag("marker", head, id="arrow", orient="auto", markerUnits="userSpaceOnUse", **size))


def _reach(lanes: Mapping[Hyperconnection, int]) -> dict[Hyperconnection, int]:
    """How far from the boxes each arc bulges, so that every lane has room for its labels."""
    widths = [0] * (max(lanes.values(), default=-1) + 1)
    for edge, lane in lanes.items():
        widths[lane] = max(widths[lane], LETTER * len(_label(edge)) + 2 * MARGIN)
    return {edge: sum(widths[: lane + 1]) for edge, lane in lanes.items()}


def _straight(edge: Hyperconnection, row: Mapping[str, int], x: float) -> Markup:
    """A straight arrow from the bottom of the sender's box to the top of the receiver's."""
    return tag("path", d=f"M{x:g} {row[edge.source] + BOX / 2:g}V{row[edge.target] - BOX / 2 - 1:g}", **LINE)


def _arc(edge: Hyperconnection, row: Mapping[str, int], side: float, apex: float) -> Markup:
    """Leaves a box's side below its middle and comes in above the other's; bulges as far as `apex`."""
    start, end = row[edge.source] + 7, row[edge.target] - 7
    control = side + (apex - side) * 4 / 3
    path = f"M{side:g} {start}C{control:g} {start} {control:g} {end} {side:g} {end}"
    return tag("path", d=path, **LINE, **({"stroke_dasharray": "5 4"} if edge.is_skip else {}))


def _box(node: str, y: float, left: float, right: float) -> tuple[Markup, Markup]:
    place = {"x": f"{left:g}", "y": f"{y - BOX / 2:g}", "width": f"{right - left:g}", "height": f"{BOX}"}
    box = tag("rect", **place, rx="5", fill="#fff", stroke="#000", stroke_width="1.5")
    return box, _text(node, (left + right) / 2, y + 5, font_weight="bold")


def _text(text: str, x: float, y: float, **attributes: str) -> Markup:
    return tag("text", text, **{"x": f"{x:g}", "y": f"{y:g}", "text_anchor": "middle", **attributes})
