"""MobileNetV1 over a source, two nodes and the cloud: what the scenarios with images share.

Paper: Yousefpour et al. 2020, sections 3.1 and 3.2, Fig. 3b, Table 1. Layers: Howard et al. 2017, Table 1.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from resilinet_jax.network.graph import build_chain
from resilinet_jax.scenarios._base import Preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilinet_jax.network.forward import Network

STEM = 32
# Filters and strides of the 13 stacked layers, by the node that hosts them, at width 1 and for large images.
LAYERS = {
    "m1": ((64, 1), (128, 2), (128, 1)),
    "m2": ((256, 2), (256, 1), (512, 2), (512, 1), (512, 1)),
    "m3": ((512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
}

FAILURE_SETTINGS = {
    "no failure": {},
    "normal": {"m1": 0.04, "m2": 0.02},
    "poor": {"m1": 0.10, "m2": 0.05},
    "hazardous": {"m1": 0.20, "m2": 0.15},
}


# Of small images; photographs take more.
PAPER = Preset(
    runs=10,
    epochs=75,
    batch_size=128,
    learning_rate=0.001,
    failout_rate=0.05,
    train_examples=None,
    augment=True,
    network={"alpha": 0.75, "image_size": 32, "momentum": 0.99},
)


def build_mobilenet(
    classes: int, alpha: float, image_size: int, momentum: float, skip_units: int = 0, *, small_images: bool
) -> Network:
    """The chain i -> m1 -> m2 -> m3 with skips i->m2 and m1->m3; the size of the images changes nothing in it.

    Args:
      classes: number of them.
      alpha: factor on every number of filters, above 0.
      image_size: ignored; here since presets pass it.
      momentum: of batch normalisation's running statistics, in [0, 1).
      skip_units: at most, of skip layers; 0 for plain adapters.
      small_images: as the paper's code has it for CIFAR-10, the stem and stacked layer 2 then have stride 1.
    """
    del image_size
    from resilinet_jax.network.forward import Network
    from resilinet_jax.network.stages import Layer, MobileNetStage, PointwiseAdapter, SeparableSkipLayer, Stem

    graph = build_chain(("i", *LAYERS))

    def scaled(filters: int) -> int:
        return max(1, int(filters * alpha))

    layers = {node: [Layer(scaled(filters), stride) for filters, stride in own] for node, own in LAYERS.items()}
    if small_images:
        layers["m1"][1] = layers["m1"][1]._replace(stride=1)
    stages = {"i": Stem(scaled(STEM), 1 if small_images else 2, momentum)} | {
        node: MobileNetStage(tuple(own), classes if node == graph.cloud else None, momentum)
        for node, own in layers.items()
    }
    adapters = {}
    for skip in graph.skips:
        # What a skip brings has to look like what the nodes that it bypasses would have sent.
        bypassed = list(itertools.chain.from_iterable(layers[node] for node in skip.bypassed))
        fitting = bypassed[-1].filters, math.prod(layer.stride for layer in bypassed)
        adapters[skip.name] = SeparableSkipLayer(skip_units, *fitting) if skip_units else PointwiseAdapter(*fitting)
    return Network(graph, stages, adapters)


def compiler_options() -> Mapping[str, bool]:
    """What the convolutions' speed rests on."""
    from resilinet_jax.network import convolutions

    return convolutions.compiler_options()
