"""A network's variables as named arrays, as files hold them, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from resilinet_jax.errors import UserError
from resilinet_jax.network.forward import Numbers, Variables


def to_arrays(variables: Variables) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Every array of a network's variables on the host, by its path, as `params/n1/Dense_0/kernel`.

    A `/` within a name is written `%2F`, and `%` as `%25`.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def from_arrays(arrays: Mapping[str, Shaped[Numbers, "..."]], like: Variables) -> Variables:
    """The variables of which `to_arrays` made these arrays.

    Args:
      arrays: by path; further ones are ignored.
      like: variables of the same network, or their shapes (`jax.eval_shape` of `Network.init`).

    Raises:
      UserError: if an array is missing, or has another shape or type than the network's.
    """

    def find(path: Iterable[Any], leaf: Any) -> Numbers:
        name = _name(path)
        if name not in arrays:
            raise UserError(f"the model holds no {name}, which this network has; was it trained with another one?")
        array = arrays[name]
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise UserError(
                f"the model's {name} is {array.dtype} of shape {array.shape}, expected {leaf.dtype} of shape "
                f"{leaf.shape}; was it trained with another network?"
            )
        return array

    return jax.tree_util.tree_map_with_path(find, like)


def _name(path: Iterable[Any]) -> str:
    return "/".join(quoted(jax.tree_util.keystr((key,), simple=True)) for key in path)


def quoted(name: str) -> str:
    """A name as it stands in a path."""
    return name.replace("%", "%25").replace("/", "%2F")
