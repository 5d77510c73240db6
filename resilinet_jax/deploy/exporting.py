"""From a trained model to the programs and arrays of its nodes, by `jax.export`, and in ONNX."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Num

from resilinet_jax.deploy.artefact import SKIP_UNITS, WEIGHT, Arrays, Signature, onnx_file, weights_file
from resilinet_jax.deploy.engines import TOLERANCES, Engine, onnx_engine
from resilinet_jax.deploy.model import Model
from resilinet_jax.deploy.to_onnx import onnx_program
from resilinet_jax.errors import UserError, one_line
from resilinet_jax.files import tensor_bytes
from resilinet_jax.network.arrays import from_arrays, quoted, to_arrays
from resilinet_jax.network.convolutions import lowered_for
from resilinet_jax.network.forward import Network, Variables, Wiring
from resilinet_jax.network.senders import senders
from resilinet_jax.network.stages import DenseStage

PLATFORMS = ("cpu", "cuda", "tpu")


class NodeFiles(NamedTuple):
    """What becomes of one node.

    Attributes:
      arrays: its variables, its adapters', and the weights of its incoming hyperconnections.
      program: by `jax.export`, for `PLATFORMS` and any number of examples; called with the arrays, with 1 for each
        incoming hyperconnection that carries and 0 for others, and with what each brings (a source: the input alone).
      signature: what it computes.
      onnx: the program in ONNX, which takes the arrays from their file; None where it was not asked for.
    """

    arrays: Arrays
    program: bytes
    signature: Signature
    onnx: bytes | None = None


def export_nodes(model: Model, example: jax.ShapeDtypeStruct, onnx: bool = False) -> dict[str, NodeFiles]:
    """The files of every node, by its name, in data-flow order.

    Args:
      model: to export.
      example: shape and type of the network's input; the number of examples does not matter.
      onnx: whether to make programs in ONNX as well; `to_onnx.check_onnx` has looked for what makes them.

    Raises:
      UserError: naming a node whose stage can't be exported.
    """
    graph = model.network.graph
    weight = np.asarray(model.network.weight(model.variables, model.wiring), np.float32)
    (batch,) = export.symbolic_shape("batch")
    sent: dict[str, jax.ShapeDtypeStruct] = {}
    files = {}
    for node in graph.order:
        edges = list(graph.incoming(node))
        variables = _own(model.variables, (node, *(edge.name for _, edge in edges)))
        own = to_arrays(variables)
        if edges:
            own |= {WEIGHT: weight[[i for i, _ in edges]], SKIP_UNITS: np.array(model.wiring.skip_units, np.float32)}
        given = [sent[edge.source] for _, edge in edges] or [
            jax.ShapeDtypeStruct((batch, *example.shape[1:]), example.dtype)
        ]
        carries = jax.ShapeDtypeStruct((len(edges),), np.float32)
        computes = _computes(model, node, variables)
        try:
            exported = export.export(jax.jit(_on_each_platform(computes)), platforms=PLATFORMS)(own, carries, *given)
        except Exception as error:  # whatever a user's stage does that no batch of unknown size allows
            why = one_line(str(error).split("\n")[0])[:120]
            raise UserError(
                f"node {node!r} can't be exported for batches of any size ({why}); see docs/deployment.md"
            ) from None
        sent[node] = jax.ShapeDtypeStruct(exported.out_avals[0].shape, exported.out_avals[0].dtype)
        signature = _signature(node, sorted(own), sent[node])
        dense = _dense(model.network, node, [edge.name for _, edge in edges])
        inputs = dict(zip(["carries", *([edge.name for _, edge in edges] or ["input"])], [carries, *given]))
        signature = dataclasses.replace(signature, dense=dense, onnx=list(inputs) if onnx else None)
        in_onnx = onnx_program(node, computes, own, inputs) if onnx else None
        files[node] = NodeFiles(own, bytes(exported.serialize()), signature, in_onnx)
    return files


def _own(variables: Variables, owners: tuple[str, ...]) -> Variables:
    """The part of a network's variables that one node and its adapters use."""
    return Variables(*({name: part[name] for name in owners if name in part} for part in variables))


def _dense(network: Network, node: str, edges: list[str]) -> dict[str, Any] | None:
    """A node's layers and adapters by the names of their arrays, if all of them are dense; else None."""

    def names(*owner: str) -> dict[str, Any]:
        path = "/".join(["params", *map(quoted, owner)])
        return {"kernel": f"{path}/kernel", "bias": f"{path}/bias"}

    stage, adapters = network.stages.get(node), [network.adapters.get(edge) for edge in edges]
    if not all(adapter is None or type(adapter) is nn.Dense for adapter in adapters):
        return None
    if stage is not None and type(stage) is not DenseStage:
        return None
    count = 0 if stage is None else stage.layers + (stage.classes is not None)
    layers = [{**names(node, f"Dense_{k}"), "relu": stage is not None and k < stage.layers} for k in range(count)]
    return {
        "layers": layers,
        "adapters": [None if adapter is None else names(edge) for edge, adapter in zip(edges, adapters)],
    }


def _computes(model: Model, node: str, like: Variables) -> Callable[..., Array]:
    network, edges = model.network, [edge for _, edge in model.network.graph.incoming(node)]

    def compute(arrays: Mapping[str, Array], carries: Float[Array, " incoming"], *values: Array) -> Array:
        variables = from_arrays(arrays, like)
        if not edges:
            return network.source_sends(variables, node, values[0], jnp.ones(()))[0].value
        nothing = jnp.zeros(())
        wiring = Wiring(nothing, nothing, nothing, skip_units=arrays[SKIP_UNITS])
        adapted = [network.adapt(variables, edge, value, wiring) for edge, value in zip(edges, values)]
        return network.compute(variables, node, adapted, list(carries), list(arrays[WEIGHT]))[0]

    return compute


def _on_each_platform(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function in the form that suits the platform which it is lowered for, whatever machine exports it."""
    forms = {"cpu": lowered_for("cpu")(function), "default": lowered_for("gpu")(function)}
    return lambda *arguments: jax.lax.platform_dependent(*arguments, **forms)


def _signature(node: str, arguments: list[str], sent: jax.ShapeDtypeStruct) -> Signature:
    axes = [axis for axis, size in enumerate(sent.shape) if not isinstance(size, int)]
    if len(axes) != 1 or str(sent.shape[axes[0]]) != "batch":
        raise UserError(
            f"node {node!r} sends an array of shape {sent.shape}, in which not just one axis is the batch; give it one"
        )
    shape = [int(size) for axis, size in enumerate(sent.shape) if axis != axes[0]]
    return Signature(arguments, shape, str(np.dtype(sent.dtype)), axes[0])


def check_programs(model: Model, files: Mapping[str, NodeFiles], x: Num[np.ndarray, "examples *features"]) -> None:
    """Refuses programs that do not say what the network says, with nothing failed and with each node or link alone.

    Args:
      model: that was exported.
      files: of its nodes.
      x: standardised readings.

    Raises:
      UserError: naming what is dead where they differ.
    """
    _check(
        model, files, {node: _by_jax(each) for node, each in files.items()}, x, TOLERANCES["jax"], "exported programs"
    )
    in_onnx = {node: each.onnx for node, each in files.items() if each.onnx is not None}
    if in_onnx:
        with tempfile.TemporaryDirectory() as name:
            folder, engines = pathlib.Path(name), {}
            for node, program in in_onnx.items():
                (folder / weights_file(node)).write_bytes(tensor_bytes(files[node].arrays))
                (folder / onnx_file(node)).write_bytes(program)
                engines[node] = onnx_engine(folder / onnx_file(node), files[node].signature.onnx or ())
            _check(model, files, engines, x, TOLERANCES["onnx"], "programs in ONNX")


def _by_jax(files: NodeFiles) -> Engine:
    program = export.deserialize(bytearray(files.program))
    return lambda carries, values: np.asarray(program.call(dict(files.arrays), carries, *values))


def _check(
    model: Model,
    files: Mapping[str, NodeFiles],
    engines: Mapping[str, Engine],
    x: Num[np.ndarray, "examples *features"],
    tolerance: float,
    what: str,
) -> None:
    graph = model.network.graph
    apply = jax.jit(model.output)
    for dead in ((), *((name,) for name in graph.fallible)):
        survival = np.array([[name not in dead for name in graph.fallible]], np.float32)
        present, always = np.asarray(model.wiring.present), bool(np.asarray(model.wiring.activity).max(initial=0))
        who = senders(graph, survival, present, always)
        sent: dict[str, np.ndarray] = {}
        for node in (node for node in graph.order if who.sends[node][0]):
            edges = list(graph.incoming(node))
            brought = [sent.get(edge.source) for _, edge in edges]
            carries = np.array([who.arrives[0, i] for i, _ in edges], np.float32)
            shapes = [files[edge.source].signature for _, edge in edges]
            values = [  # zeros stand in for what does not arrive
                np.zeros(s.batch(len(x)), s.dtype) if value is None else value for value, s in zip(brought, shapes)
            ]
            sent[node] = engines[node](carries, values or [x])
        wanted = np.asarray(apply(model.variables, x, survival[0]).logits)
        got = sent[graph.cloud] if graph.cloud in sent else np.zeros_like(wanted)
        apart = np.abs(got - wanted).max(initial=0) / max(1.0, np.abs(wanted).max(initial=0))
        if not apart <= tolerance:
            raise UserError(
                f"with {', '.join(dead) or 'nothing'} dead the {what} say something else than the network, "
                f"by {apart:.1g} of its largest logit; report this, with the command"
            )
