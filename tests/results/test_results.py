import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from resilinet_jax.cells import CellBuilder
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.report.tables import Table, percent
from resilinet_jax.results.csv_files import averages_frame, scores_frame
from resilinet_jax.results.results import Results
from tests.helpers.fakes import measured
from tests.helpers.reference import CHAIN

SETTINGS = {"no failure": {}, "normal": {"n1": 0.08, "n2": 0.04, "n3": 0.01}}
BUILD = CellBuilder(CHAIN, SETTINGS, 0.05, 1e-3)
RESILINET = np.array([[97.28, 92.48, 86.52, 93.38, 8.12, 91.75, 7.86, 8.11]]) / 100
RESULTS = Results(
    all_combinations(CHAIN),
    SETTINGS,
    {"resilinet": BUILD("resilinet", failout_rate={"n1": 0.1, "n2": 0.2, "n3": 0.3}), "dfg": BUILD("dfg")},
    {"resilinet": measured(np.concatenate([RESILINET, RESILINET - 0.01])), "dfg": measured(RESILINET)},
)


def test_accuracies_are_one_row_per_cell_run_and_combination():
    frame = pd.read_csv(io.StringIO(scores_frame(RESULTS).to_csv(index=False)), keep_default_na=False)
    assert list(frame)[:5] == ["cell", "split", "run", "failing", "accuracy"]
    assert len(frame) == (2 + 1) * 8
    row = frame[(frame.cell == "resilinet") & (frame.run == 1) & (frame.failing == "n1+n3")].iloc[0]
    assert row.accuracy == pytest.approx(0.9075)
    assert row.failout_rate == "n1:0.1 n2:0.2 n3:0.3"
    assert (row.skips, row.training_activity, row.hyperconnection_weight) == ("i+n1+n2", pytest.approx(0.5), 1)


def test_averages_are_mean_and_sample_deviation_over_the_runs():
    frame = averages_frame(RESULTS).set_index(["cell", "failure_setting"])
    assert list(frame) == ["runs", "mean", "std"]
    row = frame.loc["resilinet", "normal"]
    assert row["runs"] == 2
    assert row["mean"] == pytest.approx(0.9617 - 0.005, abs=1e-4)
    assert row["std"] == pytest.approx(0.01 / np.sqrt(2))
    assert np.isnan(frame.loc["dfg", "normal"]["std"]), "one run has no deviation"


def test_averages_count_the_runs_that_did_not_diverge():
    accuracy = {
        "resilinet": np.concatenate([RESILINET, RESILINET * np.nan, RESILINET - 0.02]),
        "dfg": np.nan * RESILINET,
    }
    results = dataclasses.replace(RESULTS, measured={name: measured(each) for name, each in accuracy.items()})
    frame = averages_frame(results).set_index(["cell", "failure_setting"])
    row = frame.loc["resilinet", "normal"]
    assert row["runs"] == 2
    assert row["mean"] == pytest.approx(0.9617 - 0.01, abs=1e-4)
    assert row["std"] == pytest.approx(0.02 / np.sqrt(2))
    assert frame.loc["dfg", "normal"]["runs"] == 0
    assert np.isnan(frame.loc["dfg", "normal"]["mean"])
    assert results.diverged == {"resilinet": [1], "dfg": [0]}


def test_usual_setting_is_the_first_in_which_anything_fails():
    assert RESULTS.usual_setting == "normal"
    odd = dataclasses.replace(
        RESULTS, failure_settings={"calm": {"n1": 0.0}, "storm": {"n1": 0.5}, "gale": {"n1": 0.2}}
    )
    assert odd.usual_setting == "storm"
    assert dataclasses.replace(RESULTS, failure_settings={"calm": {}}).usual_setting == "calm"


@pytest.mark.parametrize("setting", SETTINGS)
def test_failout_left_on_is_averaged_over_the_product_of_both(setting):
    # By hand over n1 .. n3: a node works if it neither fails nor is failed by failout.
    rates = {"n1": 0.1, "n2": 0.2, "n3": 0.3}
    works = {node: (1 - rate) * (1 - SETTINGS[setting].get(node, 0)) for node, rate in rates.items()}
    expected = sum(
        RESILINET[0][index] * np.prod([1 - works[node] if node in failing else works[node] for node in works])
        for index, failing in enumerate(RESULTS.failing_sets)
    )
    assert RESULTS.average_with_failout("resilinet", setting)[0] == pytest.approx(expected)
    assert RESULTS.average_with_failout("dfg", setting) == pytest.approx(RESULTS.average("dfg", setting))


# Of eight combinations, only these were evaluated: nothing fails, and all three fail.
FEW = dataclasses.replace(RESULTS.combinations, survival=np.array([[1, 1, 1], [0, 0, 0]], np.float32), complete=False)


def test_an_average_is_the_middle_of_what_it_may_be_where_combinations_were_not_evaluated():
    accuracy = np.array([[0.9, 0.1]])
    results = dataclasses.replace(RESULTS, combinations=FEW, measured={"resilinet": measured(accuracy)})
    # The last one stands for all in which no path is left: two neighbours fail.
    none, no_path = 0.92 * 0.96 * 0.99, 0.08 * 0.04 + 0.04 * 0.01 - 0.08 * 0.04 * 0.01
    left_out = 1 - none - no_path  # in which everything may be right, or nothing
    assert results.average("resilinet", "normal")[0] == pytest.approx(none * 0.9 + no_path * 0.1 + left_out / 2)


def test_accuracy_under_named_failures():
    assert RESULTS.under("dfg", ("n1", "n3"))[0] == pytest.approx(0.9175)


def test_percent_is_for_people():
    assert percent(np.array([0.97, 0.98])) == "97.50 ± 0.71"
    assert percent(np.array([0.97, 0.98]), digits=1) == "97.5 ± 0.7"
    assert percent(np.array([0.97])) == "97.00"


def test_percent_tells_how_many_runs_did_not_diverge():
    assert percent(np.array([0.97, np.nan, 0.98])) == "97.50 ± 0.71 (2/3 runs)"
    assert percent(np.array([np.nan, 0.98])) == "98.00 (1/2 runs)"
    assert percent(np.array([np.nan, np.nan])) == "failed (0/2 runs)"
    assert percent(np.array([])) == "n/a"


def test_failout_left_on_is_of_no_run_where_it_was_not_evaluated():
    results = dataclasses.replace(RESULTS, combinations=FEW, measured={"resilinet": measured(np.full((3, 2), 0.5))})
    assert percent(results.average_with_failout("resilinet", "no failure")) == "n/a"


def test_markdown_table():
    text = Table("T", ["a", "b"], [["x", "1"], ["y", "2"]]).markdown()
    assert text.splitlines()[2:] == ["| a | b |", "| --- | ---: |", "| x | 1 |", "| y | 2 |"]
