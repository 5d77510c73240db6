"""What computes a node's program: JAX, onnxruntime, or NumPy for dense stages."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from resilinet_jax.deploy.artefact import WEIGHT, Artefact, onnx_file
from resilinet_jax.errors import UserError, first_line

Values = Sequence[Shaped[np.ndarray, "..."]]
# Of 1 for each incoming hyperconnection that carries and 0 for others, and of what each brings; of a source, the input.
Engine = Callable[[Float[np.ndarray, " incoming"], Values], Shaped[np.ndarray, "..."]]

# How far rounding may take an engine's logits from the network's, for their size. ONNX has other operations: a trained
# MobileNet's logits then differ by 2e-5, and JAX's own by as much from those in float64.
TOLERANCES = {"jax": 1e-5, "numpy": 1e-5, "onnx": 1e-4}


def load_engine(artefact: Artefact, node: str, kind: str) -> Engine:
    """The function that a node computes.

    Args:
      artefact: whose node it is.
      node: its name.
      kind: one of `placement.ENGINES`.

    Raises:
      UserError: if this engine can't compute this node, or is not installed.
    """
    return {"jax": _jax, "numpy": _numpy, "onnx": _onnx}[kind](artefact, node)


def _jax(artefact: Artefact, node: str) -> Engine:
    try:
        import jax
        from jax import export
    except ImportError:
        raise UserError(f'node {node!r} is placed on engine "jax", which is not installed; pip install jax') from None
    content = artefact.program(node)
    try:
        exported = export.deserialize(bytearray(content))
        exported.mlir_module()  # which is read only by the first call otherwise
    except Exception as error:  # whatever another version makes of it
        raise UserError(
            f"JAX {jax.__version__} can't read the program of node {node!r} ({first_line(error)}); "
            f"--export={artefact.folder} makes it again"
        ) from None
    program = jax.jit(exported.call)
    arrays = jax.device_put(artefact.arrays(node))

    def compute(carries: Float[np.ndarray, " incoming"], values: Values) -> np.ndarray:
        return np.asarray(program(arrays, carries, *values))

    return compute


def _onnx(artefact: Artefact, node: str) -> Engine:
    inputs = artefact.manifest.nodes[node].onnx
    if inputs is None:
        raise UserError(
            f'node {node!r} is placed on engine "onnx", for which {artefact.folder} has no program; '
            f"--export={artefact.folder} --onnx adds it"
        )
    try:
        return onnx_engine(artefact.folder / onnx_file(node), inputs)
    except ImportError:
        raise UserError(
            f'node {node!r} is placed on engine "onnx", which is not installed; pip install onnxruntime'
        ) from None
    except Exception as error:  # onnxruntime's own kinds have nothing in common
        raise UserError(
            f"onnxruntime can't read the program of node {node!r}; expected version 1.23 or newer ({error})"
        ) from None


def onnx_engine(path: pathlib.Path, inputs: Sequence[str]) -> Engine:
    """What a program in ONNX computes, with the arrays in the file that it names.

    Args:
      path: of the program; its arrays' file is beside it.
      inputs: their names: `Signature.onnx`.

    Raises:
      ImportError: if onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")  # which onnxruntime itself does not heed
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    options.log_severity_level = 3  # errors, but not which arrays a program does not use
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def compute(carries: Float[np.ndarray, " incoming"], values: Values) -> np.ndarray:
        return np.asarray(session.run(None, dict(zip(inputs, (carries, *values))))[0])

    return compute


def _numpy(artefact: Artefact, node: str) -> Engine:
    dense = artefact.manifest.nodes[node].dense
    if dense is None:
        raise UserError(
            f'node {node!r} hosts more than dense layers, which NumPy does not compute; take engine = "onnx" or "jax"'
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
