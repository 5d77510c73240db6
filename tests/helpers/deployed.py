"""An artefact of Health's network, small and untrained, with what the simulation predicts of it; its nodes."""

import asyncio
import contextlib
import logging

import jax
import numpy as np

from resilinet_jax.cells import CellBuilder, draw_weight, inference_wiring
from resilinet_jax.deploy.artefact import Manifest, Predicted, write_artefact
from resilinet_jax.deploy.engines import load_engine
from resilinet_jax.deploy.exporting import export_nodes
from resilinet_jax.deploy.model import Model
from resilinet_jax.deploy.node import Node
from resilinet_jax.deploy.processes import loopback
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.results.messages import hyperconnection_bytes, message_bytes, messages
from resilinet_jax.scenarios import load_scenario

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)


def begun(network, x):
    """Variables such as training begins with: what draws those takes longer to compile than all else of a network."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        owner, *_, name = map(str, path)
        if owner == ".params" and leaf.ndim > 1:
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(leaf.dtype)
        return np.full(leaf.shape, name == "['scale']", leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, network.shapes(x))


def make_artefact(folder, method="resilinet", scenario="health", x=X, **network):
    """Writes the artefact; returns the model, its test split's labels, and what is predicted."""
    made = load_scenario(scenario)
    network = network or {"hidden_units": 6}
    net = made.build_network(3, **network)
    graph = net.graph
    cell = CellBuilder(graph, made.failure_settings, failout_rate=0.1, learning_rate=0.01)(method)
    variables = begun(net, x)
    wiring = inference_wiring(cell, draw_weight(cell, jax.random.key(0)))
    model = Model(net, variables, wiring, None, ("0", "1", "2"))
    y = RNG.integers(0, 3, len(x))
    combinations = all_combinations(graph)
    arrives = messages(graph, cell, combinations.survival)
    sizes = hyperconnection_bytes(graph, message_bytes(net, jax.ShapeDtypeStruct(x.shape, x.dtype)))
    names = [edge.name for edge in graph.hyperconnections]
    predicted = []
    for failing, row in zip(combinations.failing_sets, arrives):
        logits = model(x, failing)
        accuracy = 0.3 if np.isnan(logits).any() else float((logits.argmax(1) == y).mean())
        predicted.append(Predicted(failing, accuracy, [n for n, there in zip(names, row) if there], int(sizes @ row),
                                   not np.isnan(logits).any()))  # fmt: skip
    files = export_nodes(model, jax.ShapeDtypeStruct(x.shape, x.dtype))
    manifest = Manifest(
        scenario=scenario, network=network, graph=graph, sweep="s", cell=method, run=0, settings={},
        present=[bool(each) for each in cell.present], activity=float(cell.inference_activity), skip_units=0.0,
        input_shape=x.shape[1:], input_dtype=str(x.dtype), standardisation=None, classes=model.classes, targets=None,
        class_counts=[], nodes={node: each.signature for node, each in files.items()}, predicted=predicted,
        dataset={"name": "made up"}, recorded={}, code={}, versions={},
    )  # fmt: skip
    arrays, programs = ({node: each[k] for node, each in files.items()} for k in (0, 1))
    return write_artefact(folder, manifest, arrays, programs), model, y


@contextlib.asynccontextmanager
async def running(artefact, names, placement=None, engines="numpy", shown=()):
    """Nodes in this process that are connected; `shown` takes the place of the certificates of those that it names.

    Where that is given, nodes listen, but may not be connected: they may not trust each other.
    """
    placement = placement or loopback(artefact, 1)
    nodes = {name: Node(artefact, name, placement, load_engine(artefact, name, engines)) for name in names}
    for name, certificates in dict(shown).items():
        nodes[name].certificates = certificates
    listen = [asyncio.Event() for _ in nodes]
    tasks = [asyncio.create_task(node.run(each.set)) for node, each in zip(nodes.values(), listen)]
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*(each.wait() for each in listen))
            between = [out for node in nodes.values() for out in node._outgoing if out.target in nodes]
            while not shown and not all(out.connected for out in between):
                await asyncio.sleep(0.01)
        yield placement, nodes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def warnings(caplog):
    """What nodes and clients warn of, without gRPC's errors of event loops that earlier tests have closed."""
    records = [record for record in caplog.records if record.name == "resilinet_jax.node"]
    return [record.getMessage() for record in records if record.levelno > logging.INFO]
