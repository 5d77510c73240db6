import numpy as np
import pytest

from resilinet_jax.results.units import PERSON, Units


def test_runs_are_the_units_on_one_split():
    for units in (Units(), Units(("3", "3"), PERSON, 0.2)):
        assert (units.several, units.overlap) == (False, 0)
        assert [units.named(number) for number in (1, 2)] == ["1 run", "2 runs"]
        assert [group.tolist() for group in units.groups(np.array([0.5, 0.6]))] == [[0.5], [0.6]]
        assert units.runs(2) == "2 runs"
        assert "one split" in units.covers


def test_splits_are_the_units_where_there_are_several():
    people = Units(("b", "a", "b", "c"), PERSON, 0.2)
    assert [group.tolist() for group in people.groups(np.array([1, 2, 3, np.nan]))] == [[1, 3], [2]]
    assert [group.tolist() for group in people.groups(np.array([np.nan, 2, 3, np.nan]))] == [[2], [3]]
    assert [people.named(number) for number in (1, 1000)] == ["1 person", "1,000 people"]
    assert people.runs(4) == "4 runs on 3 people"
    assert people.overlap == 0
    assert "other people" in people.covers
    splits = Units(people.split, "random split", 0.2)
    assert splits.named(3) == "3 random splits"
    assert splits.overlap == 0.2
    assert "split in the same way" in splits.covers


def test_values_of_other_runs_are_refused():
    with pytest.raises(ValueError, match="expected a value for each of 3 runs, got 2"):
        Units(("a", "b", "b")).groups(np.array([1.0, 2.0]))
