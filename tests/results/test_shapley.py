import itertools

import numpy as np
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.results.shapley import shapley_values


def subsets(parts):
    return [frozenset(chosen) for size in range(len(parts) + 1) for chosen in itertools.combinations(parts, size)]


def random_worth(parts, runs=3, seed=0):
    rng = np.random.default_rng(seed)
    return {subset: rng.uniform(size=runs) for subset in subsets(parts)}


def test_two_skips_by_hand():
    worth = {"": 0.50, "a": 0.60, "b": 0.80, "ab": 0.85}
    values = shapley_values({frozenset(chosen): np.array([each]) for chosen, each in worth.items()})
    # a adds 10 points to nothing and 5 to b; b adds 30 to nothing and 25 to a.
    assert values["a"] == pytest.approx([(0.10 + 0.05) / 2])
    assert values["b"] == pytest.approx([(0.30 + 0.25) / 2])


@pytest.mark.parametrize("parts", ["a", "ab", "abcd"])
def test_values_are_what_a_skip_adds_averaged_over_all_orders(parts):
    worth = random_worth(parts)
    expected = {part: np.zeros(3) for part in parts}
    orders = list(itertools.permutations(parts))
    for order in orders:
        for place, part in enumerate(order):
            expected[part] += (worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]) / len(orders)
    values = shapley_values(worth)
    assert sorted(values) == sorted(parts)
    for part in parts:
        np.testing.assert_allclose(values[part], expected[part], atol=1e-12)


def test_values_of_eight_skips_sum_to_all_minus_none():
    parts = "abcdefgh"
    worth = random_worth(parts)
    together = np.sum(list(shapley_values(worth).values()), axis=0)
    np.testing.assert_allclose(together, worth[frozenset(parts)] - worth[frozenset()], atol=1e-12)


def test_a_skip_that_adds_nothing_has_none_and_equals_share_alike():
    # c adds nothing to any subset; either of a and b does all the work.
    worth = {subset: np.array([0.9 if subset & {"a", "b"} else 0.3]) for subset in subsets("abc")}
    values = {part: value[0] for part, value in shapley_values(worth).items()}
    assert values == pytest.approx({"a": 0.3, "b": 0.3, "c": 0.0})


def test_a_diverged_run_stays_missing_and_leaves_the_others():
    worth = random_worth("abc")
    before = shapley_values(worth)
    worth[frozenset("ab")] = worth[frozenset("ab")] * [1, np.nan, 1]
    for part, value in shapley_values(worth).items():
        np.testing.assert_allclose(value, before[part] * [1, np.nan, 1])


def test_every_subset_is_needed():
    worth = random_worth("abc")
    del worth[frozenset("b")]
    with pytest.raises(UserError, match="Shapley values of 3 parts need all 8 subsets, got 7"):
        shapley_values(worth)
