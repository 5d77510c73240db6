import math

import numpy as np
import pytest

from resilinet_jax.cells import CellBuilder
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.report.tables import comparison_table
from resilinet_jax.results.comparisons import Comparison, against, paired_difference, while_failing
from resilinet_jax.results.results import Results
from tests.helpers.fakes import measured
from tests.helpers.reference import CHAIN

FIRST = np.array([0.912, 0.930, 0.921, 0.905, 0.917])
SECOND = np.array([0.901, 0.911, 0.897, 0.890, 0.899])


def compare(first, second, subject="failout", where="under hazardous failures", left_out=0.0):
    names = ("5 %", "10 %")
    return Comparison(subject, names, where, (np.array(first), np.array(second)), left_out)


def student_quantile(freedom):
    """97.5 % of Student's distribution, by adding up its density."""
    constant = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    t = np.linspace(0, 60, 2_000_001)
    density = constant * (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    reached = 0.5 + np.cumsum((density[1:] + density[:-1]) / 2) * (t[1] - t[0])
    return t[1:][np.searchsorted(reached, 0.975)]


def test_interval_is_students_over_the_paired_differences():
    differences = FIRST - SECOND
    mean = differences.sum() / 5
    deviation = math.sqrt(((differences - mean) ** 2).sum() / 4)
    difference = paired_difference(FIRST, SECOND)
    assert difference.mean == pytest.approx(mean)
    assert difference.half_width == pytest.approx(student_quantile(4) * deviation / math.sqrt(5), rel=1e-4)
    assert difference.half_width < student_quantile(8) * FIRST.std(ddof=1), "pairing takes out what the runs share"


def test_a_pair_with_a_diverged_run_is_left_out():
    lost = np.array([1, np.nan, 1, 1, 1]) * FIRST
    kept = [0, 2, 3, 4]
    assert paired_difference(lost, SECOND) == paired_difference(FIRST[kept], SECOND[kept])
    assert paired_difference(lost, SECOND).pairs == 4
    assert paired_difference(SECOND, lost).pairs == 4


def test_beats_is_claimed_only_if_the_interval_leaves_out_zero():
    assert compare(FIRST, SECOND).sentence() == "failout 5 % beats 10 % under hazardous failures by 1.7 ± 0.6 points"
    assert compare(SECOND, FIRST).sentence() == "failout 10 % beats 5 % under hazardous failures by 1.7 ± 0.6 points"
    unclear = compare([0.91, 0.93, 0.92], [0.92, 0.92, 0.91], subject="", where="while n1 fails")
    assert unclear.sentence() == "5 % and 10 % can't be told apart while n1 fails (difference +0.3 ± 2.9 points)"
    same = compare([0.9, 0.8], [0.9, 0.8])
    assert "can't be told apart" in same.sentence()


def test_what_was_not_evaluated_widens_the_interval():
    # 1.74 ± 0.59 points: with 1.2 more on either side it holds zero.
    assert "beats" in compare(FIRST, SECOND, left_out=0.011).sentence()
    assert "can't be told apart" in compare(FIRST, SECOND, left_out=0.012).sentence()


def test_rounding_does_not_blur_what_is_claimed():
    # 0.22 ± 0.204: with one digit it would read 0.2 ± 0.2.
    step = 0.00204 / (student_quantile(1) / math.sqrt(2)) / math.sqrt(2)
    sentence = compare([0.9022 + step, 0.9022 - step], [0.9, 0.9]).sentence()
    assert sentence.endswith("by 0.22 ± 0.20 points")


def test_fewer_than_two_pairs_give_no_interval():
    single = compare([0.92], [0.90])
    assert single.sentence() == (
        "failout 5 % and 10 % differ by +2.0 points under hazardous failures in a single run, which gives no interval"
    )
    assert single.difference.points() == "+2.00"
    none = compare([0.92, np.nan], [np.nan, 0.90])
    assert none.sentence().endswith("no run in which neither diverged")
    assert none.difference.points() == "n/a"


def test_where_is_said_in_words():
    assert [while_failing(failing) for failing in ((), ("n1",), ("n1", "n3"))] == [
        "while nothing fails",
        "while n1 fails",
        "while n1 and n3 fail",
    ]


def test_reference_is_compared_under_each_setting_that_both_have():
    settings = {"no failure": {}, "poor": {"n1": 0.13, "n2": 0.09, "n3": 0.05}}
    build = CellBuilder(CHAIN, settings, 0.05, 1e-3)
    cells = {name: build("resilinet", failout_rate=rate) for name, rate in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    rng = np.random.default_rng(0)
    accuracy = {name: rng.uniform(0.5, 0.9, (3, 8)) for name in cells}
    results = Results(all_combinations(CHAIN), settings, cells, {c: measured(a) for c, a in accuracy.items()})
    made = against(results, "failout", ("10 %", "a"), {"20 %": "b", "own": {"poor": "c"}})
    assert [(each.names[1], each.where) for each in made] == [
        ("20 %", "without failures"),
        ("20 %", "under poor failures"),
        ("own", "under poor failures"),
    ]
    expected = (results.average("a", "poor") - results.average("c", "poor")).mean()
    assert made[2].difference.mean == pytest.approx(expected)
    table = comparison_table(made)
    assert list(table.columns) == ["Difference", "without failures", "poor failures"]
    assert [row[0] for row in table.rows] == ["failout 10 % − 20 %", "failout 10 % − own"]
    assert table.rows[1][1] == "n/a"
    assert table.rows[1][2] == made[2].difference.points()
