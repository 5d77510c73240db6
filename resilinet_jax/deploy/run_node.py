"""`resilinet-jax-node ARTEFACT --node=n2 --placement=placement.toml`: runs one node until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
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
    given = parser.parse_args(argv)
    logging.basicConfig(format=f"%(asctime)s {given.node}: %(message)s", level=logging.INFO)
    try:
        asyncio.run(_run(given.artefact, given.node, given.placement))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error_line(error)}")
    except RuntimeError as error:  # gRPC's, for an address that is taken
        sys.exit(f"error: {error}")


async def _run(folder: pathlib.Path, name: str, placement_file: pathlib.Path) -> None:
    artefact = Artefact.open(folder)
    names = artefact.graph.order
    if name not in names:
        raise UserError(f"--node: the artefact has no node {name!r}{suggest(name, names)}")
    placement = Placement.read(placement_file, names, name)
    engine = load_engine(artefact, name, placement.nodes[name].engine)
    # Its own lines for each handshake that fails would fill a disk: whoever is refused dials again.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from resilinet_jax.deploy.node import Node
    except ImportError:
        raise UserError("a node needs gRPC; pip install 'resilinet_jax[edge]'") from None
    running = asyncio.create_task(
        Node(artefact, name, placement, engine).run(lambda: print(f"{name} is ready", flush=True))
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logging.info("stopped")


if __name__ == "__main__":
    main()
