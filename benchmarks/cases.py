"""Which networks are trained, on what, and the data: the same for this project and its peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import common
from resilinet_jax.datasets.splits import Examples, Splits
from resilinet_jax.datasets.splitting import split_dataset
from resilinet_jax.datasets.synthetic import load_synthetic
from resilinet_jax.scenarios import load_scenario
from resilinet_jax.scenarios.health import dense_network

if TYPE_CHECKING:
    from resilinet_jax.network.forward import Network
    from resilinet_jax.scenarios._base import Scenario

FAILOUT_RATE = 0.05  # and skips active with probability 0.5
SIDE = 4096  # of the square matrices that others' rates are compared with
FLOP = 6 + 2 / 8  # per parameter and example: a product forward and two backward; and one forward to validate an eighth
CORES = common.cores()


class Case(NamedTuple):
    """A network and how it is trained.

    Attributes:
      scenario: whose kind of network it is.
      size: of the network.
      batch_size: examples per step.
      steps: in an epoch; validation has an eighth as many examples.
      epochs: whose losses are compared; 0 where there is nothing to learn.
      stacks: models of this project's contenders.
      peers: ways of PyTorch, Keras and JAX, with the models that each process trains at once, and the processes, among
        which the cores are divided.
      product: whether the rate of a large matrix product is measured beside them.
    """

    scenario: str
    size: dict[str, Any]
    batch_size: int
    steps: int
    epochs: int
    stacks: tuple[int, ...]
    peers: tuple[tuple[str, int, int], ...]
    product: bool = False

    @property
    def dense(self) -> bool:
        """Whether it is a chain of dense layers on readings of sensors, rather than MobileNet on images."""
        return self.scenario == "health"


def _peers(stacked: int) -> tuple[tuple[str, int, int], ...]:
    """Ways to train dense networks, stacks of so many in all; one process with all cores, or one for each.

    With more cores than that each process trains a model, so that they are more in all; their rate counts them all.
    What stands beside the others as information trains one model.
    """
    alone, stacks = ("eager", "compile"), ("vmap", "bmm", "bmm compile")
    each = [(way, 1, processes) for processes in (1, CORES) for way in alone]
    for processes in (1, CORES):
        at_once = max(1, stacked // processes)
        each += [(way, at_once, processes) for way in stacks]
        each += [("nnx", models, processes) for models in (1, at_once)]
    return (*dict.fromkeys(each), ("bf16", 1, 1), ("keras", 1, 1), ("keras jax", 1, 1))


HEALTH = (1, 2, 3, 4)
CASES = {
    "cifar10": [
        Case("cifar10", {"alpha": alpha}, 128, 8, 0, (1, 4), (("eager", 1, 1), ("compile", 1, 1)))
        for alpha in (0.25, 0.75)
    ],
    "health": [Case("health", {"units": 250, "layers": HEALTH}, 1024, 40, 5, (1, 10), _peers(10), True)],
    "quick": [Case("health", {"units": 100, "layers": HEALTH}, 256, 80, 3, (1, 35), _peers(40), True)],
    "small": [Case("health", {"units": 32, "layers": (1, 2, 2, 1)}, 128, 128, 2, (1, 80), _peers(80), True)],
}
# What is raced on a GPU: all models at once against CUDA graphs.
CARD = {
    "health": (280, (("graphs", 1, 1), ("bmm graphs", 40, 1), ("bmm graphs", 280, 1), ("nnx", 280, 1))),
    "small": (280, (("bmm graphs", 280, 1), ("nnx", 280, 1))),
    "cifar10": (70, (("graphs", 1, 1),)),
}
CASES |= {
    f"{name}_card": [CASES[name][-1]._replace(stacks=(models,), peers=rivals, product=False)]
    for name, (models, rivals) in CARD.items()
}


def load_splits(case: Case) -> Splits:
    """The project's synthetic readings; for MobileNet random images, of which nothing can be learned."""
    count = case.steps * case.batch_size
    if case.dense:
        return split_dataset(load_synthetic(), "random", 0, count)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count, np.int32)
    held_out = Examples(x[: count // 8], y[: count // 8])
    return Splits(Examples(x, y), held_out, held_out, 10)


def build_network(case: Case, classes: int) -> tuple[Scenario, Network]:
    """The case's network in this project."""
    scenario = load_scenario(case.scenario)
    if not case.dense:
        return scenario, scenario.build_network(classes, image_size=32, momentum=0.99, **case.size)
    layers = dict(zip(("n1", "n2", "n3", "n4"), case.size["layers"]))
    return scenario, dense_network(layers, case.size["units"], classes)


def dense_options() -> dict[str, bool | str]:
    """XLA's options for dense networks, which are this project's and, as they make JAX itself faster, its rivals'."""
    from resilinet_jax.engine.program import default_compiler_options

    return default_compiler_options() | dict(load_scenario("health").compiler_options())
