"""What computes a node; programs in ONNX are only made and run where jax2onnx and onnxruntime are installed."""

import dataclasses
import importlib.util
import re
import sys
import types

import jax
import numpy as np
import pytest

from resilinet_jax.deploy.artefact import Artefact, write_artefact
from resilinet_jax.deploy.engines import load_engine
from resilinet_jax.deploy.exporting import check_programs, export_nodes
from resilinet_jax.deploy.to_onnx import check_onnx, onnx_program
from resilinet_jax.errors import UserError
from resilinet_jax.network.forward import Wiring
from tests.helpers.deployed import X
from tests.helpers.mobilenet import NETWORK as MOBILENET

RNG = np.random.default_rng(0)
installed = pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not installed")


def in_onnx(folder, model, x, made):
    """The artefact with programs in ONNX."""
    files = export_nodes(model, jax.ShapeDtypeStruct(x.shape, x.dtype), onnx=True)
    check_programs(model, files, x)
    facts = {"graph": model.network.graph, "nodes": {node: each.signature for node, each in files.items()}}
    arrays, programs, _, onnx = ({node: each[k] for node, each in files.items()} for k in range(4))
    return write_artefact(folder, dataclasses.replace(made[0].manifest, **facts), arrays, programs, onnx)


def test_engines_that_are_missing_or_can_not_compute_a_node_say_so(made, monkeypatch):
    artefact = made[0]
    with pytest.raises(
        UserError, match=r"node 'n1' is placed on engine \"onnx\", for which .*/a has no program; "
    ) as e:
        load_engine(artefact, "n1", "onnx")
    assert str(e.value).endswith(f"--export={artefact.folder} --onnx adds it")
    nodes = {n: dataclasses.replace(each, onnx=[], dense=None) for n, each in artefact.manifest.nodes.items()}
    other = dataclasses.replace(artefact, manifest=dataclasses.replace(artefact.manifest, nodes=nodes))
    with pytest.raises(UserError, match=r'more than dense layers, .*; take engine = "onnx" or "jax"'):
        load_engine(other, "n1", "numpy")
    for missing, there in (("jax2onnx", "onnxruntime"), ("onnxruntime", "jax2onnx")):
        monkeypatch.setitem(sys.modules, there, types.SimpleNamespace(__spec__="there"))
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(UserError, match=f"--onnx needs {missing}, which is missing; pip install"):
            check_onnx()
    with pytest.raises(UserError, match='"onnx", which is not installed; pip install onnxruntime'):
        load_engine(other, "n1", "onnx")


def with_inputs(artefact, node, inputs):
    """The artefact, as if it had a program in ONNX of this node."""
    nodes = {**artefact.manifest.nodes, node: dataclasses.replace(artefact.manifest.nodes[node], onnx=inputs)}
    return dataclasses.replace(artefact, manifest=dataclasses.replace(artefact.manifest, nodes=nodes))


def test_programs_in_onnx_are_not_lost_by_the_remedy_for_a_damaged_one(made, tmp_path):
    manifest, arrays = made[0].manifest, {node: made[0].arrays(node) for node in made[0].graph.order}
    programs = {node: made[0].program(node) for node in arrays}
    write_artefact(tmp_path / "a", manifest, arrays, programs, {"n1": b"a program"})
    (tmp_path / "a" / "n2.stablehlo").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"n2.stablehlo missing or .*; --export=\S*a --onnx makes programs"):
        Artefact.open(tmp_path / "a")


def test_a_program_that_onnxruntime_can_not_read_is_told_in_a_line(made, monkeypatch):
    def session(*arguments, **options):
        raise RuntimeError("opset 23 is under development\nand more")

    fake = types.SimpleNamespace(SessionOptions=types.SimpleNamespace, InferenceSession=session)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    line = "onnxruntime can't read the program of node 'n2'; expected version 1.23 or newer (opset 23 is under dev"
    with pytest.raises(UserError, match=re.escape(line)):
        load_engine(with_inputs(made[0], "n2", ["carries"]), "n2", "onnx")


@pytest.mark.parametrize("damage", ["the file", "the program in it"])
def test_a_program_that_this_jax_can_not_read_is_told_with_the_remedy(made, monkeypatch, damage):
    content = b"of another format"
    if damage != "the file":
        exported = jax.export.deserialize(bytearray(made[0].program("n2")))
        content = dataclasses.replace(exported, mlir_module_serialized=exported.mlir_module_serialized[:99]).serialize()
    monkeypatch.setattr(Artefact, "program", lambda self, node: content)
    with pytest.raises(UserError, match=r"^JAX \S+ can't read the program of node 'n2' \(.+\); ") as told:
        load_engine(made[0], "n2", "jax")
    assert str(told.value).endswith(f"; --export={made[0].folder} makes it again")


@pytest.mark.parametrize(("variable", "threads"), [("3", 3), ("4,2", 0), (None, 0)])
def test_onnxruntime_gets_the_file_the_inputs_and_the_threads(made, monkeypatch, variable, threads):
    class Session:
        def __init__(self, path, options, providers):
            assert (path, providers) == (str(made[0].folder / "n2.onnx"), ["CPUExecutionProvider"])
            assert options.intra_op_num_threads == threads

        def run(self, outputs, inputs):
            return [inputs["i->n2"] * inputs["carries"][0] + inputs["n1->n2"] * inputs["carries"][1]]

    fake = types.SimpleNamespace(SessionOptions=types.SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    artefact = with_inputs(made[0], "n2", ["carries", "i->n2", "n1->n2"])
    values = [np.full((2, 6), number, np.float32) for number in (2, 5)]
    computed = load_engine(artefact, "n2", "onnx")(np.array([1, 10], np.float32), values)
    np.testing.assert_array_equal(computed, np.full((2, 6), 52))


@installed
@pytest.mark.parametrize("kind", ["dense", "images"])
def test_engines_agree_whatever_carries(made, tmp_path, kind):
    model, x = made[1], X[:5]
    if kind == "images":
        x = RNG.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
        variables = jax.jit(MOBILENET.init)(jax.random.key(0), x[:1])
        variables = jax.tree.map(lambda leaf: leaf + RNG.uniform(0.05, 0.15, leaf.shape).astype(np.float32), variables)
        ones = np.ones(len(MOBILENET.graph.hyperconnections), np.float32)
        wiring = Wiring(ones, 0.7 * ones, 0 * ones)
        model = dataclasses.replace(model, network=MOBILENET, variables=variables, wiring=wiring)
    artefact = in_onnx(tmp_path / "a", model, x, made)
    for node in artefact.graph.order:
        engines = [load_engine(artefact, node, engine) for engine in ("jax", "onnx")]
        edges = [edge for _, edge in artefact.graph.incoming(node)]
        for number in range(1, 2 ** len(edges)) if edges else [0]:
            carries = np.array([number >> k & 1 for k in range(len(edges))], np.float32)
            for rows in (1, 3):
                values = [brought(artefact, edge.source, rows, carry) for edge, carry in zip(edges, carries)]
                by_jax, by_onnx = (engine(carries, values or [x[:rows]]) for engine in engines)
                assert by_jax.dtype == by_onnx.dtype
                np.testing.assert_allclose(by_onnx, by_jax, rtol=1e-5, atol=1e-5)
        assert (artefact.folder / f"{node}.onnx").stat().st_size < 64 * 1024
    assert artefact.manifest.nodes[artefact.graph.cloud].onnx == ["carries", *(edge.name for edge in edges)]


def brought(artefact, node, rows, carries):
    """Some output of a node; what is not carried must not matter."""
    signature = artefact.manifest.nodes[node]
    shape = list(signature.shape)
    shape.insert(signature.batch_axis, rows)
    return RNG.normal(size=shape).astype(signature.dtype) if carries else np.full(shape, 1e30, signature.dtype)


@installed
def test_programs_in_onnx_that_say_something_else_are_refused(made):
    model = made[1]
    files = export_nodes(model, jax.ShapeDtypeStruct(X.shape, X.dtype), onnx=True)
    swapped = files | {"n3": files["n3"]._replace(onnx=files["n3"].onnx.replace(b"Relu", b"Sqrt"))}
    with pytest.raises(UserError, match="the programs in ONNX say something else than the network"):
        check_programs(model, swapped, X)


@installed
def test_an_operation_that_onnx_does_not_have_is_named_with_the_node():
    (batch,) = jax.export.symbolic_shape("batch")
    given = {"input": jax.ShapeDtypeStruct((batch, 4), np.float32)}
    line = r"node 'n1' can't be exported to ONNX: pure_callback \(.*\); leave --onnx out"
    with pytest.raises(UserError, match=line):
        onnx_program("n1", lambda arrays, x: jax.pure_callback(np.sin, x, x), {}, given)
