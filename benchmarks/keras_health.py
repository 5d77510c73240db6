"""The Health network in Keras 3 on TensorFlow or JAX, one model after another.

Evaluated in the way of the paper's code: weights zeroed, then `predict`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras

from benchmarks.cases import FAILOUT_RATE
from resilinet_jax.datasets.splits import Splits

LAYERS = (1, 2, 3, 4)


class Masks(keras.layers.Layer):
    """Which nodes live and which skips carry, drawn for each batch in training; all and none at inference."""

    def __init__(self) -> None:
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x: Any, training: bool = False) -> Any:
        """Survival of the nodes [3], then the gates of the skips around them [3]."""
        del x
        if not training:
            return keras.ops.array([1.0] * 3 + [0.0] * 3)
        draws = keras.random.uniform((6,), seed=self.seed)
        alive = keras.ops.cast(draws[:3] >= FAILOUT_RATE, "float32")
        active = keras.ops.cast(draws[3:] < 0.5, "float32")
        return keras.ops.concatenate([alive, keras.ops.maximum(active, 1 - alive)])

    def compute_output_spec(self, x: Any, training: bool = False) -> keras.KerasTensor:
        """Of six masks, whatever the batch."""
        return keras.KerasTensor((6,))


def build(
    features: int, units: int, classes: int, layers: tuple[int, ...] = LAYERS, drawn: bool = False
) -> tuple[keras.Model, list[list[keras.layers.Layer]]]:
    """Dense layers over four nodes with adding skips, and the layers of each node that may fail.

    With `drawn`, nodes fail and skips are active at random in training.
    """
    inputs = keras.Input((features,))
    nodes: list[list[keras.layers.Layer]] = []
    masks = Masks()(inputs) if drawn else [1] * 6

    def stage(x: Any) -> Any:
        number = len(nodes)
        nodes.append([keras.layers.Dense(units, "relu") for _ in range(layers[number])])
        for layer in nodes[-1]:
            x = layer(x)
        return masks[number] * x if drawn and number < 3 else x

    def joined(simple: Any, skip: Any, number: int) -> Any:
        return keras.layers.add([simple, masks[3 + number] * skip if drawn else skip])

    n1 = stage(inputs)
    n2 = stage(joined(n1, keras.layers.Dense(units)(inputs), 0))
    n3 = stage(joined(n2, n1, 1))
    n4 = stage(joined(n3, n2, 2))
    return keras.Model(inputs, keras.layers.Dense(classes)(n4)), nodes[:3]


def trainer(
    splits: Splits, batch_size: int, units: int, layers: tuple[int, ...]
) -> Callable[[int], Callable[[], list[float]]]:
    """Training by `fit`: from a seed to a function that trains for an epoch, validates, and returns the loss."""

    def start(seed: int) -> Callable[[], list[float]]:
        keras.utils.set_random_seed(seed)
        model, _ = build(splits.train.x.shape[1], units, splits.classes, layers, drawn=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])

        def epoch() -> list[float]:
            fitted = model.fit(*splits.train, batch_size, verbose=0, validation_data=splits.validation)
            return fitted.history["loss"]

        return epoch

    return start


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
