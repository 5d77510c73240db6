"""Every node of an artefact as a process of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import sys
import time

from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.deploy.certificates import make_certificates
from resilinet_jax.deploy.placement import Host, Placement
from resilinet_jax.errors import UserError

STARTED = 60.0  # seconds that a node may take to start
# Nodes share the cores of this machine: each has one.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1")


class Processes:
    """The nodes' processes; `with Processes(...)` ends them all, whatever happens."""

    def __init__(self, artefact: Artefact, placement: Placement, folder: pathlib.Path):
        """Prepares a folder for what they share and say; nothing is started yet.

        Args:
          artefact: that they run.
          placement: of all of them, on this machine.
          folder: for the placement and what they say.
        """
        self._artefact, self._folder = artefact, folder
        self.placement = placement
        self._file = folder / "placement.toml"
        self._file.write_text(placement.to_toml(), encoding="utf-8")
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> float:
        """Starts a node and waits until others can connect; returns the seconds that it took.

        Raises:
          UserError: with the last line that it has said, if it ends.
        """
        began, said = time.monotonic(), self._folder / f"{self._artefact.graph.order.index(name)}.log"
        with said.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "resilinet_jax.deploy.run_node", str(self._artefact.folder), f"--node={name}",
                f"--placement={self._file}", stdout=asyncio.subprocess.PIPE, stderr=log,
                env={**os.environ, **ONE_THREAD},
            )  # fmt: skip
        self._running[name] = process
        assert process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED):
                if await process.stdout.readline():
                    return time.monotonic() - began
        last = (said.read_text(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(f"node {name!r} did not start: {last}")

    async def kill(self, name: str) -> None:
        """Ends a node at once, by SIGKILL."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a node, as SIGSTOP and SIGCONT."""
        self._running[name].send_signal(number)

    def memory(self) -> dict[str, int]:
        """Resident bytes of each node, where the system tells."""
        sizes = {}
        for name, process in self._running.items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]
                sizes[name] = int(pages) * 4096
        return sizes

    async def __aenter__(self) -> Processes:
        """Nothing is started yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kills those that run."""
        for name in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                await self.kill(name)


def loopback(artefact: Artefact, rows: int, certificates: pathlib.Path | None = None) -> Placement:
    """A placement of all nodes on this machine, dense ones on NumPy.

    Args:
      artefact: whose nodes they are.
      rows: of a request.
      certificates: folder into which theirs are made; None if connections are plain.

    Raises:
      UserError: if there is nothing to make certificates with.
    """
    if certificates is not None:
        make_certificates(artefact.graph.order, certificates)
    with contextlib.ExitStack() as sockets:
        ports = []
        for _ in artefact.graph.order:
            free = sockets.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    nodes = artefact.manifest.nodes
    hosts = {
        name: Host(f"127.0.0.1:{port}", "jax" if nodes[name].dense is None else "numpy")
        for name, port in zip(artefact.graph.order, ports)
    }
    return Placement(hosts, rows=rows, window=32, certificates=certificates)
