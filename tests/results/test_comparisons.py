import dataclasses
import math

import numpy as np
import pytest

from resilinet_jax.cells import CellBuilder
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.report.tables import comparison_table
from resilinet_jax.results.comparisons import DOUBT, Comparison, Family, against, holm, while_failing
from resilinet_jax.results.results import Results
from resilinet_jax.results.units import PERSON, Units
from tests.helpers.fakes import measured
from tests.helpers.reference import CHAIN

FIRST = np.array([0.912, 0.930, 0.921, 0.905, 0.917])
SECOND = np.array([0.901, 0.911, 0.897, 0.890, 0.899])
PEOPLE = Units(tuple(str(person) for person in range(4) for _ in range(3)), PERSON, 0.5)


def compare(first, second, subject="failout", where="under hazardous failures", left_out=0.0, units=None):
    names = ("5 %", "10 %")
    return Comparison(subject, names, where, (np.array(first), np.array(second)), units or Units(), left_out)


def said(*comparisons):
    """What a family of comparisons says of the first one."""
    return Family(comparisons).claims[0].sentence()


def with_t(t, deviation=0.01, pairs=5):
    """A comparison whose differences have this t statistic and deviation."""
    noise = np.arange(pairs) - (pairs - 1) / 2
    noise *= deviation / noise.std(ddof=1)
    return compare(noise + t * deviation / math.sqrt(pairs), np.zeros(pairs))


def test_holms_adjustment_of_a_worked_example():
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1; the last is no less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([0.01, math.nan, 0.04])[::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(holm([0.01, math.nan, 0.04])[1])
    assert holm([]) == []


def test_beats_is_claimed_only_after_the_familys_correction():
    assert said(compare(FIRST, SECOND)) == "failout 5 % beats 10 % under hazardous failures by 1.7 ± 0.6 points"
    assert said(compare(SECOND, FIRST)) == "failout 10 % beats 5 % under hazardous failures by 1.7 ± 0.6 points"
    # By tables t(4) is 2.776 at 5 %, two-sided, and 3.495 at 2.5 %: the interval of 3.3 leaves out zero either way.
    clear, none = with_t(3.3), with_t(0.5)
    assert said(clear).startswith("failout 5 % beats 10 %")
    assert abs(clear.difference.mean) > clear.difference.half_width
    assert "are not settled" in said(clear, none)
    assert "beats" in said(with_t(3.6), none)
    # After Holm, not Bonferroni: the greater one is settled first, and leaves 5 % to the other.
    assert "beats" in said(clear, with_t(3.6))


def test_fewer_comparisons_can_be_tested_than_there_are():
    clear, single = with_t(3.3), compare([0.92], [0.90])
    assert "beats" in said(clear, single)
    assert Family([clear, single]).tested == 1


def test_no_difference_is_claimed_within_what_two_one_sided_tests_show():
    # By tables t(4) is 2.132 at 5 % and 2.776 at 2.5 %, one-sided: 0.1 + 2.132 * 0.3 / sqrt(5) points is 0.386.
    same = with_t(0.1 * math.sqrt(5) / 0.3, deviation=0.003)
    assert said(same) == "failout 5 % and 10 % show no difference larger than 0.4 points under hazardous failures"
    assert Family([same]).claims[0].largest == pytest.approx(0.00386, abs=1e-5)
    assert Family([same, same]).claims[0].largest == pytest.approx(0.001 + 2.776 * 0.003 / math.sqrt(5), abs=1e-5)
    # Of 1 point and more nothing is said: 2.132 * 1.04 / sqrt(5) is 0.992, 2.132 * 1.06 / sqrt(5) is 1.011.
    assert "no difference larger than 1.0 points" in said(with_t(0, deviation=0.0104))
    assert "not settled" in said(with_t(0, deviation=0.0106))


def test_a_margin_is_never_rounded_down():
    bound = Family([with_t(0, deviation=0.00321)]).claims[0].largest
    assert 0.0030 < bound < 0.00308
    assert "larger than 0.4 points" in said(with_t(0, deviation=0.0036))  # 0.343
    assert "larger than 0.4 points" in said(with_t(0, deviation=0.00321 * 0.00305 / bound * 1.01))  # 0.308


def test_what_is_the_same_in_every_run_is_called_equal():
    same = compare([0.9, 0.8], [0.9, 0.8])
    assert said(same) == "failout 5 % and 10 % are equal under hazardous failures, in every run"
    assert Family([same]).claims[0].p == 1


def test_what_is_not_settled_says_how_many_would_settle_it():
    unclear = compare([0.91, 0.93, 0.92], [0.92, 0.92, 0.91], subject="", where="while n1 fails")
    text = "5 % and 10 % are not settled while n1 fails (+0.3 ± 2.9 points): needs about "
    assert said(unclear).startswith(text)
    needed = [unclear.difference.units_needed(doubt) for doubt in (DOUBT, DOUBT / 4)]
    told = [
        int(each.sentence().removeprefix(text).removesuffix(" runs"))
        for each in (Family([unclear]).claims[0], Family([unclear] * 4).claims[0])
    ]
    assert all(exact <= rounded < 1.1 * exact for exact, rounded in zip(needed, told))
    assert all(rounded == float(f"{rounded:.2g}") for rounded in told)
    assert told[1] > told[0]


def test_people_count_not_their_runs():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (4, 3))
    noise -= noise.mean(axis=1, keepdims=True)

    def people(between, within):
        gained = np.array([0.06, -0.01, 0.05, 0.00])[:, None] * between + 0.02 + within * noise
        return compare(gained.reshape(-1), np.zeros(12), units=PEOPLE)

    far_apart = people(1, 0.002)
    alone = dataclasses.replace(far_apart, units=Units())
    assert "beats" in said(alone)
    assert "are not settled" in said(far_apart)
    assert said(far_apart).endswith(" people; more runs of each hardly help")
    assert said(people(0.8, 0.1)).endswith(" people; more runs of each help as well")
    single = compare(np.where(np.arange(12) < 3, 0.9, np.nan), np.full(12, 0.8), units=PEOPLE)
    assert said(single).endswith("in a single person, which gives no interval")


def test_what_was_not_evaluated_widens_the_interval():
    # 1.74 ± 0.59 points: with 1.2 more on either side it holds zero.
    assert "beats" in said(compare(FIRST, SECOND, left_out=0.011))
    assert "not settled" in said(compare(FIRST, SECOND, left_out=0.012))
    assert "1,000 runs would not do" in said(compare(FIRST, SECOND, left_out=0.02))
    same = with_t(0, deviation=0.003)
    left_out = dataclasses.replace(same, left_out=0.002)
    largest = [Family([each]).claims[0].largest for each in (same, left_out)]
    assert largest[1] - largest[0] == pytest.approx(0.002)


def test_rounding_does_not_blur_what_is_claimed():
    # 0.22 ± 0.204: with one digit it would read 0.2 ± 0.2. By tables t(1) is 12.706.
    step = 0.00204 / (12.706 / math.sqrt(2)) / math.sqrt(2)
    assert said(compare([0.9022 + step, 0.9022 - step], [0.9, 0.9])).endswith("by 0.22 ± 0.20 points")


def test_fewer_than_two_pairs_give_no_interval():
    single = compare([0.92], [0.90])
    assert said(single) == (
        "failout 5 % and 10 % differ by +2.0 points under hazardous failures in a single run, which gives no interval"
    )
    assert single.difference.points() == "+2.00"
    none = compare([0.92, np.nan], [np.nan, 0.90])
    assert said(none).endswith("no run in which neither diverged")
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
    table = comparison_table(Family(made))
    assert list(table.columns) == ["Difference", "without failures", "poor failures"]
    assert [row[0] for row in table.rows] == ["failout 10 % − 20 %", "failout 10 % − own"]
    assert table.rows[1][1] == "n/a"
    p = Family(made).claims[2].p
    assert table.rows[1][2] == f"{made[2].difference.points()} (p {p:.3f})"
    assert table.title == "Paired differences (points), 95% intervals, p corrected for 3 comparisons (Holm)"


def test_comparisons_take_the_units_of_the_results():
    build = CellBuilder(CHAIN, {"no failure": {}}, 0.05, 1e-3)
    cells = {name: build("resilinet", failout_rate=rate) for name, rate in (("a", 0.1), ("b", 0.2))}
    accuracy = {name: measured(np.random.default_rng(0).uniform(0.5, 0.9, (12, 8))) for name in cells}
    results = Results(all_combinations(CHAIN), {"no failure": {}}, cells, accuracy, units=PEOPLE)
    (made,) = against(results, "", ("a", "a"), {"b": "b"})
    assert (made.difference.units, made.difference.runs) == (4, 12)
