"""The Health network in Keras 3, evaluated in the way of the paper's code: weights zeroed, then `predict`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras


def build(features: int, units: int, classes: int) -> tuple[keras.Model, list[list[keras.layers.Layer]]]:
    """Ten dense layers over four nodes with adding skips, and the layers of each node that may fail."""
    inputs = keras.Input((features,))
    nodes: list[list[keras.layers.Layer]] = []

    def stage(x: object, layers: int) -> object:
        nodes.append([keras.layers.Dense(units, "relu") for _ in range(layers)])
        for layer in nodes[-1]:
            x = layer(x)
        return x

    n1 = stage(inputs, 1)
    n2 = stage(keras.layers.add([n1, keras.layers.Dense(units)(inputs)]), 2)
    n3 = stage(keras.layers.add([n2, n1]), 3)
    n4 = stage(keras.layers.add([n3, n2]), 4)
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(n4)), nodes[:3]


def evaluation_turn(x: np.ndarray, y: np.ndarray, batch_size: int) -> Callable[[], list[float]]:
    """A function that evaluates one model under every combination; returns the accuracies."""
    model, nodes = build(x.shape[1], 250, int(y.max()) + 1)
    kept = model.get_weights()

    def turn() -> list[float]:
        accuracies = []
        for alive in itertools.product((True, False), repeat=len(nodes)):
            for node, lives in zip(nodes, alive):
                for layer in () if lives else node:
                    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
            predicted = model.predict(x, batch_size=batch_size, verbose=0)
            accuracies.append(float((predicted.argmax(1) == y).mean()))
            model.set_weights(kept)
        return accuracies

    return turn
