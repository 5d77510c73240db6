"""Arrays and sets of hyperconnections as the wire carries them, and how streams are set up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from resilinet_jax.deploy.artefact import Signature
from resilinet_jax.deploy.gates import ProtocolError

CARRY = "/resilinet.v1.Hyperconnection/Carry"
ASK = "/resilinet.v1.Answers/Ask"
COUNTERS = "/resilinet.v1.Counters/Read"
EDGE, DIGEST = "edge", "artefact"  # metadata of a stream; names of edges may be any text, so that they come as bytes
INPUT = "input"  # who asks, as the sender to a source
MOST_BYTES = 2**28  # of a message
CONNECTED = 2.0  # seconds that connecting may take, with TLS: round trips of half a second are short enough
OPTIONS = [
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.min_reconnect_backoff_ms", round(1000 * CONNECTED)),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.so_reuseport", 0),  # a second node at an address is a mistake
    ("grpc.use_local_subchannel_pool", 1),
]


def metadata(edge: str, digest: str) -> tuple[tuple[str, Any], ...]:
    """What a sender says first: which hyperconnection this is, of which artefact."""
    return ((f"{EDGE}-bin", edge.encode()), (DIGEST, digest))


def to_bytes(array: Shaped[np.ndarray, "..."]) -> bytes:
    """An array's numbers, little-endian, in its layout."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").tobytes()


def to_array(values: bytes, signature: Signature) -> Shaped[np.ndarray, "..."]:
    """The array of which `to_bytes` made these values.

    Args:
      values: as they came.
      signature: of the node that sent them.

    Raises:
      ProtocolError: if they are not a whole number of examples, at least one.
    """
    dtype = np.dtype(signature.dtype).newbyteorder("<")
    one = math.prod(signature.shape) * dtype.itemsize
    if not values or len(values) % one:
        raise ProtocolError(f"{len(values)} bytes of values, expected a multiple of {one}")
    return np.frombuffer(values, dtype).reshape(signature.batch(len(values) // one))


def to_words(edges: Iterable[int]) -> list[int]:
    """A set of hyperconnections, by their indices in the graph, as words of 64 bits."""
    words: list[int] = []
    for edge in edges:
        words += [0] * (edge // 64 + 1 - len(words))
        words[edge // 64] |= 1 << edge % 64
    return words


def to_edges(words: Sequence[int]) -> frozenset[int]:
    """The set of which `to_words` made these words."""
    return frozenset(64 * k + bit for k, word in enumerate(words) for bit in range(64) if word >> bit & 1)
