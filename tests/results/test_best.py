import numpy as np
import pytest

from resilinet_jax.results import best as best_module
from resilinet_jax.results.units import PERSON, Units


def best_of(accuracy, left_out=0.0, units=None, questions=1):
    return best_module.best_of(accuracy, units or Units(), left_out, questions)


BASE = np.array([0.80, 0.83, 0.81, 0.79, 0.82])  # what the runs share


def test_the_best_has_the_highest_mean_and_keeps_who_may_be_better():
    # Paired with 0.2, the rate 0.1 is behind by 2 points in each run, give or take 0.1; 0.4 is behind by 1 ± 3.
    behind = {0.1: [0.020, 0.021, 0.019, 0.021, 0.019], 0.2: [0] * 5, 0.4: [0.05, -0.02, 0.03, -0.03, 0.02]}
    best = best_of({rate: BASE - np.array(values) for rate, values in behind.items()})
    assert best.candidate == 0.2
    assert best.possible == (0.2, 0.4)
    assert best.interval == (0.2, 0.4)
    assert best.known


def test_pairing_is_what_tells_candidates_apart():
    rng = np.random.default_rng(0)
    close = {0.1: BASE, 0.2: BASE + 0.004 + rng.normal(0, 0.0003, 5)}
    assert best_of(close).possible == (0.2,)
    unpaired = {0.1: BASE, 0.2: close[0.2][[3, 0, 1, 4, 2]]}
    assert best_of(unpaired).possible == (0.1, 0.2)


def test_the_margin_is_students_one_sided_for_as_many_comparisons_as_there_are():
    # t = mean / (deviation / sqrt(5)); by tables t(4) is 2.132 at 5 %, 2.776 at 2.5 %, 3.747 at 1 %.
    noise = np.array([-2, -1, 0, 1, 2]) / np.sqrt(2.5)

    def possible(t, candidates):
        ahead = BASE + 0.001 * (t / np.sqrt(5) + noise)
        # The others are far behind, so that they only count.
        far = {float(number): BASE - 0.5 for number in range(2, candidates)}
        return best_of({0.0: BASE, 1.0: ahead} | far).possible

    assert possible(2.12, 2) == (0.0, 1.0)
    assert possible(2.14, 2) == (1.0,)
    assert possible(2.77, 3) == (0.0, 1.0)
    assert possible(2.79, 3) == (1.0,)
    assert possible(3.74, 6) == (0.0, 1.0)
    assert possible(3.76, 6) == (1.0,)


def test_the_truly_best_is_dropped_in_one_case_of_twenty_at_most():
    rng = np.random.default_rng(1)
    trials, dropped = 400, 0
    for _ in range(trials):
        shared = rng.normal(0, 0.05, 5)
        accuracy = {float(rate): 0.9 + shared + rng.normal(0, 0.01, 5) for rate in range(6)}
        dropped += 0.0 not in best_of(accuracy).possible  # all are equal, so it is a best one
    # One in twenty, and two deviations of the simulation; without care for the number of comparisons it is one in six.
    assert dropped / trials < 0.05 + 2 * np.sqrt(0.05 * 0.95 / trials)


def test_more_questions_ask_for_more():
    # By tables t(4) is 2.132 at 5 %, 2.776 at 2.5 %: 2.4 is enough for one question, not for two.
    ahead = BASE + 0.001 * (2.4 / np.sqrt(5) + np.array([-2, -1, 0, 1, 2]) / np.sqrt(2.5))
    assert best_of({0.0: BASE, 1.0: ahead}).possible == (1.0,)
    assert best_of({0.0: BASE, 1.0: ahead}, questions=2).possible == (0.0, 1.0)


def test_runs_on_one_person_do_not_decide_which_is_the_best():
    # One person is 3 points better with the second, two are 0.1 worse; each of them in five runs that agree.
    gained = np.repeat([0.03, -0.001, -0.001], 5)
    accuracy = {0.1: np.tile(BASE, 3), 0.2: np.tile(BASE, 3) + gained}
    people = Units(tuple(np.repeat(["1", "2", "3"], 5).tolist()), PERSON)
    assert best_of(accuracy).possible == (0.2,)
    assert best_of(accuracy, units=people).possible == (0.1, 0.2)


def test_what_was_not_evaluated_may_make_up_for_a_difference():
    accuracy = {0.1: BASE, 0.2: BASE + np.array([0.010, 0.011, 0.009, 0.010, 0.010])}
    assert best_of(accuracy, left_out=0.008).possible == (0.2,)
    assert best_of(accuracy, left_out=0.010).possible == (0.1, 0.2)


def test_diverged_runs_are_left_out_of_pairs_and_lost_candidates_of_the_question():
    lost = np.array([1, np.nan, 1, 1, 1])
    best = best_of({0.1: BASE, 0.2: (BASE + 0.02) * lost, 0.3: np.full(5, np.nan)})
    assert best.candidate == 0.2
    assert best.possible == (0.2,)
    nothing = best_of({0.1: np.full(5, np.nan)})
    assert nothing == best_module.Best(None, (), known=False)


def test_a_single_run_tells_no_interval():
    best = best_of({0.1: np.array([0.9]), 0.2: np.array([0.8])})
    assert best.candidate == 0.1
    assert best.possible == (0.1, 0.2)
    assert not best.known


@pytest.mark.parametrize("candidates", [1, 2, 13])
def test_the_best_itself_always_stays(candidates):
    rng = np.random.default_rng(2)
    accuracy = {float(rate): rng.uniform(size=4) for rate in range(candidates)}
    accuracy[0.0][:2] = np.nan
    best = best_of(accuracy)
    assert best.candidate in best.possible
