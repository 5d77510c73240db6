"""What a sweep will take, measured on a few steps and a few examples before it is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from resilinet_jax.datasets.feed import Feed
from resilinet_jax.engine.pass_size import kept_bytes, models_per_pass
from resilinet_jax.engine.program import TrainingSettings
from resilinet_jax.engine.run_cells import Model, assemble, cut_into_passes, programs_for
from resilinet_jax.engine.trial import Trial, seconds
from resilinet_jax.failures.combinations import Combinations
from resilinet_jax.network.forward import Network
from resilinet_jax.runtime.progress import Progress

SECONDS = 2.0  # that each of the two is measured for, on a machine of `FLOPS`
FLOPS = 5e10
MOST_EXAMPLES = 8192  # that are evaluated
ALL_FUNCTIONS = 2.0  # times as long as the two that are tried a program takes to compile, on four sweeps


class Forecast(NamedTuple):
    """What is left of a sweep.

    Attributes:
      runs: to train.
      passes: in which they are trained.
      compiling: seconds, where nothing is kept from before.
      training: seconds, with validation.
      evaluating: seconds, under every failure combination.
      operations: floating-point, of training.
      memory: bytes beside the data, of the largest pass.
    """

    runs: int
    passes: int
    compiling: float
    training: float
    evaluating: float
    operations: float
    memory: int


def forecast(
    network: Network,
    feed: Feed,
    models: Sequence[Model],
    settings: TrainingSettings,
    combinations: Combinations,
    progress: Progress,
) -> Forecast:
    """Measures what training these models will take; trains none of them.

    Args:
      network: of the scenario.
      feed: of its data.
      models: at least one.
      settings: how to train.
      combinations: that are evaluated.
      progress: told about the measurement.
    """
    variants = max(len(model.training.variants) for model in models)
    parts = []
    for learns, program in programs_for(network, feed, models, settings, combinations).items():
        same = [model for model in models if model.learns_weights == learns]
        first = assemble(same[: program.abreast], variants, settings.seed, feed.labels)
        trial, most = Trial(program), settings.runs_per_pass or models_per_pass(program, first, len(same), progress)
        passes = cut_into_passes(same, most)
        turns = sum(-(-len(together) // program.abreast) for together in passes)
        flops = trial.flops_per_step
        budget = SECONDS * FLOPS / len(first.order)
        steps = max(1, min(program.steps_per_epoch, round(budget / flops)))
        tested = int(max(feed.sizes["test"]))
        nodes = len(network.graph.order) - len(network.graph.sources)  # whose applications a plan counts
        per_example = flops / settings.batch_size / 3 * program.plan.applications / nodes
        examples = max(1, min(tested, MOST_EXAMPLES, round(budget / (per_example * variants))))
        with progress.phase("measuring what a run takes"):
            start = time.perf_counter()
            train, working = trial.prepare(first, steps)
            test = trial.prepare_test(first, examples)
            compiling = time.perf_counter() - start
            step, example = seconds(train) / steps, seconds(test) / examples
        # A forward pass over the validation split, where training takes two more backward.
        validated = int(max(feed.sizes["validation"])) / settings.batch_size / 3
        validated *= program.validation_plan.applications / nodes
        parts.append(
            Forecast(
                runs=len(same),
                passes=len(passes),
                compiling=ALL_FUNCTIONS * compiling,
                training=turns * settings.epochs * step * (program.steps_per_epoch + validated),
                evaluating=turns * tested * example,
                operations=len(same) * settings.epochs * flops * (program.steps_per_epoch + validated),
                memory=working + kept_bytes(trial) * len(passes[0]),
            )
        )
    *sums, memory = zip(*parts)
    return Forecast._make([*map(sum, sums), max(memory)])
