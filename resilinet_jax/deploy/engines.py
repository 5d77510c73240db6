"""What computes a node's program: JAX, or NumPy for dense stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from resilinet_jax.deploy.artefact import WEIGHT, Artefact
from resilinet_jax.errors import UserError

Values = Sequence[Shaped[np.ndarray, "..."]]
# Of 1 for each incoming hyperconnection that carries and 0 for others, and of what each brings; of a source, the input.
Engine = Callable[[Float[np.ndarray, " incoming"], Values], Shaped[np.ndarray, "..."]]


def load_engine(artefact: Artefact, node: str, kind: str) -> Engine:
    """The function that a node computes.

    Args:
      artefact: whose node it is.
      node: its name.
      kind: one of `placement.ENGINES`.

    Raises:
      UserError: if this engine can't compute this node, or is not installed.
    """
    return {"jax": _jax, "numpy": _numpy}[kind](artefact, node)


def _jax(artefact: Artefact, node: str) -> Engine:
    try:
        import jax
        from jax import export
    except ImportError:
        raise UserError(f'node {node!r} is placed on engine "jax", which is not installed; pip install jax') from None
    program = jax.jit(export.deserialize(bytearray(artefact.program(node))).call)
    arrays = jax.device_put(artefact.arrays(node))

    def compute(carries: Float[np.ndarray, " incoming"], values: Values) -> np.ndarray:
        return np.asarray(program(arrays, carries, *values))

    return compute


def _numpy(artefact: Artefact, node: str) -> Engine:
    dense = artefact.manifest.nodes[node].dense
    if dense is None:
        raise UserError(
            f'node {node!r} hosts more than dense layers, which NumPy does not compute; take engine = "jax"'
        )
    arrays = artefact.arrays(node)
    layers = [(arrays[layer["kernel"]], arrays[layer["bias"]], layer["relu"]) for layer in dense["layers"]]
    adapters = [each and (arrays[each["kernel"]], arrays[each["bias"]]) for each in dense["adapters"]]
    weight = arrays.get(WEIGHT)

    def compute(carries: Float[np.ndarray, " incoming"], values: Values) -> np.ndarray:
        x: Any = values[0]
        if weight is not None:
            adapted = [v if a is None else v @ a[0] + a[1] for a, v, c in zip(adapters, values, carries) if c]
            x = sum((factor * value for factor, value in zip(weight[carries > 0], adapted)), np.float32(0))
        for kernel, bias, relu in layers:
            x = x @ kernel + bias
            x = np.maximum(x, 0) if relu else x
        return np.asarray(x)

    return compute
