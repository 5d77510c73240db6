"""What a node is doing, for Prometheus: its state when somebody looks, and how long its decisions took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from resilinet_jax.errors import UserError

if TYPE_CHECKING:
    from resilinet_jax.deploy.node import Node

KINDS = ("messages", "silent", "heartbeats")  # of what is sent
SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # bounds of buckets
Family = GaugeMetricFamily | CounterMetricFamily


class Metrics:
    """Collects a node's metrics whenever Prometheus asks; `registry` holds them."""

    def __init__(self, node: Node):
        """Has the node tell its decisions from now on.

        Args:
          node: whose metrics they are.
        """
        self._node, self.registry = node, CollectorRegistry()
        self.registry.register(self)
        seconds = Histogram(
            "resilinet_decision_seconds", "From when no request is waited for any more to its output", ["status"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        decided = {has_output: seconds.labels("answered" if has_output else "silent") for has_output in (True, False)}
        node.decided = lambda has_output, took: decided[has_output].observe(took)

    def serve(self, address: str, port: int) -> None:
        """Answers from a thread of its own, so that a node whose loop hangs can still be looked at.

        Args:
          address: of this machine.
          port: at it.

        Raises:
          UserError: if nothing can listen there.
        """
        try:
            start_http_server(port, address, self.registry)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"--metrics_port={port} at {address}: {why}; choose another") from None

    def collect(self) -> Iterator[Family]:
        """The node's state; its loop goes on meanwhile, so that nothing is iterated over that grows."""
        node, receiver, now = self._node, self._node.receiver, time.monotonic()
        outgoing, links = node._outgoing, receiver.links
        sent = CounterMetricFamily("resilinet_sent", "Written to a stream, by kind", labels=["edge", "kind"])
        for out in outgoing:
            for kind in KINDS:
                sent.add_metric([out.name, kind], out.sent[f"{out.name} {kind}"])
        yield sent
        payload = {out.name: out.sent[f"{out.name} bytes"] for out in outgoing}
        yield _family(CounterMetricFamily, "sent_bytes", "Bytes of values in messages", payload)
        connected = {out.name: out.connected for out in outgoing} | {edge: edge in node._controls for edge in links}
        yield _family(GaugeMetricFamily, "connected", "Whether a stream is there", connected)
        heard = {out.name: out.heard for out in outgoing} | {edge: node._heard.get(edge, 0.0) for edge in links}
        silence = {edge: max(0.0, now - last) for edge, last in heard.items() if last}
        yield _family(GaugeMetricFamily, "silence_seconds", "Since the other end was last heard", silence)
        up = {edge: link.up for edge, link in links.items()}
        yield _family(GaugeMetricFamily, "up", "Whether the sender is waited for: it lives and hears somebody", up)
        gates = {edge: links[edge].opened is not None for edge, each in receiver.edges.items() if each.stands_for}
        yield _family(GaugeMetricFamily, "gate_open", "Whether this node has a skip to it carry", gates)
        waiting = {out.name: len(out.waiting) for out in outgoing}
        yield _family(GaugeMetricFamily, "output_queue", "Messages that wait to be written", waiting)
        queues = {"events": node._events.qsize(), "undecided": len(node._values), "questions": len(node._questions)}
        yield _family(GaugeMetricFamily, "queue", "What waits for the loop, or for what is still to come", queues, "of")
        yield GaugeMetricFamily("resilinet_blind", "Whether the node hears from nobody", value=receiver.blind)


def _family(kind: type[Family], name: str, text: str, values: Mapping[str, float], label: str = "edge") -> Family:
    """One metric, with a value for each label."""
    family = kind(f"resilinet_{name}", text, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
