"""`resilinet-jax-node ARTEFACT --node=n2 --placement=placement.toml`: runs one node until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Sequence

from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.deploy.engines import load_engine
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.errors import UserError, error_line, suggest


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line on standard error and status 1.

    Args:
      argv: the flags; None for those of this process.
    """
    parser = argparse.ArgumentParser("resilinet-jax-node", description="Runs one node of a split network.")
    parser.add_argument("artefact", type=pathlib.Path, help="folder that --export has made")
    parser.add_argument("--node", required=True, help="which node this is")
    parser.add_argument("--placement", type=pathlib.Path, required=True, help="file that says where all nodes run")
    parser.add_argument(
        "--metrics_port", type=int, help="where Prometheus finds what the node is doing; none if left out"
    )
    parser.add_argument("--metrics_address", default="127.0.0.1", help="of this machine, to listen for it (127.0.0.1)")
    parser.add_argument("--ends_with_stdin", action="store_true", help="stop when standard input is closed")
    parser.add_argument("--log_json", action="store_true", help="log a line of JSON for each record")
    given = parser.parse_args(argv)
    lines = JsonLines(given.node) if given.log_json else logging.Formatter(f"%(asctime)s {given.node}: %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(lines)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    try:
        asyncio.run(_run(given))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error_line(error)}")
    except RuntimeError as error:  # gRPC's, for an address that is taken
        sys.exit(f"error: {error}")


class JsonLines(logging.Formatter):
    """A line of JSON for each record: time, node, level, message, and the hyperconnection that it is about, if any."""

    def __init__(self, node: str):
        """Takes the name of the node that logs."""
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        fields = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "node": self._node,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if hasattr(record, "edge"):
            fields["edge"] = record.edge
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields)


async def _run(given: argparse.Namespace) -> None:
    name, artefact = given.node, Artefact.open(given.artefact)
    names = artefact.graph.order
    if name not in names:
        raise UserError(f"--node: the artefact has no node {name!r}{suggest(name, names)}")
    placement = Placement.read(given.placement, names, name)
    engine = load_engine(artefact, name, placement.nodes[name].engine)
    # Its own lines for each handshake that fails would fill a disk: whoever is refused dials again.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from resilinet_jax.deploy.node import Node
    except ImportError:
        raise UserError("a node needs gRPC; pip install 'resilinet_jax[edge]'") from None
    node = Node(artefact, name, placement, engine)
    if given.metrics_port is not None:
        try:
            from resilinet_jax.deploy.metrics import Metrics
        except ImportError:
            raise UserError("--metrics_port needs prometheus-client; pip install 'resilinet_jax[edge]'") from None
        Metrics(node).serve(given.metrics_address, given.metrics_port)
    running = asyncio.create_task(node.run(lambda: print(f"{name} is ready", flush=True)))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    if given.ends_with_stdin:
        loop.add_reader(sys.stdin, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logging.info("stopped")


if __name__ == "__main__":
    main()
