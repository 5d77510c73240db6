"""Connections to nodes, as nodes and clients make them, and why one is refused."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from resilinet_jax.deploy import wire_pb2 as pb
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.deploy.security import Certificates, identity
from resilinet_jax.deploy.wire import CARRY, CONNECTED, OPTIONS, metadata
from resilinet_jax.errors import one_line

LOG = logging.getLogger("resilinet_jax.node")
STREAM_ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)  # what reading and writing raise then
REFUSED = (
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
)  # fmt: skip
# How gRPC's texts tell that there is no trust between two ends, and what that means.
DISTRUST = {
    "Hostname Verification Check failed": "its certificate is another's",
    "certificate has expired": "its certificate has expired",
    "WRONG_VERSION_NUMBER": "it speaks no TLS; its placement must name certificates as well",
    "handshake failed": "its certificate is of another CA, has expired, or is the client's",
    "Socket closed": "it ends every connection at once; it may not trust this end's certificate, which must be of its "
    "CA and not have expired, and must be named in the placement",
}
DISTRUST["Connection reset"] = DISTRUST["Socket closed"]
DISTRUST["is not in peer certificate"] = DISTRUST["Hostname Verification Check failed"]  # up to some version of gRPC


def dial(address: str, target: str, certificates: Certificates | None) -> Any:
    """A channel to a node, which has to be that node, whatever its address.

    Args:
      address: `host:port`.
      target: the node's name.
      certificates: of who dials; None if connections are plain.
    """
    if certificates is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    own = grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.certificate)
    return grpc.aio.secure_channel(address, own, [*OPTIONS, ("grpc.ssl_target_name_override", identity(target))])


def carry(channel: Any, edge: str, digest: str) -> Any:
    """The stream of a hyperconnection: messages go out, as they are or as bytes already, and controls come back.

    Args:
      channel: to the receiver.
      edge: the hyperconnection's name.
      digest: of the artefact that the sender runs.
    """
    stream = channel.stream_stream(CARRY, request_serializer=_serialized, response_deserializer=pb.Control.FromString)
    return stream(metadata=metadata(edge, digest))


async def first_word(call: Any, placement: Placement) -> Any:
    """The receiver's first word over a stream, or None: until it has come there may be nobody.

    A packet that is lost while a stream begins is sent again after ever longer times, by TCP, so that a cable that was
    out for a minute may be back for a minute before it helps: another stream is faster.

    Args:
      call: the stream.
      placement: of the nodes, which tells how long a silence may last.
    """
    try:
        async with asyncio.timeout(CONNECTED + placement.suspicion):
            word = await call.read()
    except TimeoutError:
        return None
    return None if word is grpc.aio.EOF else word


class Refusals:
    """Why the other end refuses a stream, said once for as long as that stays so.

    Attributes:
      reason: what was said last; empty since a stream was taken.
    """

    def __init__(self, name: str, target: str, address: str):
        """Nothing is refused yet.

        Args:
          name: of what is dialled, as a hyperconnection.
          target: the node at the other end.
          address: of it.
        """
        self._name, self._peer = name, f"no trust between this end and {target!r} at {address}"
        self.reason = ""
        self._suspected: str | None = None

    def taken(self) -> None:
        """The other end has taken a stream."""
        self.reason = ""

    async def wait(self, call: Any, placement: Placement) -> None:
        """Says why a stream has ended, if it was refused, and waits until it may be dialled again."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # which gRPC has kept to itself, as it does while a call begins
            raise asyncio.CancelledError
        code, details = await call.code(), await call.details() or ""
        known = code == grpc.StatusCode.UNAVAILABLE
        suspected = next((why for sign, why in DISTRUST.items() if known and sign.lower() in details.lower()), None)
        # A node that dies may end a connection in the same way, but not the next one as well.
        distrusted = suspected is not None and suspected == self._suspected
        self._suspected = suspected
        if distrusted or code in REFUSED:
            why = f"{self._peer}: {suspected}" if distrusted else one_line(details).removeprefix(f"{self._name}: ")
            if (reason := f"{self._name}: {why}") != self.reason:
                self.reason = reason
                LOG.warning("%s", reason, extra={"edge": self._name})
        # Only a person can change who trusts whom, and each try costs both ends.
        distrusted = distrusted or code == grpc.StatusCode.PERMISSION_DENIED
        await asyncio.sleep(placement.suspicion if distrusted else placement.heartbeat)


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())
