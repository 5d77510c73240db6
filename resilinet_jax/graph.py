"""The graph of physical nodes and hyperconnections. No arrays, no JAX.

This is where *the* node order is defined: data-flow order, source first, cloud last. Every per-node
array of the project is built from names through `Graph.node_values`, so no other file needs to know it.
"""

from __future__ import annotations

import dataclasses
import graphlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from resilinet_jax.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class Hyperconnection:
    """A directed link that carries one node's output to another.

    Attributes:
      source: the sending node.
      target: the receiving node.
      bypassed: for a skip, the nodes it jumps over, in data-flow order; empty for a simple one.
    """

    source: str
    target: str
    bypassed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`source->target`."""
        return f"{self.source}->{self.target}"

    @property
    def is_skip(self) -> bool:
        """Whether it bypasses any node."""
        return bool(self.bypassed)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A validated graph; make one with `build_graph`.

    Attributes:
      order: all nodes in data-flow (topological) order: the source first, the cloud last.
      hyperconnections: simple and skip ones, ordered by target, then by source, the simple ones first.
    """

    order: tuple[str, ...]
    hyperconnections: tuple[Hyperconnection, ...]

    @property
    def source(self) -> str:
        """The device that holds the raw input; it never fails."""
        return self.order[0]

    @property
    def cloud(self) -> str:
        """The last node; it never fails."""
        return self.order[-1]

    @property
    def fallible(self) -> tuple[str, ...]:
        """The nodes that may fail, in data-flow order: all but the source and the cloud."""
        return self.order[1:-1]

    @property
    def skips(self) -> tuple[Hyperconnection, ...]:
        """The skip hyperconnections, in data-flow order of their targets."""
        return tuple(edge for edge in self.hyperconnections if edge.is_skip)

    def incoming(self, node: str) -> Iterator[tuple[int, Hyperconnection]]:
        """Hyperconnections into `node`, each with its index in `hyperconnections`."""
        return ((i, edge) for i, edge in enumerate(self.hyperconnections) if edge.target == node)

    def skip_label(self, skip: Hyperconnection) -> str:
        """A skip's short name: its source node (as in the paper's Fig. 6), or `source->target` if that is shared."""
        shared = sum(other.source == skip.source for other in self.skips) > 1
        return skip.name if shared else skip.source

    def select_skips(self, labels: Collection[str] | None) -> frozenset[Hyperconnection]:
        """The skips with these labels; all of them for None.

        Raises:
          UserError: if a label names no skip.
        """
        if labels is None:
            return frozenset(self.skips)
        by_label = {self.skip_label(skip): skip for skip in self.skips}
        for label in labels:
            if label not in by_label:
                raise UserError(f"unknown skip {label!r}{suggest(label, by_label)}")
        return frozenset(by_label[label] for label in labels)

    def bypassed_by(self, skips: Collection[Hyperconnection]) -> frozenset[str]:
        """Nodes that at least one of `skips` bypasses."""
        return frozenset(node for skip in skips for node in skip.bypassed)

    def node_values(self, values: Mapping[str, float], what: str = "value") -> tuple[float, ...]:
        """Probabilities by node name as a tuple in the order of `fallible`; nodes not named get 0.

        Raises:
          UserError: for an unknown node, the source or the cloud, or a value outside [0, 1].
        """
        for node, value in values.items():
            if node not in self.order:
                raise UserError(f"{what}: unknown node {node!r}{suggest(node, self.fallible)}")
            if node not in self.fallible:
                role = "source" if node == self.source else "cloud"
                raise UserError(
                    f"{what}: {node!r} is the {role}, which never fails; name only {', '.join(self.fallible)}"
                )
            if not (isinstance(value, int | float) and 0 <= value <= 1):
                raise UserError(f"{what} of {node!r} must be in [0, 1], got {value!r}")
        return tuple(float(values.get(node, 0.0)) for node in self.fallible)

    def has_path(self, failed: Collection[str], skips: Collection[Hyperconnection] | None = None) -> bool:
        """Whether anything from the source still reaches the cloud.

        Args:
          failed: the nodes that are dead.
          skips: the skips that are present; None for all.
        """
        present = frozenset(self.skips) if skips is None else skips
        reached = {self.source}
        for node in self.order[1:]:
            edges = (edge for _, edge in self.incoming(node) if not edge.is_skip or edge in present)
            if node not in failed and any(edge.source in reached for edge in edges):
                reached.add(node)
        return self.cloud in reached


def build_graph(
    nodes: Sequence[str],
    simple: Sequence[tuple[str, str]],
    skips: Sequence[tuple[str, str] | Hyperconnection] = (),
) -> Graph:
    """Builds and checks a graph: any directed acyclic one with one source and one cloud.

    Args:
      nodes: every node's name; the source first and the cloud last, the others in any order.
      simple: (source, target) of each simple hyperconnection.
      skips: (source, target) of each skip where one simple path joins the two, which it then bypasses; a
        `Hyperconnection` that names the bypassed nodes where the graph leaves a choice.

    Raises:
      UserError: for a cycle, an unknown or duplicate node, a hyperconnection given twice, a skip that bypasses
        nothing or not a path, a node that nothing reaches or that can't reach the cloud, a source that receives
        or a cloud that sends.
    """
    _check_nodes(nodes)
    edges = [Hyperconnection(source, target) for source, target in simple]
    _check_ends(nodes, edges)
    order = _data_flow_order(nodes, edges)
    edges += [_resolve_skip(skip, nodes, edges[: len(simple)]) for skip in skips]
    names = [edge.name for edge in edges]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"hyperconnection {name} is given twice; keep one")
    _check_reachable(order, edges)
    edges.sort(key=lambda edge: (order.index(edge.target), edge.is_skip, order.index(edge.source)))
    return Graph(order, tuple(edges))


def build_chain(nodes: Sequence[str]) -> Graph:
    """A chain of nodes, each joined to the next, with a skip around every fallible node (Fig. 3 of the paper)."""
    return build_graph(nodes, list(itertools.pairwise(nodes)), list(zip(nodes, nodes[2:])))


def _check_nodes(nodes: Sequence[str]) -> None:
    if len(nodes) < 2:
        raise UserError(f"a graph needs a source and a cloud, got nodes {list(nodes)}")
    for node in nodes:
        if not isinstance(node, str) or not node or "+" in node or "->" in node:
            raise UserError(f"a node's name must be text without + and ->, which join names, got {node!r}")
        if nodes.count(node) > 1:
            raise UserError(f"node {node!r} is given twice; node names must be unique")


def _check_ends(nodes: Sequence[str], edges: Sequence[Hyperconnection]) -> None:
    for edge in edges:
        for node in (edge.source, edge.target):
            if node not in nodes:
                raise UserError(f"hyperconnection {edge.name}: unknown node {node!r}{suggest(node, nodes)}")
        if edge.source == edge.target:
            raise UserError(f"hyperconnection {edge.name} is a cycle; it must lead to another node")
        if edge.target == nodes[0]:
            raise UserError(
                f"hyperconnection {edge.name} leads to the source {nodes[0]!r}, which only sends; name the source first"
            )
        if edge.source == nodes[-1]:
            raise UserError(
                f"hyperconnection {edge.name} leaves the cloud {nodes[-1]!r}, which only receives; name the cloud last"
            )


def _data_flow_order(nodes: Sequence[str], edges: Sequence[Hyperconnection]) -> tuple[str, ...]:
    sorter = graphlib.TopologicalSorter({node: [] for node in nodes})
    for edge in edges:
        sorter.add(edge.target, edge.source)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise UserError(
            f"the hyperconnections form a cycle: {' -> '.join(error.args[1])}; data must flow towards the cloud"
        ) from None
    order: list[str] = []
    while sorter.is_active():
        # Among nodes that could come next, keep the caller's order, so that the result is stable.
        ready = sorted(sorter.get_ready(), key=nodes.index)
        order += ready
        sorter.done(*ready)
    # The source receives nothing and the cloud sends nothing, so these places are theirs by right.
    middle = [node for node in order if node not in (nodes[0], nodes[-1])]
    return (nodes[0], *middle, nodes[-1])


def _simple_paths(source: str, target: str, edges: Sequence[Hyperconnection]) -> Iterator[tuple[str, ...]]:
    """Nodes strictly between the ends, of every simple path from source to target."""
    for edge in edges:
        if edge.source == source:
            if edge.target == target:
                yield ()
            else:
                yield from ((edge.target, *rest) for rest in _simple_paths(edge.target, target, edges))


def _resolve_skip(
    skip: tuple[str, str] | Hyperconnection, nodes: Sequence[str], simple: Sequence[Hyperconnection]
) -> Hyperconnection:
    edge = skip if isinstance(skip, Hyperconnection) else Hyperconnection(*skip)
    _check_ends(nodes, [edge])
    if edge.bypassed:
        path = (edge.source, *edge.bypassed, edge.target)
        names = {other.name for other in simple}
        if not all(f"{a}->{b}" in names for a, b in itertools.pairwise(path)):
            raise UserError(f"skip {edge.name}: {' -> '.join(path)} is not a path of simple hyperconnections")
        return edge
    paths = _simple_paths(edge.source, edge.target, simple)
    first, second = next(paths, None), next(paths, None)
    if not first:
        why = "no simple path joins its ends" if first is None else "a simple hyperconnection joins its ends directly"
        raise UserError(f"skip {edge.name} bypasses nothing: {why}")
    if second is not None:
        raise UserError(
            f"skip {edge.name} could bypass {', '.join(first)} or {', '.join(second) or 'nothing'}; "
            "name the bypassed nodes: Hyperconnection(source, target, bypassed=(...))"
        )
    return dataclasses.replace(edge, bypassed=first)


def _check_reachable(order: Sequence[str], edges: Sequence[Hyperconnection]) -> None:
    simple = [edge for edge in edges if not edge.is_skip]
    reached, reaching = {order[0]}, {order[-1]}
    for node in order:
        if any(edge.target == node and edge.source in reached for edge in simple):
            reached.add(node)
    for node in reversed(order):
        if any(edge.source == node and edge.target in reaching for edge in simple):
            reaching.add(node)
    for node in order:
        if node not in reaching:
            raise UserError(f"node {node!r} can't reach the cloud {order[-1]!r}; add a simple hyperconnection from it")
        if node not in reached:
            raise UserError(
                f"nothing from the source {order[0]!r} reaches node {node!r}; add a simple hyperconnection to it"
            )
