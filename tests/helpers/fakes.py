"""Results that nobody measured."""

import dataclasses
import functools

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.text import Text

from resilinet_jax.cells import CellBuilder
from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.deploy import report as deployment
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.report import report
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import Results
from resilinet_jax.runtime.store import Measured
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios.health import SCENARIO
from resilinet_jax.sweeps import load_sweep
from tests.helpers.reference import CHAIN

BUILD = CellBuilder(CHAIN, SCENARIO.failure_settings, 0.05, 1e-3)


def measured(accuracy, epochs=0, hyperconnections=7):
    """What runs left, of which only the accuracies matter."""
    runs, combinations = accuracy.shape
    curves = np.full((runs, epochs), 0.25)
    return Measured(accuracy, curves, curves, np.ones((runs, hyperconnections)), np.zeros((runs, combinations, 0, 3)))


def with_classes(results, classes=12, seed=0):
    """The same with made-up counts of classes, of which those with high numbers are harder."""
    rng = np.random.default_rng(seed)

    def add(runs):
        examples, recall = rng.integers(50, 150, classes), runs.score.clip(0, 1)[..., None]
        right = np.floor(examples * recall ** np.linspace(0.5, 2, classes))
        wrong = rng.integers(0, 20, (*runs.score.shape, classes))
        return runs._replace(outcomes=np.stack([right, wrong, examples - right], -1).astype(float))

    return dataclasses.replace(results, measured={name: add(runs) for name, runs in results.measured.items()})


def fake(name, runs=3, build=BUILD):
    """Results with accuracies that tell cells, runs and combinations apart."""
    cells = load_sweep(name).cells(build)
    rng = np.random.default_rng(0)
    combinations = 2 ** len(build.graph.fallible)
    level = {cell: rng.uniform(0.2, 0.9, combinations) for cell in cells}
    accuracy = {cell: level[cell] + rng.normal(0, 0.005, (runs, combinations)) for cell in cells}
    accuracy[next(iter(cells))][0] -= 0.4  # one cell has a wide deviation
    sizes = {node: 92 + 4 * number for number, node in enumerate(build.graph.order[:-1])}
    edges = len(build.graph.hyperconnections)
    runs = {cell: measured(each, hyperconnections=edges) for cell, each in accuracy.items()}
    return Results(all_combinations(build.graph), build.failure_settings, cells, runs, sizes)


@functools.cache
def mobilenet_builder():
    mobilenet = load_scenario("cifar10")
    graph = mobilenet.build_network(10, alpha=0.1, image_size=32, momentum=0.99).graph
    return CellBuilder(graph, mobilenet.failure_settings, 0.05, 1e-3)


def with_history(results, epochs=4):
    rng = np.random.default_rng(1)

    def add(runs):
        shape = (len(runs.score), epochs)
        return runs._replace(loss=rng.uniform(0, 2, shape), validation_score=rng.uniform(0, 1, shape))

    return dataclasses.replace(results, measured={name: add(runs) for name, runs in results.measured.items()})


def record(name, dataset="synthetic", notes=("made up, not measured",), settings=None):
    """What would repeat a sweep of Health."""
    choice = choose(settings or Settings("all", seed=3))
    return Record(
        sweep=name,
        settings=dataclasses.asdict(choice.settings),
        preset=dataclasses.asdict(choice.preset),
        dataset={"name": dataset, "fingerprint": "0123abcd", "rows": 0, "classes": 12},
        examples={"train": 80, "validation": 10, "test": 10},
        failure_settings=choice.scenario.failure_settings,
        notes=notes,
        environment={"devices": ["cpu", "cpu"]},
        command=choice.settings_for(dataset).command_line(name),
    )


def text_in(figure):
    """In place of a picture: all that a figure says, and where its lines run."""
    words = [each.get_text() for each in figure.findobj(Text)]
    lines = [each.get_xydata().tolist() for each in figure.findobj(Line2D)]
    return repr((words, lines)).encode()


def leave_out_pictures(patch):
    """Figures are made, but no picture of them, which takes most of a report's time."""
    for module in (report, deployment):
        for kind in ("png", "svg"):
            patch.setattr(module, kind, text_in)
