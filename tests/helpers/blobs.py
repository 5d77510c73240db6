"""A small network on a small data set, which several tests train."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from resilinet_jax.cells import CellBuilder, Uniform, draw_weight
from resilinet_jax.datasets.splits import Dataset
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.engine.program import Program, TrainingSettings
from resilinet_jax.engine.training import run_keys
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.network.forward import Network
from resilinet_jax.network.stages import DenseStage, dense
from resilinet_jax.runtime.progress import Progress
from resilinet_jax.scenarios.health import SCENARIO
from tests.helpers.reference import CHAIN, forward

RNG = np.random.default_rng(0)


LABELS = RNG.integers(0, 3, 400).astype(np.int32)


BLOBS = Dataset("blobs", (RNG.normal(size=(400, 4)) + 2 * np.eye(3, 4)[LABELS]).astype(np.float32), LABELS)


PEOPLE = np.repeat([7, 8, 9, 10], [70, 110, 90, 130])  # of 400 rows; no two people have as many


SPLITS = split_dataset(BLOBS, "random", seed=0)


NETWORK = Network(  # Health's graph with fewer layers, which compile faster
    CHAIN, {node: DenseStage(1, 8, 3 if node == "n4" else None) for node in CHAIN.order[1:]}, {"i->n2": dense(8)}
)


BUILD = CellBuilder(CHAIN, SCENARIO.failure_settings, failout_rate=0.3, learning_rate=0.01, keeps_statistics=False)


SETTINGS = TrainingSettings(runs=3, epochs=6, batch_size=32, seed=1)


CELLS = {
    "vanilla": BUILD("vanilla"),
    "dfg": BUILD("dfg"),
    "resilinet": BUILD("resilinet"),
    "drawn": BUILD("resilinet", weight=Uniform(0, 10), failout_rate=0.1),
}


def with_outputs(count):
    """The same network for so many classes, or numbers to predict."""
    cloud = dataclasses.replace(NETWORK.stages["n4"], classes=count)
    return dataclasses.replace(NETWORK, stages={**NETWORK.stages, "n4": cloud})


def asked(split, splits=1, test_subject=None, seed=0):
    """What flags ask of `draw_splits`."""
    return SimpleNamespace(split=split, splits=splits, test_subject=test_subject, seed=seed)


COMPILED = {}


class Shared(Program):
    """A program that compiles what no other of its kind has compiled in this process."""

    def __init__(self, network, feed, settings, combinations):
        super().__init__(network, feed, settings, combinations)
        given = [(feed.spec(name), feed.members(name).rows.shape) for name in ("train", "validation", "test")]
        compared = settings.selection.survival
        kind = (
            network,
            given,
            settings.batch_size,
            settings.devices,
            self.stack,
            compared,
            combinations.survival,
            self._loss,
        )
        self._compiled = COMPILED.setdefault(repr(kind), {})


class Silent(Progress):
    def _show(self, text):
        pass


def answers_of(arrays, cell, run, x):
    """What a trained network says under each failure combination, from its kept variables in plain loops.

    Returns:
      The cloud's output, and whether anything reached it, of each.
    """
    params = {}
    for path, array in arrays.items():
        kind, name, *layer = path.split("/")
        if kind == "params" and layer:
            module = params.setdefault(name, {})
            (module.setdefault(layer[0], {}) if len(layer) > 1 else module)[layer[-1]] = array
    weight = np.asarray(draw_weight(cell, run_keys(SETTINGS.seed, run).weight))
    activity = np.full(len(weight), cell.inference_activity)
    masks = [{name: name not in failing for name in CHAIN.fallible} for failing in all_combinations(CHAIN).failing_sets]
    return [forward(CHAIN, params, x, alive, weight, cell.present, activity) for alive in masks]


def said_by(arrays, cell, run, x, y, chance):
    """A trained network's accuracy under each failure combination."""
    answers = answers_of(arrays, cell, run, x)
    return [(logits.argmax(1) == y).mean() if informed else chance for logits, informed in answers]
