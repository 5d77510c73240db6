"""A graph drawn as an arc diagram in SVG: any graph, one node a row, from the source down to the cloud.

Simple hyperconnections are solid (straight between neighbouring rows, else arcs on the right), skips are dashed arcs
on the left with their labels; beside each node stands its failure probability under each failure setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resilinet_jax.graph import Graph, Hyperconnection
from resilinet_jax.markup import Markup, tag

ROW = 58  # pixels between two nodes
BOX = 28  # a node's height
LETTER = 8  # a letter's width at most, at the font size used
MARGIN = 8
LINE = {"fill": "none", "stroke": "#000", "stroke_width": "1.5", "marker_end": "url(#arrow)"}


def draw_graph(graph: Graph, failure_settings: Mapping[str, Mapping[str, float]]) -> Markup:
    """The drawing, with a description for those who can't see it.

    Args:
      graph: of any size.
      failure_settings: by name, failure probability by node name; those in which nothing fails are left out.
    """
    settings = {name: failure for name, failure in failure_settings.items() if any(failure.values())}
    row = {node: 30 + ROW * number + BOX // 2 for number, node in enumerate(graph.order)}
    far = [edge for edge in graph.hyperconnections if not edge.is_skip and not _neighbours(graph, edge)]
    left, right = _lanes(graph, graph.skips), _lanes(graph, far)
    labels = [LETTER * len(_label(edge)) for edge in graph.skips]
    lane = max([30, *labels]) + 2 * MARGIN
    box = max(48, LETTER * max(map(len, graph.order)) + 12)
    box_left = MARGIN + (lane * (max(left.values(), default=-1) + 1) + 12 if left else 0)
    box_right = box_left + box
    column_left = box_right + 16 + 24 * (max(right.values(), default=-1) + 1)
    widths = [LETTER * max(len(name), 5) + 10 for name in settings]
    width, height = column_left + sum(widths) + MARGIN, row[graph.cloud] + BOX // 2 + MARGIN

    middle = box_left + box / 2
    parts = [_arrow_head()]
    for edge in graph.hyperconnections:
        start, end = row[edge.source], row[edge.target]
        if edge.is_skip:
            apex = box_left - lane * (left[edge] + 1)
            parts += [_arc(box_left, start, end, apex, dashed=True), _arc_label(_label(edge), apex, (start + end) / 2)]
        elif edge in right:
            parts.append(_arc(box_right, start, end, box_right + 24 * (right[edge] + 1), dashed=False))
        else:
            parts.append(tag("path", d=f"M{middle:g} {start + BOX / 2:g}V{end - BOX / 2 - 1:g}", **LINE))
    for node, y in row.items():
        parts.append(
            tag("rect", x=f"{box_left:g}", y=f"{y - BOX / 2:g}", width=f"{box:g}", height=f"{BOX}", rx="5",
                fill="#fff", stroke="#000", stroke_width="1.5")
        )  # fmt: skip
        parts.append(_text(node, middle, y + 5, bold=True))
    for number, (name, failure) in enumerate(settings.items()):
        x = column_left + sum(widths[:number]) + widths[number] / 2
        parts.append(_text(name, x, 16))
        parts += [_text(_chance(graph, node, failure), x, y + 5) for node, y in row.items()]
    return tag(
        "svg",
        tag("title", describe_graph(graph, settings)),
        *parts,
        role="img",
        viewBox=f"0 0 {width:g} {height:g}",
        style=f"width:{width:g}px",
        font_size="14",
    )


def describe_graph(graph: Graph, failure_settings: Mapping[str, Mapping[str, float]]) -> str:
    """What the drawing shows, in words."""
    simple = ", ".join(_label(edge) for edge in graph.hyperconnections if not edge.is_skip)
    skips = ", ".join(f"{_label(skip)} around {' and '.join(skip.bypassed)}" for skip in graph.skips)
    failures = "; ".join(
        f"{name}: " + ", ".join(f"{node} {_chance(graph, node, failure)}" for node in graph.fallible)
        for name, failure in failure_settings.items()
    )
    return f"Simple hyperconnections: {simple}. Skips: {skips or 'none'}. Failure probabilities: {failures or 'none'}."


def _chance(graph: Graph, node: str, failure: Mapping[str, float]) -> str:
    return f"{100 * failure.get(node, 0.0):g} %" if node in graph.fallible else "never"


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


def _arc(side: float, start: float, end: float, apex: float, dashed: bool) -> Markup:
    """Leaves a box's side below its middle and comes in above the other's; bulges as far as `apex`."""
    control = side + (apex - side) * 4 / 3
    path = f"M{side:g} {start + 7:g}C{control:g} {start + 7:g} {control:g} {end - 7:g} {side:g} {end - 7:g}"
    return tag("path", d=path, **LINE, **({"stroke_dasharray": "5 4"} if dashed else {}))


def _arc_label(text: str, x: float, y: float) -> Markup:
    return tag(
        "text",
        text,
        x=f"{x + 6:g}",
        y=f"{y + 4:g}",
        font_size="13",
        stroke="#fff",
        stroke_width="5",
        paint_order="stroke",
        text_anchor="start",
    )


def _text(text: str, x: float, y: float, bold: bool = False) -> Markup:
    weight = {"font_weight": "bold"} if bold else {}
    return tag("text", text, x=f"{x:g}", y=f"{y:g}", text_anchor="middle", **weight)
