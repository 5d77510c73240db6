import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resilinet_jax as rj
from resilinet_jax import files
from resilinet_jax.cells import METHODS, Learned, draw_weight, inference_wiring, make_cell
from resilinet_jax.datasets.splits import Standardisation
from resilinet_jax.deploy.artefact import Artefact, Manifest, check_target, write_artefact
from resilinet_jax.deploy.exporting import PLATFORMS, check_programs, export_nodes
from resilinet_jax.deploy.model import Model, trained_model
from resilinet_jax.errors import UserError
from resilinet_jax.files import checked_json, read_json
from resilinet_jax.network.arrays import to_arrays
from resilinet_jax.network.convolutions import FAST, PLAIN, TAPS, lowered_for, operations
from resilinet_jax.network.forward import ADDED_WEIGHT, Network
from resilinet_jax.network.stages import DenseStage, dense
from resilinet_jax.runtime.identity import code_version
from resilinet_jax.scenarios import load_scenario
from tests.helpers.deployed import begun
from tests.helpers.graphs import DAG, LADDER
from tests.helpers.mobilenet import NETWORK as MOBILENET
from tests.helpers.nodes import Nodes
from tests.helpers.reference import CHAIN, TREE, all_masks, forward

RNG = np.random.default_rng(0)


def at_random(network, x, cell):
    """A model whose every number is another one, as if training had moved it."""
    moved = lambda leaf: np.asarray(leaf) + RNG.uniform(0.05, 0.15, leaf.shape).astype(np.float32)  # noqa: E731
    variables = jax.tree.map(moved, begun(network, x))
    weight = draw_weight(cell, jax.random.key(0))
    return Model(network, variables, inference_wiring(cell, weight), None, ("a", "b", "c"))


def exported(model, x, folder, **changes):
    files = export_nodes(model, jax.ShapeDtypeStruct(x.shape, x.dtype))
    graph = model.network.graph
    facts = {
        "scenario": "health", "network": {}, "graph": graph, "sweep": "s", "cell": "c", "run": 0, "settings": {},
        "present": [bool(each) for each in model.wiring.present], "activity": float(model.wiring.activity[0]),
        "skip_units": float(model.wiring.skip_units), "input_shape": x.shape[1:], "input_dtype": str(x.dtype),
        "standardisation": None, "classes": model.classes, "targets": None, "class_counts": [],
        "nodes": {node: each.signature for node, each in files.items()}, "predicted": [], "dataset": {}, "recorded": {},
        "code": {}, "versions": {},
    }  # fmt: skip
    arrays, programs = ({node: each[k] for node, each in files.items()} for k in (0, 1))
    write_artefact(folder, Manifest(**facts | changes), arrays, programs)
    return files


def dense_network(graph, units=6):
    stages = {node: DenseStage(1, units, 3 if node == graph.cloud else None) for node in graph.order[1:]}
    adapters = {skip.name: dense(units) for skip in graph.skips if skip.source in graph.sources}
    return Network(graph, stages, adapters)


X = RNG.normal(size=(5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("graph", "method"),
    [
        pytest.param(CHAIN, "vanilla", id="chain, no skips"),
        pytest.param(CHAIN, "resilinet_select", id="chain, select"),
        pytest.param(TREE, "resilinet_select", id="tree, select"),
        pytest.param(DAG, "resilinet_select", id="dag, select"),
        pytest.param(DAG, "resilinet_add", id="dag, add"),
        pytest.param(LADDER, "resilinet_select", id="ladder, select"),
    ],
)
def test_nodes_say_together_what_the_paper_says(tmp_path, graph, method):
    network = dense_network(graph)
    weights = {edge.name: 0.5 + 0.1 * number for number, edge in enumerate(graph.hyperconnections)}
    settings = {name: value for name, value in METHODS[method].items() if name != "failout_rate"}
    cell = make_cell(graph, weight=weights, **settings)
    model = at_random(network, X, cell)
    exported(model, X, tmp_path / "a")
    nodes = Nodes(tmp_path / "a")
    params = model.variables.params
    weight, present, activity = (np.asarray(getattr(model.wiring, name)) for name in ("weight", "present", "activity"))
    answered, apply = 0, jax.jit(model.output)
    for alive in all_masks(graph):
        # Links are nodes to the reference only where it is asked for none.
        if all(alive.get(link, 1) for link in graph.links):
            expected, informed = forward(graph, params, X, alive, weight, present, activity)
            got = nodes.answer(X, alive)
            assert (got is not None) == informed
            answered += informed
            if informed:
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
        survival = jnp.array([float(alive[name]) for name in graph.fallible])
        output = apply(model.variables, X, survival)
        got = nodes.answer(X, alive)
        assert (got is not None) == bool(output.informed)
        np.testing.assert_allclose(np.zeros((5, 3)) if got is None else got, output.logits, rtol=1e-5, atol=1e-5)
    assert answered > (method != "vanilla")


IMAGES = RNG.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("network", "x", "cell"),
    [
        pytest.param(MOBILENET, IMAGES, {}, id="statistics by arrival"),
        pytest.param(MOBILENET, IMAGES, {"training_activity": 0.5, "statistics": "shared"}, id="shared statistics"),
        pytest.param(
            load_scenario("health_sensors").build_network(3, hidden_units=6, skip_units=5),
            RNG.normal(size=(5, 23)).astype(np.float32),
            {"skip_units": 3},
            id="several sources, skip layers",
        ),
        pytest.param(dense_network(CHAIN), X, {"weight": Learned(0.7)}, id="learned weights"),
    ],
)
def test_every_kind_of_network_exports(tmp_path, network, x, cell):
    model = at_random(network, x, make_cell(network.graph, **cell))
    if "weight" in cell:
        assert np.abs(model.variables.params[ADDED_WEIGHT]).min() > 0
    if network is MOBILENET:  # each arrival has statistics of its own, and one has never occurred; or none has but one
        steps = [5.0, 0.0, 0.0, 0.0] if "statistics" in cell else [0.0, 1.0, 2.0, 0.0]
        known = model.variables.statistics.items()
        seen = {n: s._replace(seen=jnp.array(steps[: len(s.seen)])) for n, s in known}
        model = dataclasses.replace(model, variables=model.variables._replace(statistics=seen))
    exported(model, x, tmp_path / "a")
    nodes = Nodes(tmp_path / "a")
    masks, apply = all_masks(network.graph), jax.jit(model.output)
    for alive in masks if len(masks) < 20 else [masks[i] for i in RNG.choice(len(masks), 12, replace=False)]:
        survival = jnp.array([float(alive[name]) for name in network.graph.fallible])
        output = apply(model.variables, x, survival)
        got = nodes.answer(x, alive)
        assert (got is not None) == bool(output.informed)
        if got is not None:
            np.testing.assert_allclose(got, output.logits, rtol=1e-5, atol=1e-5)


def test_recalibrated_statistics_are_refused_in_a_line():
    cell = make_cell(MOBILENET.graph, statistics="recalibrated")
    with pytest.raises(UserError, match="the cell has statistics of each failure combination, but a node sees what"):
        trained_model(MOBILENET, cell, {}, 0, 0, jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype))


def test_operations_are_those_of_the_platform_that_is_lowered_for():
    assert operations() is FAST
    with lowered_for("cuda"):
        assert operations() is TAPS
        with lowered_for("cpu"):
            assert operations() is FAST
        with lowered_for("onnx"):
            assert operations() is PLAIN
    assert operations() is FAST


def test_programs_are_small_and_for_every_platform(tmp_path):
    model = at_random(dense_network(CHAIN, 100), X, make_cell(CHAIN))
    files = exported(model, X, tmp_path / "a")
    for node, each in files.items():
        program = jax.export.deserialize(bytearray(each.program))
        assert program.platforms == PLATFORMS
        assert len(each.program) < 20_000, node
    size = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables.params))
    assert size <= 1.05 * 4 * parameters + 64 * 1024 * len(files)


def test_programs_that_say_something_else_are_refused():
    model = at_random(dense_network(CHAIN), X, make_cell(CHAIN))
    files = export_nodes(model, jax.ShapeDtypeStruct(X.shape, X.dtype))
    check_programs(model, files, X)
    kernel = "params/n3/Dense_0/kernel"
    wrong = files["n3"]._replace(arrays={**files["n3"].arrays, kernel: files["n3"].arrays[kernel] * 1.001})
    with pytest.raises(UserError, match="with nothing dead the exported programs say something else"):
        check_programs(model, files | {"n3": wrong}, X)
    bias = "params/i->n2/bias"  # of a skip that carries while n1 is dead alone
    wrong = files["n2"]._replace(arrays={**files["n2"].arrays, bias: files["n2"].arrays[bias] + 1})
    with pytest.raises(UserError, match="with n1 dead the exported programs say something else"):
        check_programs(model, files | {"n2": wrong}, X)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (lambda x: x if x.shape[0] > 3 else 2 * x, "node 'n1' can't be exported"),
        (lambda x: x.sum(0), r"node 'n1' sends an array of shape \(4,\), in which not just one axis is the batch"),
    ],
)
def test_a_stage_that_can_not_be_exported_is_named(stage, message):
    graph = rj.build_graph(("i", "n1", "n2"), [("i", "n1"), ("n1", "n2")])
    model = at_random(Network(graph, {"n1": stage}, {}), X, make_cell(graph))
    with pytest.raises(UserError, match=message):
        export_nodes(model, jax.ShapeDtypeStruct(X.shape, X.dtype))


# The folder.


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """Of Health's network, standardised, with its model."""
    network = load_scenario("health").build_network(3, hidden_units=6)
    model = at_random(network, X, make_cell(network.graph, skips=("n1",)))
    folder = tmp_path_factory.mktemp("artefact") / "a"
    scaling = {"centre": [1e9, 0.0, -2.0, 0.5], "scale": [3.0, 1.0, 2.0, 0.1]}
    code = {"code": code_version()["code"]}
    exported(model, X, folder, network={"hidden_units": 6}, standardisation=scaling, code=code)
    return folder, model, Standardisation(*map(np.array, scaling.values()))


def test_a_model_comes_back(artefact):
    folder, model, standardise = artefact
    loaded = rj.load_model(folder)
    raw = X.astype(np.float64) * standardise.scale + standardise.centre
    for failed in ((), ("n2",), ("n1", "n3"), ("n2", "n3"), ("n1", "n2", "n3")):
        expected = dataclasses.replace(model, standardisation=standardise)(raw, failed)
        np.testing.assert_allclose(loaded(raw, failed=failed), expected, rtol=1e-6, atol=1e-6)
        assert np.isnan(expected).all() == (failed != () and failed != ("n2",))
    assert loaded.classes == ("a", "b", "c")
    with pytest.raises(UserError, match=r"'n4' can't fail here \(known: n1, n2, n3\)"):
        loaded(raw, failed=("n4",))


def test_a_model_takes_readings_of_the_type_that_it_was_trained_on(artefact, tmp_path):
    copy = copied(artefact[0], tmp_path)
    (copy / "manifest.json").write_bytes(checked_json(read_json(copy / "manifest.json") | {"input_dtype": "float16"}))
    assert rj.load_model(copy).input_dtype == "float16"
    arrays, example = to_arrays(begun(MOBILENET, IMAGES)), jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)
    model = trained_model(MOBILENET, make_cell(MOBILENET.graph), arrays, 0, 0, example)
    with pytest.raises(UserError, match=r"readings must be integers in \[0, 255\], got 0\."):
        model(IMAGES / 255)


def test_a_model_of_another_version_says_so(artefact, monkeypatch):
    monkeypatch.setattr("resilinet_jax.deploy.model.code_version", lambda: {"code": "another"})
    with pytest.warns(UserWarning, match="exported by another version of the code; its answers may differ"):
        rj.load_model(artefact[0])


def copied(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.mark.parametrize("name", ["n2.safetensors", "n4.stablehlo", "manifest.json"])
@pytest.mark.parametrize("how", [lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], lambda b: b[:100], None])
def test_a_tampered_artefact_is_refused(artefact, tmp_path, name, how):
    copy = copied(artefact[0], tmp_path)
    if how is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(how((copy / name).read_bytes()))
    expected = "missing or not what was exported" if name != "manifest.json" else "is damaged|holds no manifest.json"
    with pytest.raises(UserError, match=expected):
        Artefact.open(copy)


def test_another_format_is_refused(artefact, tmp_path):
    copy = copied(artefact[0], tmp_path)
    (copy / "manifest.json").write_bytes(checked_json(read_json(copy / "manifest.json") | {"format": 1}))
    with pytest.raises(UserError, match="the artefact is of format 1, expected 2"):
        Artefact.open(copy)


def test_nothing_else_is_replaced(artefact, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    check_target(folder)
    check_target(tmp_path / "new" / "deep")
    check_target(artefact[0])
    (folder / "mine.txt").write_text("mine")
    for target in (folder, folder / "mine.txt"):
        with pytest.raises(UserError, match="holds something else than an artefact; choose another --artefact"):
            check_target(target)


def test_names_of_nodes_are_no_paths(tmp_path):
    graph = rj.build_chain(("i", "../up", "a/b%", "Ü n"))
    network = dense_network(graph)
    model = at_random(network, X, make_cell(graph))
    exported(model, X, tmp_path / "deep" / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    got = Nodes(tmp_path / "deep" / "a").answer(X, {})
    np.testing.assert_allclose(got, jax.jit(model.output)(model.variables, X).logits, rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "deep" / "a" / "manifest.json").read_text())["graph"]["order"][1] == "../up"


def test_a_kill_leaves_no_half_artefact(artefact, tmp_path, monkeypatch):
    """Whatever file is being written when all ends, the folder has all of an artefact or is not there."""
    copy = copied(artefact[0], tmp_path)
    content = {path.name: path.read_bytes() for path in copy.iterdir()}
    for last in range(len(content) + 1):
        done = []

        def write(path, text, mode, last=last, done=done):
            if len(done) == last:
                raise KeyboardInterrupt
            done.append(path)
            path.write_bytes(text)

        monkeypatch.setattr(files, "write_file", write)
        target = tmp_path / f"target_{last}"
        try:
            files.write_whole_folder(target, content)
        except KeyboardInterrupt:
            assert not target.exists()
        else:
            assert {path.name: path.read_bytes() for path in target.iterdir()} == content
    assert {path.name for path in tmp_path.iterdir()} == {"copy", f"target_{len(content)}"}
