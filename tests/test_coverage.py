"""The benchmark of coverage in a fast form: intervals hold the truth as often as they say, others don't."""

import numpy as np
import pytest

from benchmarks import coverage as bench
from benchmarks.coverage import coverage
from resilinet_jax.results.units import Units

ENOUGH, TOO_MUCH = 0.93, 0.97  # of 95 %: three deviations of the simulation
REPETITIONS = 1000
FAMILIES, SELDOM = 150, 0.086  # 5 % and two deviations of the simulation


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("lost", [0, 1 / 3])
@pytest.mark.parametrize("people", [5, 8, 20])
def test_intervals_over_people_cover_what_they_say(people, lost, rng):
    simulated = bench.gaussian_people(rng, REPETITIONS, people, trained=1, lost=lost)
    assert np.isnan(simulated.values).any() == (lost > 0)
    assert ENOUGH <= coverage(simulated, bench.ours) <= TOO_MUCH


def test_a_bootstrap_of_eight_people_covers_too_little_and_so_do_runs_by_themselves(rng):
    simulated = bench.gaussian_people(rng, REPETITIONS, 8)
    assert coverage(simulated, bench.bootstrap) < ENOUGH
    assert coverage(simulated, bench.runs_alone) < ENOUGH - 0.05


def test_the_correction_for_random_splits_would_be_too_much_for_people(rng):
    assert coverage(bench.gaussian_people(rng, REPETITIONS, 8), bench.corrected) > TOO_MUCH


@pytest.mark.parametrize(("splits", "run"), [(5, 2), (10, 0)])
def test_intervals_over_random_splits_cover_what_they_say_and_less_without_correction(splits, run, rng):
    simulated = bench.gaussian_splits(rng, REPETITIONS, splits, run)
    assert ENOUGH <= coverage(simulated, bench.ours) <= TOO_MUCH
    assert coverage(simulated, bench.uncorrected) < ENOUGH


def test_what_classifiers_gain_on_people_is_covered_whoever_trains_them(rng):
    simulated = bench.classified_people(rng, 100, 8, person=0.8, used=0.7)
    # Three deviations of the simulation below 95 %.
    assert coverage(simulated, bench.ours) > 0.885
    assert coverage(simulated, bench.ours, np.full(100, simulated.expected)) > 0.885
    assert coverage(simulated, bench.runs_alone) < 0.885


@pytest.mark.parametrize("units", [Units(), bench.of_people(8)])
def test_families_of_sixteen_comparisons_err_as_seldom_as_they_say(units, rng):
    errors = bench.family_errors(rng, FAMILIES, units, (0.0,) * bench.COMPARED, unit=1, run=1)
    assert 0 < errors["either"] <= SELDOM


def test_nothing_false_is_said_where_some_differ_a_little(rng):
    effects = bench.EFFECTS["by 0 to 1.5"]
    errors = bench.family_errors(rng, FAMILIES, Units(), effects, unit=0.4, run=0)
    assert errors["no larger"] > 0, "it may happen, so the bound is a bound"
    assert errors["either"] <= SELDOM
