import dataclasses

import numpy as np
import pytest

from resilinet_jax.report.tables import percent
from resilinet_jax.sweeps.tuned_methods import (
    FACTORS,
    cells,
    choose,
    comparisons,
    more_figures,
    sentences,
    tables,
    validation_score,
)
from tests.helpers.fakes import BUILD, fake

# The highest validation accuracy of each run's epochs, by learning rate. For dfg the test split says otherwise.
BEST = {
    "resilinet": [[0.80, 0.82, 0.81], [0.90, 0.91, 0.89], [0.90, 0.91, 0.895], [0.10, 0.10, 0.10]],
    "resilinet_add": [[0.70, 0.70, 0.70], [0.70, 0.70, 0.70], [0.60, 0.60, 0.60], [0.10, 0.10, 0.10]],
    "dfg": [[0.80, 0.82, 0.81], [0.85, 0.84, 0.86], [0.99, 0.98, 0.99], [0.99, 0.99, 0.99]],
    "vanilla": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.51, 0.5, 0.5]],
}


def results_of(best=BEST):
    """Made-up results whose best epoch is the second of three; `dfg` diverged in one run at the largest rate."""
    results, measured = fake("tuned_methods"), {}
    for method, rates in best.items():
        for factor, runs in zip(FACTORS, rates):
            name = f"{method}_rate_x{factor:g}"
            curves = np.array(runs)[:, None] + np.array([[-0.05, 0.0, -0.3]])
            own = results.measured[name]
            measured[name] = own._replace(validation_score=curves, loss=np.ones_like(curves))
    measured["dfg_rate_x10"].score[1] = np.nan
    return dataclasses.replace(results, measured=measured)


def test_cells_are_the_methods_at_multiples_of_the_scenarios_rate():
    made = cells(BUILD)
    assert len(made) == 4 * 4
    for method in BEST:
        rates = [float(made[f"{method}_rate_x{factor:g}"].learning_rate) for factor in FACTORS]
        assert rates == pytest.approx([0.0003, 0.001, 0.003, 0.01])
        assert made[f"{method}_rate_x1"].key() == BUILD(method).key()


def test_the_rate_is_chosen_by_the_best_epochs_mean_validation_score():
    results = results_of()
    chosen = {method: choose(results, method) for method in BEST}
    assert chosen == {
        "resilinet": 3,
        "resilinet_add": 0.3,  # the smaller one of equals
        "dfg": 3,  # at the largest rate a run diverged
        "vanilla": 10,
    }
    # The last epoch and the test split have no part in it.
    for runs in results.measured.values():
        runs.score[:] = np.where(np.isnan(runs.score), np.nan, 1 - runs.score)
        runs.validation_score[:, -1] = 0.0
    assert {method: choose(results, method) for method in BEST} == chosen


def test_the_rate_is_chosen_by_the_last_epoch_where_that_is_the_one_that_counts():
    best = results_of()
    best.measured["dfg_rate_x0.3"].validation_score[:, -1] = 0.9  # no other rate's last epoch is as good
    last = dataclasses.replace(best, select_by="last")
    assert [choose(results, "dfg") for results in (best, last)] == [3, 0.3]
    assert validation_score(last, "dfg_rate_x1") == pytest.approx([0.55, 0.54, 0.56])
    assert "of the last epoch at" in more_figures(last)[0].caption
    assert "of the best epoch at" in more_figures(best)[0].caption


def test_a_rate_at_which_every_run_diverged_is_never_chosen_over_another():
    results = results_of()
    results.measured["dfg_rate_x3"].score[:] = np.nan
    assert choose(results, "dfg") == 1
    for factor in FACTORS:
        results.measured[f"dfg_rate_x{factor:g}"].score[:] = np.nan
    assert choose(results, "dfg") == 0.3
    assert any("DFG has no learning rate of its own: every run diverged" in said for said in sentences(results))


def test_tables_mark_the_chosen_rate_and_show_the_methods_at_it():
    results = results_of()
    tuned, grid = tables(results)
    assert list(tuned.columns) == ["Failures", "ResiliNet", "ResiliNet, add", "DFG", "Vanilla"]
    assert tuned.rows[3][3] == percent(results.average("dfg_rate_x3", "hazardous"))
    marked = {row[0]: row[1] for row in grid.rows if "chosen" in row[1]}
    assert marked == {
        "ResiliNet": "0.003 (chosen)",
        "ResiliNet, add": "0.0003 (chosen)",
        "DFG": "0.003 (chosen)",
        "Vanilla": "0.01 (chosen)",
    }
    assert sum("chosen" in row[1] for row in grid.rows) == 4
    (dfg,) = (row for row in grid.rows if row[:2] == ["DFG", "0.003 (chosen)"])
    assert dfg[2] == percent(np.array([0.99, 0.98, 0.99]))
    assert dfg[4] == percent(results.average("dfg_rate_x3", "normal"))
    (lost,) = (row for row in grid.rows if row[:2] == ["DFG", "0.01"])
    assert lost[2].endswith("(2/3 runs)")


def test_sentences_name_each_rate_and_say_where_the_grid_ends():
    assert sentences(results_of()) == [
        "ResiliNet is given the learning rate 0.003, 3 times the scenario's, for 90.17 ± 0.76 % in validation",
        "ResiliNet, add is given the learning rate 0.0003, 0.3 times the scenario's, for 70.00 ± 0.00 % in validation",
        "That is the smallest rate tried for ResiliNet, add; a smaller one may suit it better",
        "DFG is given the learning rate 0.003, 3 times the scenario's, for 98.67 ± 0.58 % in validation",
        "Vanilla is given the learning rate 0.01, 10 times the scenario's, for 50.33 ± 0.58 % in validation",
        "That is the largest rate tried for Vanilla; a larger one may suit it better",
    ]


def test_tuned_resilinet_is_compared_with_the_tuned_others_under_each_failure_setting():
    results = results_of()
    made = comparisons(results)
    assert len(made) == 3 * 4
    (one,) = (each for each in made if each.names == ("ResiliNet", "DFG") and "hazardous" in each.where)
    expected = results.average("resilinet_rate_x3", "hazardous"), results.average("dfg_rate_x3", "hazardous")
    np.testing.assert_array_equal(one.values, expected)
