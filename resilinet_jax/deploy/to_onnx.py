"""From what a node computes to a program in ONNX, by jax2onnx; its arrays stay in the file that holds them anyway."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.extend.core
from jaxtyping import Array

from resilinet_jax.deploy.artefact import Arrays, weights_file
from resilinet_jax.errors import UserError, one_line
from resilinet_jax.files import tensor_bytes
from resilinet_jax.network.convolutions import lowered_for


def check_onnx() -> None:
    """Refuses to begin what would end without programs in ONNX.

    Raises:
      UserError: if what makes or runs them is not installed.
    """
    for package in ("jax2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--onnx needs {package}, which is missing; pip install 'resilinet_jax[onnx]'")


def onnx_program(
    node: str,
    computes: Callable[..., Array],
    arrays: Arrays,
    given: Mapping[str, jax.ShapeDtypeStruct],
) -> bytes:
    """A node's program in ONNX, whose initializers lie in the node's file of weights.

    Weights as inputs would cost onnxruntime up to four times the time: what depends on them alone, it computes once.

    Args:
      node: its name.
      computes: called with the arrays by name, and with all that is given.
      arrays: the node's.
      given: shapes and types of what it is called with, by the names of the program's inputs.

    Raises:
      UserError: naming the node and the operation that jax2onnx does not have.
    """
    names = sorted(arrays)

    def positional(*inputs: Array) -> Array:
        with lowered_for("onnx"):
            return computes(dict(zip(names, inputs)), *inputs[len(names) :])

    shapes = [jax.ShapeDtypeStruct(arrays[name].shape, arrays[name].dtype) for name in names]
    with _quiet():
        from jax2onnx import to_onnx

        try:
            model = to_onnx(positional, [*shapes, *given.values()], input_names=[*names, *given])
        except Exception as error:  # of whatever kind its plugins raise
            raise UserError(f"node {node!r} can't be exported to ONNX: {_why(error)}; leave --onnx out") from None
    weights = [each for each in model.graph.input if each.name in arrays]
    for each in weights:
        model.graph.input.remove(each)
    places = _places(tensor_bytes(arrays))
    for each in weights:
        tensor = model.graph.initializer.add(
            name=each.name, data_type=each.type.tensor_type.elem_type, dims=arrays[each.name].shape
        )
        tensor.data_location = tensor.EXTERNAL
        offset, length = places[each.name]
        for key, value in {"location": weights_file(node), "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
    del model.graph.value_info[:]  # shapes that follow from the rest, a third of the file
    return bytes(model.SerializeToString())


def _places(content: bytes) -> dict[str, tuple[int, int]]:
    """Where each array of a file of safetensors begins, and how many bytes it takes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ends: dict[str, Sequence[int]] = {name: each["data_offsets"] for name, each in header.items()}
    return {name: (start + begin, end - begin) for name, (begin, end) in ends.items()}


def _why(error: Exception) -> str:
    """The operation that is being converted, as the converter's own frames tell it, and the error's first line."""
    found = (frame.f_locals.get("eqn") for frame, _ in traceback.walk_tb(error.__traceback__))
    operation = [eqn.primitive.name for eqn in found if isinstance(eqn, jax.extend.core.JaxprEqn)]
    line = one_line(str(error).split("\n")[0])[:120]
    return f"{operation[-1]} ({line})" if operation else line


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what jax2onnx prints and logs, of plugins for other packages and of its own work."""
    logger = logging.getLogger("jax2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
