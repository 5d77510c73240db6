"""The graph of physical nodes and hyperconnections, and what of it may fail. No arrays, no JAX.

This is where *the* order is defined: nodes in data-flow order, sources first, cloud last; after the nodes that may
fail come the links that may. Every array over them is built from names through `Graph.node_values`, so no other file
needs to know it.
"""

from __future__ import annotations

import dataclasses
import graphlib
import itertools
import numbers
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from resilinet_jax.errors import UserError, check_printable, suggest


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
        """Whether this hyperconnection bypasses any node."""
        return bool(self.bypassed)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A validated graph; make one with `build_graph`.

    Attributes:
      order: all nodes in data-flow (topological) order: the sources first, the cloud last.
      hyperconnections: simple and skip ones, ordered by target, then by source, the simple ones first.
      sources: the devices that hold the raw input. One alone never fails; of several, each may.
      links: names of the hyperconnections that may fail by themselves, in their order.
      groups: what may fail together, by name: nodes and links, as those of a site that loses its power.
    """

    order: tuple[str, ...]
    hyperconnections: tuple[Hyperconnection, ...]
    sources: tuple[str, ...]
    links: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def cloud(self) -> str:
        """The last node; it never fails."""
        return self.order[-1]

    @property
    def fallible(self) -> tuple[str, ...]:
        """What may fail: the nodes, in data-flow order, but for the cloud and an only source; then the links."""
        return (*self.order[len(self.sources) == 1 : -1], *self.links)

    @property
    def causes(self) -> dict[str, tuple[str, ...]]:
        """What makes something fail, independently of each other: each of `fallible` by itself, then the groups.

        By name, what fails. Failure probabilities and failout rates are those of causes.
        """
        return {name: (name,) for name in self.fallible} | dict(self.groups)

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

    def node_values(self, values: Mapping[str, float], what: str = "value") -> tuple[float, ...]:
        """Probabilities by name as a tuple in the order of `causes`; those not named get 0.

        Raises:
          UserError: for an unknown name, an only source or the cloud, or a value outside [0, 1].
        """
        causes = self.causes
        for name, value in values.items():
            if name not in causes and name in self.order:
                role = "cloud" if name == self.cloud else "source"
                raise UserError(f"{what}: {name!r} is the {role}, which never fails; name only {', '.join(causes)}")
            if name not in causes:
                raise UserError(f"{what}: unknown node {name!r}{suggest(name, causes)}")
            if not (isinstance(value, numbers.Real) and 0 <= value <= 1):
                raise UserError(f"{what} of {name!r} must be in [0, 1], got {value!r}")
        return tuple(float(values.get(name, 0.0)) for name in causes)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Graph:
        """The graph of which `dataclasses.asdict` made these data, checked anew; lists may stand for tuples.

        Raises:
          UserError, KeyError, TypeError: for what no graph made.
        """
        edges = [
            Hyperconnection(edge["source"], edge["target"], tuple(edge["bypassed"]))
            for edge in data["hyperconnections"]
        ]
        simple = [(edge.source, edge.target) for edge in edges if not edge.is_skip]
        skips = [edge for edge in edges if edge.is_skip]
        sources, links, groups = len(data["sources"]), data["links"], dict(data["groups"])
        return build_graph(data["order"], simple, skips, sources=sources, links=links, groups=groups)


def build_graph(
    nodes: Sequence[str],
    simple: Sequence[tuple[str, str]],
    skips: Sequence[tuple[str, str] | Hyperconnection] = (),
    *,
    sources: int = 1,
    links: Collection[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Graph:
    """Builds and checks a graph: any directed acyclic one with one cloud.

    Args:
      nodes: every node's name; the sources first and the cloud last, the others in any order.
      simple: (source, target) of each simple hyperconnection.
      skips: (source, target) of each skip where one simple path joins the two, which it then bypasses; a
        `Hyperconnection` that names the bypassed nodes where the graph leaves a choice.
      sources: how many of the nodes are sources.
      links: names of hyperconnections that may fail by themselves, as `n1->n2`.
      groups: names of nodes and links that may fail together, by a name for them all.

    Raises:
      UserError: for a cycle, an unknown or duplicate node, a hyperconnection given twice, a skip that bypasses
        nothing or not a path, a node that nothing reaches or that can't reach the cloud, a source that receives
        or a cloud that sends, an unknown link, a group of what can't fail.
    """
    _check_nodes(nodes, sources)
    edges = [Hyperconnection(source, target) for source, target in simple]
    _check_ends(nodes, edges, nodes[:sources])
    order = _data_flow_order(nodes, edges, sources)
    edges += [_resolve_skip(skip, nodes, edges[: len(simple)], nodes[:sources]) for skip in skips]
    names = [edge.name for edge in edges]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"hyperconnection {name} is given twice; keep one")
    _check_reachable(order, edges, order[:sources])
    edges.sort(key=lambda edge: (order.index(edge.target), edge.is_skip, order.index(edge.source)))
    for link in links:
        if link not in names:
            raise UserError(f"link {link!r} is no hyperconnection{suggest(link, names)}")
    failing = tuple(edge.name for edge in edges if edge.name in links)
    graph = Graph(order, tuple(edges), order[:sources], failing)
    for group, members in (groups or {}).items():
        _check_group(graph, group, members)
    return dataclasses.replace(graph, groups=tuple((name, tuple(members)) for name, members in (groups or {}).items()))


def build_chain(nodes: Sequence[str]) -> Graph:
    """A chain of nodes, each joined to the next, with a skip around every fallible node (Fig. 3 of the paper)."""
    return build_graph(nodes, list(itertools.pairwise(nodes)), list(zip(nodes, nodes[2:])))


def _check_group(graph: Graph, group: str, members: Sequence[str]) -> None:
    check_printable(group, "a group's name")
    if group in graph.order or group in graph.fallible:
        raise UserError(f"group {group!r} has the name of a node or link; choose another")
    if not members:
        raise UserError(f"group {group!r} is empty; name the nodes and links that fail together")
    for member in members:
        if member not in graph.fallible:
            raise UserError(f"group {group!r}: {member!r} can't fail{suggest(member, graph.fallible)}")


def _check_nodes(nodes: Sequence[str], sources: int) -> None:
    if not 1 <= sources < max(2, len(nodes)):
        raise UserError(f"a graph of {len(nodes)} nodes can't have {sources} sources; expected 1 to {len(nodes) - 1}")
    if len(nodes) < 2:
        raise UserError(f"a graph needs a source and a cloud, got nodes {list(nodes)}")
    for node in nodes:
        if not isinstance(node, str) or not node or "+" in node or "->" in node:
            raise UserError(f"a node's name must be text without + and ->, which join names, got {node!r}")
        check_printable(node, "a node's name")
        if node == "none":
            raise UserError("a node can't be called 'none', which means that no node fails; choose another name")
        if nodes.count(node) > 1:
            raise UserError(f"node {node!r} is given twice; node names must be unique")


def _check_ends(nodes: Sequence[str], edges: Sequence[Hyperconnection], sources: Sequence[str]) -> None:
    for edge in edges:
        for node in (edge.source, edge.target):
            if node not in nodes:
                raise UserError(f"hyperconnection {edge.name}: unknown node {node!r}{suggest(node, nodes)}")
        if edge.source == edge.target:
            raise UserError(f"hyperconnection {edge.name} is a cycle; it must lead to another node")
        if edge.target in sources:
            raise UserError(
                f"hyperconnection {edge.name} leads to the source {edge.target!r}, which only sends; "
                "name the source first"
            )
        if edge.source == nodes[-1]:
            raise UserError(
                f"hyperconnection {edge.name} leaves the cloud {nodes[-1]!r}, which only receives; name the cloud last"
            )


def _data_flow_order(nodes: Sequence[str], edges: Sequence[Hyperconnection], sources: int) -> tuple[str, ...]:
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
    # A source receives nothing and the cloud sends nothing, so these places are theirs by right.
    ends = (*nodes[:sources], nodes[-1])
    return (*ends[:-1], *(node for node in order if node not in ends), ends[-1])


def _simple_paths(source: str, target: str, edges: Sequence[Hyperconnection]) -> Iterator[tuple[str, ...]]:
    """Nodes strictly between the ends, of every simple path from source to target."""
    for edge in edges:
        if edge.source == source:
            if edge.target == target:
                yield ()
            else:
                yield from ((edge.target, *rest) for rest in _simple_paths(edge.target, target, edges))


def _resolve_skip(
    skip: tuple[str, str] | Hyperconnection,
    nodes: Sequence[str],
    simple: Sequence[Hyperconnection],
    sources: Sequence[str],
) -> Hyperconnection:
    edge = skip if isinstance(skip, Hyperconnection) else Hyperconnection(*skip)
    _check_ends(nodes, [edge], sources)
    if edge.bypassed:
        path = (edge.source, *edge.bypassed, edge.target)
        names = {other.name for other in simple}
        if not all(f"{a}->{b}" in names for a, b in itertools.pairwise(path)):
            raise UserError(f"skip {edge.name}: {' -> '.join(path)} is not a path of simple hyperconnections")
        return dataclasses.replace(edge, bypassed=tuple(edge.bypassed))
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


def _check_reachable(order: Sequence[str], edges: Sequence[Hyperconnection], sources: Sequence[str]) -> None:
    simple = [edge for edge in edges if not edge.is_skip]
    reached, reaching = set(sources), {order[-1]}
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
            told = f"the source {sources[0]!r}" if len(sources) == 1 else f"the sources {', '.join(sources)}"
            raise UserError(f"nothing from {told} reaches node {node!r}; add a simple hyperconnection to it")
