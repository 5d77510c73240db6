import dataclasses

import pytest

from resilinet_jax.datasets.feed import Resident
from resilinet_jax.engine import forecast as forecasts
from resilinet_jax.engine.forecast import forecast
from resilinet_jax.engine.program import Program
from resilinet_jax.engine.run_cells import plan_models
from resilinet_jax.engine.trial import Trial
from resilinet_jax.failures.combinations import all_combinations
from tests.helpers.blobs import CELLS, NETWORK, SETTINGS, SPLITS, Silent

# 400 examples, of which 320 train in batches of 32: 10 steps; 40 validate and 40 test.
COMBINATIONS = all_combinations(NETWORK.graph)
RUNS = 5


@pytest.fixture
def expected(monkeypatch):
    """A forecast for a machine on which a step takes 2 s, and an example 3 s."""
    prepared = {}

    def prepare(trial, models, steps):
        prepared["steps"] = steps
        return lambda: 2.0 * steps, 1000

    def prepare_test(trial, models, examples):
        prepared["examples"] = examples
        return lambda: 3.0 * examples

    monkeypatch.setattr(Trial, "prepare", prepare)
    monkeypatch.setattr(Trial, "prepare_test", prepare_test)
    monkeypatch.setattr(forecasts, "_seconds", lambda call: call())
    settings = dataclasses.replace(SETTINGS, runs=RUNS, epochs=7, runs_per_pass=2)
    models = plan_models({"dfg": CELLS["dfg"]}, range(RUNS))
    return forecast(NETWORK, Resident(SPLITS), models, settings, COMBINATIONS, Silent())


def test_a_sweep_takes_what_its_steps_and_examples_take(expected):
    pairs = 3  # of five runs on two devices
    assert (expected.runs, expected.passes) == (RUNS, 3)
    # Validation: 40 examples forward, where a step of 32 goes forward and twice as much backward.
    assert expected.training == pytest.approx(pairs * 7 * 2.0 * (10 + 40 / 32 / 3))
    assert expected.evaluating == pytest.approx(pairs * 40 * 3.0)


def test_operations_and_memory_are_those_of_all_runs_and_of_a_pass(expected):
    trial = Trial(Program(NETWORK, Resident(SPLITS), SETTINGS, COMBINATIONS))
    assert expected.operations == pytest.approx(RUNS * 7 * (10 + 40 / 32 / 3) * trial.flops_per_step)
    assert expected.memory == 1000 + 2 * forecasts.kept_bytes(trial)


def test_what_is_prepared_runs():
    program = Program(NETWORK, Resident(SPLITS), SETTINGS, COMBINATIONS)
    models = plan_models({"dfg": CELLS["dfg"]}, range(2))
    first = forecasts.assemble(models, 1, 0)
    tally = Trial(program).prepare_test(first, 24)()
    assert (tally.labels.sum(-1) == 24).all()
