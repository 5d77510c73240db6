"""A network namespace of this machine for each node, so that what lies between two of them can be cut without a word.

On one machine a broken connection always tells of itself. A cable that is pulled does not: packets are gone, and
nobody says so. Here every node has an address of its own, all of them are joined by a router, and the router can drop
what goes from one to another. Processes that end with this one hold the namespaces, so that nothing stays behind.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Sequence

from resilinet_jax.errors import UserError
from resilinet_jax.network.graph import Graph

NETWORK = ipaddress.IPv4Network("198.18.0.0/15")  # for tests, routed nowhere (RFC 2544)
PORT = 5000


class Namespaces:
    """All nodes' namespaces; `with Namespaces(graph) as namespaces`."""

    def __init__(self, graph: Graph):
        """Prepares; nothing is made yet.

        Args:
          graph: of the nodes.
        """
        self._graph = graph
        self._holders: list[subprocess.Popen[bytes]] = []
        self._pairs: dict[str, list[ipaddress.IPv4Address]] = {}  # by node: the router's address towards it, its own

    def __enter__(self) -> Namespaces:
        """Makes them.

        Raises:
          UserError: if this machine does not let us, as whoever is not root.
        """
        try:
            self._build()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
            raise UserError(
                f"this machine gives no network namespaces ({said}); they need root, ip and nsenter"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Ends those who hold them, and so what hangs on them."""
        for holder in self._holders:
            holder.kill()
        if self._holders:  # it would go by itself, but not at once
            subprocess.run(["ip", "link", "del", self._device()], check=False, capture_output=True)
        for holder in self._holders:
            holder.communicate()

    def address(self, node: str) -> str:
        """Where a node listens."""
        return f"{self._pairs[node][1]}:{PORT}"

    def enter(self, node: str) -> list[str]:
        """What starts a command in a node's namespace."""
        return _enter(self._holders[1 + self._graph.order.index(node)])

    async def cut(self, name: str) -> None:
        """Drops what goes over a hyperconnection, or to and from a node, from now on."""
        await self._rules("add", name)

    async def mend(self, name: str) -> None:
        """Undoes `cut`."""
        await self._rules("del", name)

    async def sent(self) -> int:
        """Bytes that all nodes and this process have sent so far, with all headers: what the router has received."""
        command = [*_enter(self._holders[0]), "ip", "-json", "-statistics", "link"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        devices = json.loads((await process.communicate())[0])
        return sum(each["stats64"]["rx"]["bytes"] for each in devices)

    async def _rules(self, what: str, name: str) -> None:
        if name in self._pairs:
            ways = [f"from {self._pairs[name][1]}", f"to {self._pairs[name][1]}"]
        else:
            (edge,) = (edge for edge in self._graph.hyperconnections if edge.name == name)
            ends = [self._pairs[node][1] for node in (edge.source, edge.target)]
            ways = [f"from {one} to {other}" for one, other in (ends, ends[::-1])]
        command = [*_enter(self._holders[0]), "ip", "-batch", "-"]
        process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
        await process.communicate("".join(f"rule {what} {way} blackhole\n" for way in ways).encode())
        if process.returncode:
            raise UserError(f"the router of this trial did not {what} its rule for {name}; try it again")

    def _build(self) -> None:
        parts, offset = list(NETWORK.subnets(new_prefix=20)), os.getpid() % 32  # others may be doing the same
        taken = subprocess.run(
            ["ip", "route", "show", "root", str(NETWORK)], check=True, capture_output=True, text=True
        )
        network = next(part for part in parts[offset:] + parts[:offset] if str(part) not in taken.stdout)
        pairs = (list(pair.hosts()) for pair in network.subnets(new_prefix=30))
        inner, outer = next(pairs)
        self._pairs = dict(zip(self._graph.order, pairs))
        router, *nodes = (self._hold() for _ in range(1 + len(self._graph.order)))
        device = self._device()
        _ip([], f"link add {device} type veth peer name outside netns {router.pid}", *_up(device, outer))
        _ip([], f"route add {network} via {inner}")
        links = [*_up("outside", inner)]
        for k, (node, (gateway, _)) in enumerate(zip(nodes, self._pairs.values())):
            links += [f"link add node{k} type veth peer name inside netns {node.pid}", *_up(f"node{k}", gateway)]
        _ip(_enter(router), *links)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        subprocess.run([*_enter(router), "sh", "-c", forward], check=True, capture_output=True, text=True)
        for node, (gateway, address) in zip(nodes, self._pairs.values()):
            _ip(_enter(node), *_up("inside", address), "link set lo up", f"route add default via {gateway}")

    def _device(self) -> str:
        """What joins this process to the router, named after who holds that: a process may have several routers."""
        return f"rj{self._holders[0].pid}"

    def _hold(self) -> subprocess.Popen[bytes]:
        """A process in a new namespace that ends when this one does, whose end of the pipe is closed then."""
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._holders.append(holder)
        end = time.monotonic() + 5
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if holder.poll() is not None or time.monotonic() > end:
                raise OSError("unshare is not permitted")
            time.sleep(0.002)
        return holder


def _enter(holder: subprocess.Popen[bytes]) -> list[str]:
    return ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]


def _up(device: str, address: ipaddress.IPv4Address) -> list[str]:
    return [f"addr add {address}/30 dev {device}", f"link set {device} up"]


def _ip(prefix: Sequence[str], *lines: str) -> None:
    command = [*prefix, "ip", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines), check=True, capture_output=True, text=True)
