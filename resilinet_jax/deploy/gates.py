"""When a node computes, and which of its skips carry: a pure state machine, without clock, socket and JAX.

Events go in as calls, actions come out as lists. A receiver holds the gates of its skips, because it alone can know
that the simple hyperconnection which they stand in for has fallen silent. Requests are numbered by whoever asks, from 1
on without gaps, and every node decides them in that order, so that a later message over a hyperconnection says that an
earlier one will not come.

Source: docs/deployment.md, "How nodes talk".
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from resilinet_jax.network.graph import Graph

Payload = TypeVar("Payload")


MOST_AHEAD = 2**16  # requests that may be under way at once; what is further ahead is no honest number
SMALL_LAG = 16  # requests by which a sender may lag behind and still be waited for from now on


class ProtocolError(Exception):
    """A peer has said what no node of this network says."""


class Open(NamedTuple):
    """Has a skip carry: what its sender has from request `since` on, and all later ones; 0 for later ones alone."""

    edge: str
    since: int


class Close(NamedTuple):
    """Has a skip carry no more."""

    edge: str


class Want(NamedTuple):
    """Has a closed skip carry one request."""

    edge: str
    request: int


class Decide(NamedTuple):
    """Has the node compute a request from what these hyperconnections have brought.

    If there are none, the node says that it has nothing; the cloud answers that it has no information.
    """

    request: int
    carries: tuple[str, ...]


class Blind(NamedTuple):
    """Has the node tell whoever it sends to whether it hears from nobody."""

    blind: bool


Action = Open | Close | Want | Decide | Blind


class Incoming(NamedTuple):
    """A hyperconnection to a node.

    Attributes:
      name: `source->target`.
      stands_for: of a skip that is on only when it is needed, the simple hyperconnection that it stands in for; None of
        others, which always carry.
    """

    name: str
    stands_for: str | None = None


def incoming(graph: Graph, node: str, present: Sequence[bool], activity: float) -> list[Incoming]:
    """The hyperconnections to a node that there are.

    Args:
      graph: of the network.
      node: that receives.
      present: whether each hyperconnection exists, in the graph's order.
      activity: of the skips at inference: 1 (add) or 0 (select).
    """
    edges = [edge for index, edge in graph.incoming(node) if present[index]]
    return [
        Incoming(edge.name, f"{edge.bypassed[-1]}->{node}" if edge.is_skip and not activity else None) for edge in edges
    ]


@dataclasses.dataclass
class _Link:
    """What a node knows of a hyperconnection to it.

    Attributes:
      up: whether its sender is alive and hears from somebody.
      since: the first request that its sender will bring, while it is up.
      last: the last request that it has brought.
      opened: of a skip whose gate is open, the first request that it was opened for; None if it is closed.
      wanted: the last request that was asked for by itself.
    """

    up: bool = False
    since: int = 0
    last: int = 0
    opened: int | None = None
    wanted: int = 0


class Receiver:
    """One node's decisions: each request once, in order, from exactly what has arrived."""

    def __init__(self, edges: Sequence[Incoming]):
        """Starts with every hyperconnection down and nothing decided.

        Args:
          edges: to the node, the simple ones first.
        """
        self.edges = {edge.name: edge for edge in edges}
        self.floor: int | None = None  # all requests up to here are decided; None before the first is known of
        self.links = {edge.name: _Link() for edge in edges}
        self.brought: dict[int, dict[str, bool]] = {}  # by undecided request, whether each brought a value or nothing
        self.impatient: set[int] = set()
        self._known = 0  # the last request that is known of
        self._blind = True

    @property
    def blind(self) -> bool:
        """Whether the node hears from nobody."""
        return not any(link.up for link in self.links.values())

    def connected(self, edge: str) -> list[Action]:
        """A sender has dialled: its gate is closed, and it is not up before it has said something."""
        self.links[edge] = _Link(last=self.links[edge].last)
        return self._gate(edge)

    def lost(self, edge: str) -> list[Action]:
        """A stream has ended, its sender has fallen silent, or it hears from nobody itself."""
        self.links[edge].up = False
        return [*self._gates_of(edge), *self._advance()]

    def heartbeat(self, edge: str, watermark: int, blind: bool) -> list[Action]:
        """A sender is alive.

        Args:
          edge: over which it says so.
          watermark: the last request that it has decided: all later ones it will bring.
          blind: whether it hears from nobody.

        Raises:
          ProtocolError: for a number that no sender of this network can have got to.
        """
        if blind:
            return self.lost(edge)
        known = self._know_from(watermark)  # what was before this node, others have seen to
        assert self.floor is not None
        self.check(watermark)
        self._known = max(self._known, watermark)
        # Whoever lags far behind, as after a stop, is not waited for before it has caught up.
        if not self.links[edge].up and watermark >= self.floor - SMALL_LAG:
            return [*known, *self._rise(edge, self._known + 1)]
        return [*known, *self._advance()]

    def message(self, edge: str, request: int, has_value: bool) -> list[Action]:
        """A sender has brought a request, or said that it has nothing for it; what is late does not count.

        Args:
          edge: over which it came.
          request: its number.
          has_value: whether it brings a value.

        Raises:
          ProtocolError: for a number that no sender of this network can have got to.
        """
        link = self.links[edge]
        if self.floor is None and not has_value:
            return []
        known = self._know_from(request - 1)
        assert self.floor is not None
        if request <= self.floor:
            return []
        self.check(request)
        self._known = max(self._known, request)
        link.last = max(link.last, request)
        self.brought.setdefault(request, {})[edge] = has_value
        if has_value and not link.up:
            return [*known, *self._rise(edge, request)]
        return [*known, *self._advance()]

    def check(self, request: int) -> None:
        """Refuses a number that no sender of this network can have got to.

        Raises:
          ProtocolError: naming it.
        """
        # While a node hears from nobody, it can't know how far others are.
        if self.floor is not None and not self.blind and request > self.floor + MOST_AHEAD:
            raise ProtocolError(f"request {request}, far ahead of {self.floor}")

    def asked(self, request: int) -> list[Action]:
        """Somebody wants an answer to a request: so it exists.

        Raises:
          ProtocolError: for a number that nobody can have got to.
        """
        self.check(request)
        known = self._know_from(request - 1)
        self._known = max(self._known, request)
        return [*known, *self._advance()]

    def waited(self) -> list[Action]:
        """The next request has been waited for too long: stand-ins are asked, and what comes first is used."""
        if self.floor is None or self.floor >= self._known:
            return []
        self.impatient.add(self.floor + 1)
        return self._advance()

    def _know_from(self, floor: int) -> list[Action]:
        """Takes requests up to here as decided, if none is known of yet; opens anew what is open for whatever comes.

        A node that was cut off for long does so as well: while it hears from nobody, nothing is undecided. A request
        that a sender decides before it hears of an open gate would not come, and be waited for.
        """
        if self.floor is not None and not (self.blind and floor >= self.floor + MOST_AHEAD):
            return []
        self.floor = self._known = floor
        early = [(edge, link) for edge, link in self.links.items() if link.opened is not None]
        for _, link in early:
            link.opened = floor + 1
        return [Open(edge, floor + 1) for edge, _ in early]

    def _rise(self, edge: str, since: int) -> list[Action]:
        link = self.links[edge]
        link.up, link.since = True, since
        return [*self._gates_of(edge), *self._advance()]

    def _gates_of(self, simple: str) -> list[Action]:
        """Opens or closes the gates of skips that stand in for a hyperconnection, as its state has it."""
        return [action for name, edge in self.edges.items() if edge.stands_for == simple for action in self._gate(name)]

    def _gate(self, skip: str) -> list[Action]:
        stands_for, link = self.edges[skip].stands_for, self.links[skip]
        if stands_for is None:
            return []
        if stands_for in self.links and self.links[stands_for].up:
            if link.opened is None:
                return []
            link.opened = None
            return [Close(skip)]
        if link.opened is not None:
            return []
        link.opened = 0 if self.floor is None else self.floor + 1
        return [Open(skip, link.opened)]

    def _advance(self) -> list[Action]:
        """Decides what can be decided, and asks for what the next request still needs."""
        actions: list[Action] = []
        while self.floor is not None and self.floor < self._known:
            request = self.floor + 1
            verdicts, wants = self._verdicts(request)
            actions += wants
            if None in verdicts.values():
                break
            self.floor = request
            self.brought.pop(request, None)
            self.impatient.discard(request)
            actions.append(Decide(request, tuple(name for name, value in verdicts.items() if value)))
        if self.blind != self._blind:  # told last: it comes with the watermark, after all outputs up to there
            self._blind = self.blind
            actions.append(Blind(self._blind))
        return actions

    def _verdicts(self, request: int) -> tuple[dict[str, bool | None], list[Action]]:
        """Whether each hyperconnection carries a request, None where that is not known yet; and what to ask for."""
        verdicts: dict[str, bool | None] = {}
        wants: list[Action] = []
        impatient = request in self.impatient
        for name, edge in self.edges.items():
            stands_for = verdicts.get(edge.stands_for, False) if edge.stands_for is not None else False
            if stands_for:
                verdicts[name] = False
            elif stands_for is None and not impatient:
                verdicts[name] = None
            else:
                verdicts[name] = self._verdict(name, request)
                link = self.links[name]
                covered = edge.stands_for is None or (link.opened is not None and request >= link.opened)
                if verdicts[name] is None and not covered and link.wanted < request:
                    link.wanted = request
                    wants.append(Want(name, request))
        if impatient and any(verdicts.values()):  # what has come is enough
            verdicts = {name: bool(value) for name, value in verdicts.items()}
        return verdicts, wants

    def _verdict(self, name: str, request: int) -> bool | None:
        link, brought = self.links[name], self.brought.get(request, {})
        if name in brought:
            return brought[name]
        if not link.up or request < link.since:
            return False
        in_order = self.edges[name].stands_for is None or (link.opened is not None and request >= link.opened)
        return False if in_order and link.last > request else None


class Sender(Generic[Payload]):
    """What a node sends over one hyperconnection; None stands for a request for which it has nothing."""

    def __init__(self, gated: bool, most_bytes: int = 2**26):
        """Starts with its gate closed.

        Args:
          gated: whether it carries only while its receiver asks for it.
          most_bytes: of outputs kept for a receiver that may ask for them; the oldest go first.
        """
        self._gated, self._most = gated, most_bytes
        self._open, self._since = False, 0
        self._wanted: set[int] = set()
        self._ring: collections.OrderedDict[int, tuple[Payload | None, int]] = collections.OrderedDict()
        self._bytes = 0
        self.highest = 0  # the last request that was decided

    def connected(self) -> None:
        """A new stream: its gate is closed until the receiver opens it; outputs are kept, which it may ask for."""
        self._open = False
        self._wanted.clear()

    def output(self, request: int, payload: Payload | None, size: int) -> list[tuple[int, Payload | None]]:
        """The node has decided a request; returns what to send now.

        Args:
          request: its number.
          payload: what it sends; None if nothing arrived.
          size: of it in bytes.
        """
        self.highest = request
        if not self._gated:
            return [(request, payload)]
        self._ring[request] = (payload, size)
        self._bytes += size
        while self._bytes > self._most and len(self._ring) > 1:
            self._forget(next(iter(self._ring)))
        if (self._open and request >= self._since) or request in self._wanted:
            self._wanted.discard(request)
            return [(request, payload)]
        return []

    def open(self, since: int) -> list[tuple[int, Payload | None]]:
        """The receiver has opened the gate; returns what to send now.

        Args:
          since: the first request that it wants; 0 for later ones alone.
        """
        if not self._gated:
            return []
        first, sent_from = since or self.highest + 1, self._since if self._open else self.highest + 1
        self._open, self._since = True, min(first, sent_from)
        return [(request, payload) for request, (payload, _) in self._ring.items() if first <= request < sent_from]

    def close(self) -> None:
        """The receiver has closed the gate."""
        self._open = False

    def want(self, request: int) -> list[tuple[int, Payload | None]]:
        """The receiver wants one request; returns it, or that there is nothing, or waits until it is decided."""
        if request > self.highest:
            self._wanted.add(request)
            return []
        payload, _ = self._ring.get(request, (None, 0))
        return [(request, payload)]

    def ack(self, floor: int) -> None:
        """The receiver has decided all requests up to here."""
        while self._ring and next(iter(self._ring)) <= floor:
            self._forget(next(iter(self._ring)))
        self._wanted = {request for request in self._wanted if request > floor}

    def _forget(self, request: int) -> None:
        self._bytes -= self._ring.pop(request)[1]
