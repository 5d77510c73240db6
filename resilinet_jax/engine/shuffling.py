"""Random orders: those of `jax.random.permutation`, drawn in a third of its time on CPU."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt32

_EXPONENT = 3  # how rare equal numbers have to be in all rounds together: less than one in count**(_EXPONENT - 2)


def random_order(key: Key[Array, ""], count: int) -> Int[Array, " count"]:
    """The numbers from 0 to `count` - 1 in a random order, the very one that `jax.random.permutation` draws.

    Each round sorts by random numbers; among equal ones the earlier place comes first, which favours it, so there are
    as many rounds as make that rare enough.

    Args:
      key: of the order.
      count: static.
    """
    order = jnp.arange(count)
    for _ in range(math.ceil(_EXPONENT * math.log(max(1, count)) / math.log(2**32 - 1))):
        key, own = jax.random.split(key)
        order = order[_argsort(jax.random.bits(own, (count,)))]
    return order


def _argsort(keys: UInt32[Array, " count"]) -> Int[Array, " count"]:
    if jax.default_backend() != "cpu":
        return jnp.argsort(keys)
    # XLA's CPU backend sorts one array of numbers by the standard library's sort, but several, such as keys with their
    # places, by calls to a comparison. So both are one number of 64 bits.
    with jax.enable_x64(True):
        places = jnp.arange(keys.shape[0], dtype=jnp.uint64)
        sorted_keys = jax.lax.sort((keys.astype(jnp.uint64) << 32) | places, is_stable=False)
        return sorted_keys.astype(jnp.uint32).astype(jnp.int32)
