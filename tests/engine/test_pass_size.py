import dataclasses
import functools
import time

import jax
import pytest

from resilinet_jax.datasets.feed import Resident
from resilinet_jax.engine import pass_size
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.pass_size import Cost, fitting, measure, models_per_pass
from resilinet_jax.engine.program import Program
from resilinet_jax.engine.trial import Trial
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.files import read_json
from tests.helpers.blobs import CELLS, NETWORK, SETTINGS, SPLITS, Silent

COST = Cost(step_seconds=0.5, working_bytes=1000)
trial_of = functools.cache(Trial)  # lowers a network once for all tests


@pytest.fixture(scope="module")
def program():
    return Program(NETWORK, Resident(SPLITS), SETTINGS, all_combinations(NETWORK.graph))


@pytest.fixture(scope="module")
def models():
    return engine.assemble(engine.plan_models({"dfg": CELLS["dfg"]}, range(2)), 1, 0)


class TestFitting:
    # An epoch of 90 steps takes two models 45 s, so four times two fit 180 s.
    def test_time_limits(self):
        assert fitting(COST, abreast=2, steps=90, kept=10, limit=10_000) == 8

    def test_memory_limits(self):
        assert fitting(COST, abreast=2, steps=90, kept=10, limit=1050) == 5

    def test_no_device_is_idle_for_the_sake_of_time(self):
        assert fitting(COST, abreast=2, steps=10_000, kept=10, limit=10_000) == 2

    @pytest.mark.parametrize("limit", [1010, 0])
    def test_devices_are_idle_rather_than_out_of_memory(self, limit):
        assert fitting(COST, abreast=2, steps=90, kept=10, limit=limit) == 1


class TestMeasure:
    def test_tells_a_step_of_the_function_that_trains(self, program, models, monkeypatch):
        monkeypatch.setattr(pass_size, "TRIAL_FLOPS", 1.0)  # one step
        monkeypatch.setattr(time, "perf_counter", iter([10.0, 10.25]).__next__)
        cost = measure(trial_of(program), models)
        assert cost.step_seconds == 0.25
        assert cost.working_bytes > 0

    def test_takes_as_many_steps_as_the_clock_needs_and_an_epoch_has(self, program, models, monkeypatch):
        steps, trial = [], trial_of(program)
        monkeypatch.setattr(trial, "prepare", lambda models, count: (lambda: steps.append(count), 0))
        monkeypatch.setattr(pass_size, "TRIAL_FLOPS", 2 * 5 * trial.flops_per_step)
        measure(trial, models)
        monkeypatch.setattr(pass_size, "TRIAL_FLOPS", 1e30)
        measure(trial, models)
        assert steps == [5, 5, program.steps_per_epoch, program.steps_per_epoch]
        assert program.steps_per_epoch == len(SPLITS.train.y) // SETTINGS.batch_size

    def test_arithmetic_is_that_of_the_layers(self, program):
        # Multiplications alone: 4 inputs to 8, over n1 and the adapter of i->n2; 8 to 8 twice, 8 to 3 classes.
        products = 2 * (2 * 4 * 8 + 2 * 8 * 8 + 8 * 3)
        # Biases, ReLU and masks come on top, for networks as small as this one as much again.
        assert products < trial_of(program).flops_per_step / SETTINGS.batch_size / 3 < 2.5 * products


class TestModelsPerPass:
    @pytest.fixture(autouse=True)
    def forgotten(self):
        """Nothing is remembered from one test to the next."""
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", None)
        yield
        jax.config.update("jax_compilation_cache_dir", before)

    @pytest.fixture(autouse=True)
    def measured(self, monkeypatch):
        self.times = 0

        def measure(program, models):
            self.times += 1
            return COST

        monkeypatch.setattr(pass_size, "measure", measure)

    def test_nothing_is_measured_where_it_would_not_matter(self, program, models):
        assert models_per_pass(program, models, 2, Silent()) == 2
        assert models_per_pass(program, models, 1000, Silent()) == 1000
        assert self.times == 0

    def test_many_models_are_cut_by_what_was_measured(self, program, models, monkeypatch):
        monkeypatch.setattr(pass_size, "SURE_FLOPS", 1.0)
        expected = 2 * int(180 / (COST.step_seconds * program.steps_per_epoch))
        assert 2 < models_per_pass(program, models, 1000, Silent()) == expected < 1000

    def test_goes_down_where_not_even_the_trial_fits(self, program, models, monkeypatch):
        def exhausted(program, models):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

        monkeypatch.setattr(pass_size, "SURE_FLOPS", 1.0)
        monkeypatch.setattr(pass_size, "measure", exhausted)
        assert models_per_pass(program, models, 1000, Silent()) == 1

    def test_other_errors_are_not_hidden(self, program, models, monkeypatch):
        def failing(program, models):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

        monkeypatch.setattr(pass_size, "SURE_FLOPS", 1.0)
        monkeypatch.setattr(pass_size, "measure", failing)
        with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
            models_per_pass(program, models, 1000, Silent())


class TestRemembered:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        self.costs = iter([COST._replace(step_seconds=float(seconds)) for seconds in range(1, 10)])
        monkeypatch.setattr(pass_size, "SURE_FLOPS", 1.0)
        monkeypatch.setattr(pass_size, "measure", lambda program, models: next(self.costs))
        yield tmp_path
        jax.config.update("jax_compilation_cache_dir", before)

    def seconds(self, program, trial_of=trial_of):
        return pass_size._remembered(trial_of(program), lambda: next(self.costs)).step_seconds

    def test_a_program_is_measured_once(self, program, cache):
        assert [self.seconds(program, Trial) for _ in range(3)] == [1, 1, 1]
        (kept,) = cache.glob("trial-*.json")
        told = read_json(kept)
        assert kept.name == f"trial-{told.pop('name')}.json"
        assert told == {"step_seconds": 1.0, "working_bytes": 1000}

    @pytest.mark.parametrize(
        "change",
        [
            {"settings": dataclasses.replace(SETTINGS, batch_size=16)},
            {"settings": dataclasses.replace(SETTINGS, devices=1)},
            {"settings": dataclasses.replace(SETTINGS, stack=4)},
            {"network": dataclasses.replace(NETWORK, learns_weights=False)},
        ],
    )
    def test_another_program_is_another_matter(self, program, change):
        parts = {"network": NETWORK, "feed": Resident(SPLITS), "settings": SETTINGS}
        other = Program(**parts | change, combinations=all_combinations(NETWORK.graph))
        assert [self.seconds(each) for each in (program, other, program, other)] == [1, 2, 1, 2]

    @pytest.mark.parametrize(
        "damaged",
        [
            "",
            "{",
            "[1]",
            '{"seconds": 1}',
            '{"step_seconds": 1, "working_bytes": "many"}',
            '{"step_seconds": 0, "working_bytes": 1}',
        ],
    )
    def test_a_damaged_measurement_is_made_again(self, program, cache, damaged):
        self.seconds(program)
        (kept,) = cache.glob("trial-*.json")
        kept.write_text(damaged)
        assert [self.seconds(program) for _ in range(2)] == [2, 2]

    def test_without_a_cache_each_command_measures(self, program):
        jax.config.update("jax_compilation_cache_dir", None)
        assert [self.seconds(program) for _ in range(2)] == [1, 2]

    def test_a_cache_that_is_gone_is_no_reason_to_fail(self, program, cache):
        cache.rmdir()
        assert [self.seconds(program) for _ in range(2)] == [1, 2]
        cache.mkdir()
