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
from resilinet_jax.deploy.namespaces import Namespaces
from resilinet_jax.deploy.placement import Host, Placement
from resilinet_jax.errors import UserError

STARTED = 60.0  # seconds that a node may take to start
# Nodes share the cores of this machine: each has one.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1")


class Processes:
    """The nodes' processes; `with Processes(...)` ends them all, whatever happens."""

    def __init__(
        self, artefact: Artefact, placement: Placement, folder: pathlib.Path, namespaces: Namespaces | None = None
    ):
        """Prepares a folder for what they share and say; nothing is started yet.

        Args:
          artefact: that they run.
          placement: of all of them, on this machine.
          folder: for the placement and what they say.
          namespaces: in which they run; None for this machine's own.
        """
        self._artefact, self._folder, self._namespaces = artefact, folder, namespaces
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
                *(self._namespaces.enter(name) if self._namespaces else ()),
                sys.executable, "-m", "resilinet_jax.deploy.run_node", str(self._artefact.folder), f"--node={name}",
                f"--placement={self._file}", "--ends_with_stdin",  # so that none outlives this process
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
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

    async def stop(self, name: str) -> None:
        """Has a node stand still, its connections open, by SIGSTOP."""
        self._running[name].send_signal(signal.SIGSTOP)

    async def go_on(self, name: str) -> None:
        """Undoes `stop`."""
        self._running[name].send_signal(signal.SIGCONT)

    def memory(self) -> dict[str, int]:
        """Resident bytes of each node, where the system tells."""
        sizes = {}
        for name, process in self._running.items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]
                sizes[name] = int(pages) * os.sysconf("SC_PAGE_SIZE")
        return sizes

    async def __aenter__(self) -> Processes:
        """Nothing is started yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kills those that run."""
        for name in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                await self.kill(name)


def loopback(
    artefact: Artefact,
    rows: int,
    certificates: pathlib.Path | None = None,
    namespaces: Namespaces | None = None,
    engine: str | None = None,
) -> Placement:
    """A placement of all nodes on this machine.

    Args:
      artefact: whose nodes they are.
      rows: of a request.
      certificates: folder into which theirs are made; None if connections are plain.
      namespaces: in which they run; None for this machine's own.
      engine: that computes them all; None for NumPy where it can, and JAX elsewhere.

    Raises:
      UserError: if there is nothing to make certificates with.
    """
    if certificates is not None:
        make_certificates(artefact.graph.order, certificates)
    nodes, order = artefact.manifest.nodes, artefact.graph.order
    addresses = [namespaces.address(name) for name in order] if namespaces else _free_addresses(len(order))
    hosts = {
        name: Host(address, engine or ("jax" if nodes[name].dense is None else "numpy"))
        for name, address in zip(order, addresses)
    }
    return Placement(hosts, rows=rows, window=32, certificates=certificates)


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as sockets:
        free = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in free]
