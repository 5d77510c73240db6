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
def expect(monkeypatch):
    """Forecasts, by runs of a pass, for a machine on which a step takes 2 s, and an example 3 s."""
    monkeypatch.setattr(Trial, "prepare", lambda trial, models, steps: (lambda: 2.0 * steps, 1000))
    monkeypatch.setattr(Trial, "prepare_test", lambda trial, models, examples: lambda: 3.0 * examples)
    monkeypatch.setattr(forecasts, "seconds", lambda call: call())

    def made(runs_per_pass):
        settings = dataclasses.replace(SETTINGS, runs=RUNS, epochs=7, runs_per_pass=runs_per_pass)
        models = plan_models({"dfg": CELLS["dfg"]}, range(RUNS))
        return forecast(NETWORK, Resident(SPLITS), models, settings, COMBINATIONS, Silent())

    return made


# Five runs on two devices: 2 + 2 + 1, all at once in three turns, or one after another, where a device is idle.
@pytest.mark.parametrize(("runs_per_pass", "passes", "turns"), [(2, 3, 3), (5, 1, 3), (1, 5, 5)])
def test_a_sweep_takes_what_its_steps_and_examples_take(expect, runs_per_pass, passes, turns):
    expected = expect(runs_per_pass)
    assert (expected.runs, expected.passes) == (RUNS, passes)
    # Validation: 40 examples forward, where a step of 32 goes forward and twice as much backward.
    assert expected.training == pytest.approx(turns * 7 * 2.0 * (10 + 40 / 32 / 3))
    assert expected.evaluating == pytest.approx(turns * 40 * 3.0)


def test_operations_and_memory_are_those_of_all_runs_and_of_a_pass(expect):
    expected = expect(2)
    trial = Trial(Program(NETWORK, Resident(SPLITS), SETTINGS, COMBINATIONS))
    assert expected.operations == pytest.approx(RUNS * 7 * (10 + 40 / 32 / 3) * trial.flops_per_step)
    assert expected.memory == 1000 + 2 * forecasts.kept_bytes(trial)


def test_what_is_prepared_runs():
    program = Program(NETWORK, Resident(SPLITS), SETTINGS, COMBINATIONS)
    models = plan_models({"dfg": CELLS["dfg"]}, range(2))
    first = forecasts.assemble(models, 1, 0)
    tally = Trial(program).prepare_test(first, 24)()
    assert (tally.labels.sum(-1) == 24).all()
