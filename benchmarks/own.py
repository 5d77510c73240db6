"""This project as a contender: the engine's own compiled functions for a number of models."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.cases import FAILOUT_RATE, SIDE, Case, build_network
from resilinet_jax.cells import CellBuilder
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splits import Splits
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.evaluation import accuracy_of, empty_tally
from resilinet_jax.engine.program import Models, default_compiler_options, over_models, shardings
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.network.forward import Network
from resilinet_jax.scenarios._base import Scenario

RUNS = 10  # of a cell


class Own:
    """The engine's program for models as a sweep of failout rates has them: cells of ten runs each.

    Attributes:
      program: of the engine.
      network: that is trained.
    """

    def __init__(
        self,
        scenario: Scenario,
        network: Network,
        splits: Splits,
        batch_size: int,
        models: int,
        rests_on: str | None = None,
        options: Mapping[str, bool | str] | None = None,
        stack: int | None = None,
    ):
        """Nothing compiles yet.

        Args:
          scenario: whose failure settings and options hold.
          network: to train.
          splits: what to train on and validate with.
          batch_size: examples per step.
          models: to train.
          rests_on: functions are kept for the next start with the same one, if it is given.
          options: of XLA; None for the scenario's.
          stack: how many models of a device train at once; None for the engine's default.
        """
        options = scenario.compiler_options() if options is None else options
        settings = engine.TrainingSettings(
            models, 1, batch_size, 0, stack=stack, compiler_options=options, rests_on=rests_on
        )
        # As the engine does for cells whose weights are not learned.
        self._feed, self.network = Resident(splits), dataclasses.replace(network, learns_weights=False)
        self.program = engine.Program(self.network, self._feed, settings, all_combinations(network.graph))
        build = CellBuilder(network.graph, scenario.failure_settings, FAILOUT_RATE, 1e-3)
        rates = np.linspace(FAILOUT_RATE, 0.5, -(-models // RUNS))
        trainings = engine.plan_trainings({f"{rate}": build("resilinet", failout_rate=rate) for rate in rates})
        each = [engine.Model(training, run) for training in trainings for run in range(RUNS)]
        self._each = each[:models]  # the last cell may have fewer runs

    def assembled(self, seed: int = 0) -> Models:
        """The models, before they are anywhere."""
        return engine.assemble(self._each, 1, seed)

    def place(self, seed: int = 0) -> tuple[Models, Mesh]:
        """The models on their devices."""
        return self.program.place(self.assembled(seed))

    def start(self, seed: int, validated: bool = True) -> Callable[[], list[float]]:
        """A function that trains all models for an epoch and returns mean training losses.

        They are those of the first ten models alone, whose failout rate is the peers'.

        Args:
          seed: of initial weights, batches and masks.
          validated: whether the epoch ends with validation, and the best one's weights are kept.
        """
        models, mesh = self.place(seed)
        call = self.program.compile(mesh, models)
        state = call["start"](models.keys)
        sharded, replicated = shardings(mesh)
        orders_of = self.program.orders_of(models, mesh)
        members = jax.device_put(self.program.members, replicated)
        numbers = itertools.count()
        chunks, plan = self._feed.train(0, replicated), self.program.validation_plan

        def epoch() -> list[float]:
            nonlocal state
            orders = call["order"](*orders_of, jax.device_put(np.int32(next(numbers)), replicated), members["train"])
            orders = jax.device_put(orders, replicated)
            state, losses = call["train"](state, models, next(chunks), orders, members["train"])
            compared = np.asarray(losses[: min(len(self._each), RUNS)]).tolist()  # waits, as the engine does
            if not validated:
                return compared
            tally = jax.device_put(empty_tally(len(models.order), plan.answers, classes=self._feed.classes), sharded)
            for number, chunk in enumerate(self._feed.held_out("validation", replicated)):
                placed = jax.device_put(np.int32(number), replicated)
                tally = call["validate"](tally, state, models, chunk, placed, members["validation"])
            accuracy = accuracy_of(tally, plan, int(self._feed.sizes["validation"][0]), chance=0.0)[..., 0]
            state = call["finish"](state, jax.device_put(accuracy.astype(np.float32), sharded))
            return compared

        return epoch


def own_case(case: Case, splits: Splits, models: int, **more: Any) -> Own:
    """For a case of training; the parameters are as of `Own`."""
    return Own(*build_network(case, splits.classes), splits, case.batch_size, models, **more)


def parameters(network: Network, splits: Splits) -> int:
    """How many a model has."""
    return sum(leaf.size for leaf in jax.tree.leaves(network.shapes(splits.train.x).params))


def square_product(devices: int) -> Callable[[], object]:
    """Multiplies large square matrices, one on each device."""
    mesh = Mesh(jax.devices()[:devices], ("models",))
    x = jax.device_put(
        jax.random.normal(jax.random.key(0), (devices, SIDE, SIDE), jnp.float32), shardings(mesh).sharded
    )
    multiply = over_models(mesh, 1, lambda a: a @ a, 1, 0)
    call = jax.jit(multiply).lower(x).compile(default_compiler_options())
    return lambda: call(x).block_until_ready()
