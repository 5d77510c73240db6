"""Health: a dense network over four nodes, from wearable sensors to the cloud.

Paper: Yousefpour et al. 2020, sections 3.1 and 3.2, Fig. 3a, Table 1. Its epochs are not given there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resilinet_jax.datasets.readings import LOADERS
from resilinet_jax.network.graph import build_chain
from resilinet_jax.scenarios._base import Data, DataSettings, Preset, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping

    import flax.linen as nn

    from resilinet_jax.datasets.splits import Dataset
    from resilinet_jax.network.forward import Network
    from resilinet_jax.network.graph import Graph

LAYERS = {"n1": 1, "n2": 2, "n3": 3, "n4": 4}


def build_network(classes: int, hidden_units: int, skip_units: int = 0) -> Network:
    """The chain i -> n1 -> n2 -> n3 -> n4 with skips i->n2, n1->n3, n2->n4; the softmax head on n4.

    Args:
      classes: number of them.
      hidden_units: of every layer.
      skip_units: at most, of skip layers; 0 for plain adapters.
    """
    return dense_network(LAYERS, hidden_units, classes, skip_units)


def dense_network(layers: Mapping[str, int], hidden_units: int, classes: int, skip_units: int = 0) -> Network:
    """A chain of nodes with dense layers, from a source `i`, with a skip around every fallible node.

    Args:
      layers: number of dense layers of each node, by its name, in data-flow order; the last node is the cloud, which
        has the softmax head besides.
      hidden_units: of every layer.
      classes: number of them.
      skip_units: at most, of skip layers; 0 for plain adapters.
    """
    from resilinet_jax.network.forward import Network
    from resilinet_jax.network.stages import DenseStage

    graph = build_chain(("i", *layers))
    stages = {
        node: DenseStage(count, hidden_units, classes if node == graph.cloud else None)
        for node, count in layers.items()
    }
    return Network(graph, stages, skip_adapters(graph, hidden_units, skip_units))


def skip_adapters(graph: Graph, hidden_units: int, skip_units: int) -> dict[str, nn.Module]:
    """Adapters of a graph's skips: what makes raw input as wide as a layer, or a skip layer for each.

    Args:
      graph: whose skips they are.
      hidden_units: of every layer, so what a skip has to bring.
      skip_units: at most, of skip layers; 0 for plain adapters, which only skips from a source need.

    Returns:
      The adapters by the name of their skip.
    """
    from resilinet_jax.network.stages import DenseSkipLayer, dense

    if skip_units:
        return {skip.name: DenseSkipLayer(skip_units, hidden_units) for skip in graph.skips}
    return {skip.name: dense(hidden_units) for skip in graph.skips if skip.source in graph.sources}


def compiler_options() -> Mapping[str, str]:
    """Options of XLA for dense layers on CPU.

    At XLA's own level, 3, LLVM unrolls loops over rows of 32 numbers, and does without vectors: networks of 32 units
    train faster at level 2 (`python -m benchmarks.step`). Wider layers train alike, and all compile in two thirds to
    three quarters of the time. Not for convolutions, which level 2 slows down.
    """
    import jax

    if jax.default_backend() != "cpu" or jax.config.values["jax_disable_most_optimizations"]:
        return {}
    return {"xla_backend_optimization_level": "2"}


def load(settings: DataSettings, preset: Preset) -> Data:
    """Readings of sensors, kept on the device; all values of a window are features."""
    from resilinet_jax.datasets.readings import load_dataset

    dataset, description = load_dataset(settings.dataset, settings.data_folder, settings)
    if dataset.x.ndim > 2:
        import numpy as np

        offset = None if dataset.offset is None else np.tile(dataset.offset, dataset.x.shape[1])
        flat = dataset.x.reshape(len(dataset.y), -1)
        dataset = dataclasses.replace(dataset, x=flat, offset=offset, feature_names=())
    return resident(dataset, description, settings, preset)


def resident(dataset: Dataset, description: str, settings: DataSettings, preset: Preset) -> Data:
    """A data set, split as the flags ask for and kept on the device.

    Args:
      dataset: to split.
      description: of it, in a line.
      settings: the flags about data.
      preset: which says how many examples train.
    """
    from resilinet_jax.datasets.feed import Resident
    from resilinet_jax.datasets.splitting import draw_splits

    splits = draw_splits(dataset, settings, preset.train_examples)
    people = None if dataset.subject is None else len(set(dataset.subject.tolist()))
    rows, fingerprint = len(dataset.y), dataset.fingerprint()
    return Data(Resident(splits), splits.classes, dataset.name, description, rows, fingerprint, people)


PAPER = Preset(
    runs=10,
    epochs=50,
    batch_size=1024,
    learning_rate=0.001,
    failout_rate=0.05,
    train_examples=None,
    network={"hidden_units": 250},
)
# Sized for two cores: the failout-rate sweep trains in two minutes and shows the paper's pattern.
QUICK = dataclasses.replace(
    PAPER, runs=5, epochs=25, batch_size=256, train_examples=20_000, network={"hidden_units": 100}
)

SCENARIO = Scenario(
    name="health",
    datasets=tuple(LOADERS),
    load=load,
    build_network=build_network,
    failure_settings={
        "no failure": {},
        "normal": {"n1": 0.08, "n2": 0.04, "n3": 0.01},
        "poor": {"n1": 0.13, "n2": 0.09, "n3": 0.05},
        "hazardous": {"n1": 0.22, "n2": 0.20, "n3": 0.15},
    },
    presets={"paper": PAPER, "quick": QUICK},
    compiler_options=compiler_options,
)
