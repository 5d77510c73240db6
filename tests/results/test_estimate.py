import math

import numpy as np
import pytest
from scipy import stats

from resilinet_jax.results.estimate import NEGLIGIBLE, POWER, Estimate, estimate
from resilinet_jax.results.units import PERSON, Units

RNG = np.random.default_rng(3)
FIRST, SECOND = RNG.normal(0.9, 0.02, 12), RNG.normal(0.89, 0.02, 12)
LABELS = tuple("aabbbccccddd")
PEOPLE, SPLITS = Units(LABELS, PERSON, 0.125), Units(LABELS, "random split", 0.125)


def test_runs_on_one_split_are_compared_by_the_paired_t_test():
    known = stats.ttest_rel(FIRST, SECOND)
    made = estimate(FIRST - SECOND, Units())
    assert made.p == pytest.approx(known.pvalue)
    interval = known.confidence_interval()
    assert made.mean - made.half_width == pytest.approx(interval.low)
    assert made.mean + made.half_width == pytest.approx(interval.high)
    assert (made.units, made.runs) == (12, 12)
    assert estimate(FIRST - SECOND, Units(("3",) * 12, PERSON)).p == made.p, "all on one split"


def test_a_pair_with_a_diverged_run_is_left_out():
    lost = np.where(np.arange(12) == 4, np.nan, FIRST)
    made = estimate(lost - SECOND, Units())
    assert made.p == pytest.approx(stats.ttest_rel(lost, SECOND, nan_policy="omit").pvalue)
    assert made.runs == 11


def test_people_are_compared_by_the_t_test_of_their_means():
    differences = FIRST - SECOND
    means = [np.mean([value for value, label in zip(differences, LABELS) if label == each]) for each in "abcd"]
    known = stats.ttest_1samp(means, 0)
    made = estimate(differences, PEOPLE)
    assert made.p == pytest.approx(known.pvalue)
    assert made.mean + made.half_width == pytest.approx(known.confidence_interval().high)
    assert (made.units, made.runs) == (4, 12)


def test_a_person_without_runs_is_no_unit_and_others_count_alike():
    values = np.array([0.01, 0.03, 0.02, np.nan, np.nan, 0.05, 0.01, 0.01, 0.01, np.nan, np.nan, np.nan])
    made = estimate(values, PEOPLE)
    assert (made.units, made.runs) == (3, 7)
    assert made.mean == pytest.approx((0.02 + 0.02 + 0.02) / 3)
    assert made.noise == pytest.approx((0.0002 + 0 + 0.0012) / (7 - 3) * (1 / 2 + 1 + 1 / 4) / 3)


def test_random_splits_are_corrected_after_nadeau_and_bengio():
    # Their factor on the variance, for 4 splits with an eighth as many test as training examples: 1 / 4 + 1 / 8.
    people, splits = (estimate(FIRST - SECOND, units) for units in (PEOPLE, SPLITS))
    assert splits.half_width / people.half_width == pytest.approx(math.sqrt(1.5))
    t = people.mean / (people.deviation * math.sqrt(1 / 4 + 1 / 8))
    assert splits.p == pytest.approx(2 * stats.t.sf(abs(t), 3))


def test_fewer_than_two_units_have_no_interval():
    single = estimate(np.array([0.1, 0.2, np.nan, np.nan]), Units(("a", "a", "b", "b")))
    assert (single.mean, single.units, single.runs) == (pytest.approx(0.15), 1, 2)
    assert all(map(math.isnan, (single.half_width, single.p, single.largest(0.05))))
    assert (single.points(), single.interval()) == ("+15.00", "n/a")
    assert math.isnan(estimate(np.array([np.nan]), Units()).mean)


def test_what_was_not_evaluated_is_taken_from_every_difference():
    exact, bounded = (estimate(FIRST - SECOND, Units(), left_out) for left_out in (0, 0.002))
    assert bounded.half_width - exact.half_width == pytest.approx(0.002)
    assert bounded.p == pytest.approx(2 * stats.t.sf((abs(exact.mean) - 0.002) / exact.error, 11))
    assert estimate(FIRST - SECOND, Units(), 0.1).p == 1


def test_equal_differences_that_are_not_zero_leave_no_doubt():
    assert Estimate(0.02, 0.0, 3, 3).p == 0
    assert Estimate(0.0, 0.0, 3, 3).p == 1


@pytest.mark.parametrize("doubt", [0.05, 0.05 / 16])
@pytest.mark.parametrize(("mean", "deviation"), [(0.02, 0.03), (0.012, 0.01), (0.0, 0.01), (0.004, 0.02)])
def test_as_many_units_as_are_needed_settle_it_with_the_power_that_is_said(mean, deviation, doubt):
    needed = Estimate(mean, deviation, 5, 5).units_needed(doubt)
    rng = np.random.default_rng(0)

    def settled(units, trials=4000):
        values = rng.normal(mean, deviation, (trials, units))
        means, errors = values.mean(axis=1), values.std(axis=1, ddof=1) / math.sqrt(units)
        found = 2 * stats.t.sf(abs(means) / errors, units - 1) <= doubt
        equal = abs(means) + stats.t.ppf(1 - doubt, units - 1) * errors <= NEGLIGIBLE
        return max(found.mean(), equal.mean())

    assert settled(needed) > POWER - 0.05
    assert settled(max(2, int(0.8 * needed) - 1)) < POWER


def test_no_number_of_splits_settles_what_the_examples_can_not():
    # The error stays above sqrt(0.125) * 3 points, more than a third of the difference's 2.
    assert Estimate(0.02, 0.03, 5, 5, overlap=0.125).units_needed(0.05) is None
    assert Estimate(0.02, 0.03, 5, 5).units_needed(0.05) is not None
    assert Estimate(0.0001, 0.0, 5, 5, left_out=0.02).units_needed(0.05) is None


def test_more_runs_help_where_they_make_most_of_the_deviation():
    units = Units(tuple(str(unit) for unit in range(50) for _ in range(4)), PERSON)
    rng = np.random.default_rng(0)

    def made(between, within):
        return estimate((rng.normal(0, between, (50, 1)) + rng.normal(0, within, (50, 4))).reshape(-1), units)

    assert made(0.001, 0.02).helped_by_runs
    assert not made(0.02, 0.01).helped_by_runs
    assert made(0.02, 0.01).noise == pytest.approx(0.01**2 / 4, rel=0.3)
    assert estimate(np.array([0.1, 0.2]), Units(("a", "b"), PERSON)).helped_by_runs is None
