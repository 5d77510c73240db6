"""An independent rendering of SPEC in plain NumPy loops, against which the package is tested."""

import itertools

import numpy as np

from resilinet_jax.network.graph import Graph, build_chain, build_graph

CHAIN = build_chain(("i", "n1", "n2", "n3", "n4"))

# Fig. 2c: the fallible node v has two children, a and b; each is bypassed, and so is v by two skips.
TREE = build_graph(
    ("i", "a", "b", "v", "top", "cloud"),
    [("i", "a"), ("i", "b"), ("a", "v"), ("b", "v"), ("v", "top"), ("top", "cloud")],
    [("a", "top"), ("b", "top"), ("v", "cloud")],
)


def all_masks(graph: Graph) -> list[dict[str, int]]:
    return [dict(zip(graph.fallible, bits)) for bits in itertools.product((1, 0), repeat=len(graph.fallible))]


def forward(graph, params, x, alive, weight, present, activity):
    """Logits and whether anything arrived, for dense ReLU stages; `params` as `Network.init` makes them."""

    def layers(name, value, hidden_activation):
        stack = [params[name][key] for key in sorted(params[name])] if name in params else []
        for number, layer in enumerate(stack):
            value = value @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
            if hidden_activation and not (name == graph.cloud and number == len(stack) - 1):
                value = np.maximum(value, 0)
        return value

    def adapter(name, value):
        if name not in params:
            return value
        layer = params[name]
        return value @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)

    sends, output = (
        {graph.sources[0]: True},
        {graph.sources[0]: layers(graph.sources[0], np.asarray(x, np.float64), True)},
    )
    for node in graph.order[1:]:
        total, receives = None, False
        for index, edge in enumerate(graph.hyperconnections):
            if edge.target != node:
                continue
            carried = adapter(edge.name, output[edge.source])
            gate = 1.0
            if edge.is_skip:
                gate = max(activity[index], 0.0 if sends[edge.bypassed[-1]] else 1.0)
            on = present[index] * gate * (1.0 if sends[edge.source] else 0.0)
            receives = receives or on > 0
            total = weight[index] * on * carried + (0 if total is None else total)
        sends[node] = bool(alive.get(node, 1)) and receives
        value = layers(node, total, True)
        output[node] = value if sends[node] else np.zeros_like(value)
    return output[graph.cloud], sends[graph.cloud]
