"""MobileNetV1's graph with a few small layers."""

from resilinet_jax.network.forward import Network
from resilinet_jax.network.stages import Layer, MobileNetStage, PointwiseAdapter, Stem
from resilinet_jax.scenarios._mobilenet import build_mobilenet

GRAPH = build_mobilenet(3, 0.1, 32, 0.99, small_images=True).graph


# Its graph with fewer layers, which compile faster; one of them strided.
NETWORK = Network(
    GRAPH,
    {
        "i": Stem(4, 1),
        "m1": MobileNetStage((Layer(5, 1),)),
        "m2": MobileNetStage((Layer(6, 2),)),
        "m3": MobileNetStage((Layer(7, 1),), 3),
    },
    {"i->m2": PointwiseAdapter(5, 1), "m1->m3": PointwiseAdapter(6, 2)},
)
