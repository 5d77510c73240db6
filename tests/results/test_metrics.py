"""Counts and metrics against scikit-learn's, on the same predictions of networks that were really trained."""

import dataclasses
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.parts import draw_parts
from resilinet_jax.datasets.splits import Dataset, guessed_counts
from resilinet_jax.datasets.splitting import draw_splits
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.program import MOST_RUNS
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.results import csv_files
from resilinet_jax.results.csv_files import read_results
from resilinet_jax.results.metric_names import ACCURACY, METRIC_NAMES
from resilinet_jax.results.metrics import METRICS
from resilinet_jax.results.results import Results
from resilinet_jax.results.units import Units
from resilinet_jax.runtime.kept_models import KeptModels
from tests.helpers.blobs import BLOBS, BUILD, NETWORK, SETTINGS, Shared, Silent, answers_of
from tests.helpers.reference import CHAIN

# No two people have as many rows. Class 3 is recorded of one of them alone, who trains nobody when tested: no network
# takes an example for it there, and it is in no other test split.
PEOPLE = np.repeat([7, 8, 9, 10], [70, 110, 90, 130])
RARE = np.r_[np.zeros(65, bool), np.ones(5, bool), np.zeros(330, bool)]
DATA = Dataset("blobs of four people", BLOBS.x, np.where(RARE, 3, BLOBS.y).astype(np.int32), PEOPLE)
CLASSES = range(4)
FOUR = dataclasses.replace(
    NETWORK, stages={**NETWORK.stages, "n4": dataclasses.replace(NETWORK.stages["n4"], classes=4)}
)
CELLS = {"vanilla": BUILD("vanilla"), "dfg": BUILD("dfg")}
COMBINATIONS = all_combinations(CHAIN)


@pytest.fixture(scope="module")
def measured():
    """Of each cell, what its runs left; and the predictions under each combination, in plain loops, of each run."""
    kept, flags = KeptModels(), dataclasses.make_dataclass("Flags", ["split", "seed", "splits", "test_subject"])
    feed = Resident(draw_splits(DATA, flags("leave_one_subject_out", 0, 1, None)))
    settings = dataclasses.replace(SETTINGS, runs=1, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Program", Shared)
        runs = engine.run_cells(FOUR, feed, CELLS, settings, Silent(), kept=kept)
    parts, _ = draw_parts(DATA, "leave_one_subject_out", seed=0)
    return runs, {name: [_predicted(kept, cell, part) for part in parts] for name, cell in CELLS.items()}, parts


def _predicted(kept, cell, part):
    number = MOST_RUNS * part.number
    x = (DATA.x[part.test] - DATA.x[part.train].mean(0)) / DATA.x[part.train].std(0)
    answers = answers_of(kept[cell.training_key(), number], cell, number, x)
    return [logits.argmax(1) if informed else None for logits, informed in answers]


def _told(runs, metric):
    return Results(COMBINATIONS, BUILD.failure_settings, CELLS, runs, units=Units(tuple("abcd")), metric=metric)


def test_counts_and_metrics_are_those_of_scikit_learn(measured):
    runs, predictions, parts = measured
    seen = set()
    for name in CELLS:
        for run, part in enumerate(parts):
            y = DATA.y[part.test]
            for number, said in enumerate(predictions[name][run]):
                if said is None:
                    continue
                seen |= {("absent", c) for c in set(CLASSES) - {*y}} | {("never predicted", c) for c in {*y} - {*said}}
                matrix = reference.confusion_matrix(y, said, labels=CLASSES)
                right = np.diag(matrix)
                expected = np.stack([right, matrix.sum(0) - right, matrix.sum(1) - right], -1)
                np.testing.assert_array_equal(runs[name].outcomes[run, number], expected)
                with warnings.catch_warnings():  # of classes that are predicted, but not there
                    warnings.simplefilter("ignore")
                    by_reference = {
                        "accuracy": reference.accuracy_score(y, said),
                        "balanced_accuracy": reference.balanced_accuracy_score(y, said),
                        "macro_f1": reference.f1_score(y, said, average="macro"),
                        "micro_f1": reference.f1_score(y, said, average="micro"),
                    }
                for metric, value in by_reference.items():
                    assert _told(runs, metric).under(name, COMBINATIONS.failing_sets[number])[run] == pytest.approx(
                        value
                    )
    assert {("absent", 3), ("never predicted", 3)} <= seen, "neither case was met"


def test_accuracy_is_the_same_from_counts(measured):
    for each in measured[0].values():
        np.testing.assert_allclose(METRICS[ACCURACY](each.outcomes), each.score, rtol=1e-6)


def test_counts_where_nothing_arrives_are_those_of_guessing(measured):
    runs, predictions, parts = measured
    uninformed = [number for number, said in enumerate(predictions["vanilla"][0]) if said is None]
    assert uninformed == list(range(1, 8)), "any failure cuts vanilla off"
    for run, part in enumerate(parts):
        share = np.bincount(DATA.y[part.train], minlength=4) / len(part.train)
        there = np.bincount(DATA.y[part.test], minlength=4)
        by_hand = [[n * q, (there.sum() - n) * q, n * (1 - q)] for q, n in zip(share, there)]
        for number in uninformed:
            np.testing.assert_allclose(runs["vanilla"].outcomes[run, number], by_hand, rtol=1e-6)


def test_every_metric_has_a_name():
    assert list(METRICS) == list(METRIC_NAMES)


def test_guessed_counts_by_hand():
    # Three of four trained on are of class 0; of four tested, one is of class 0, two of class 1, one of class 2.
    counts = guessed_counts(np.array([3, 1, 0]), np.array([1, 2, 1]))
    np.testing.assert_allclose(counts, [[0.75, 2.25, 0.25], [0.5, 0.5, 1.5], [0, 0, 1]])
    assert METRICS["accuracy"](counts) == pytest.approx(1.25 / 4)
    assert METRICS["balanced_accuracy"](counts) == pytest.approx((0.75 + 0.25 + 0) / 3)
    assert METRICS["macro_f1"](counts) == pytest.approx((1.5 / 4 + 1 / 3 + 0) / 3)
    assert METRICS["micro_f1"](counts) == pytest.approx(1.25 / 4)


@pytest.mark.parametrize("metric", METRICS)
def test_a_run_that_diverged_has_no_metric_and_leaves_others_alone(metric):
    counts = np.stack([np.full((3, 3), np.nan), np.tile([2.0, 1.0, 1.0], (3, 1))])
    np.testing.assert_array_equal(np.isnan(METRICS[metric](counts)), [True, False])


@pytest.mark.parametrize("metric", METRICS)
def test_an_average_is_the_expectation_over_the_failure_combinations(measured, metric):
    results = _told(measured[0], metric)
    failure = dict(zip(("n1", "n2", "n3"), (0.3, 0.05, 0.6)))
    expected = sum(
        np.prod([failure[node] if node in failing else 1 - failure[node] for node in failure])
        * METRICS[metric](measured[0]["dfg"].outcomes[:, number])
        for number, failing in enumerate(results.failing_sets)
    )
    np.testing.assert_allclose(results.average_at("dfg", np.array([0.3, 0.05, 0.6])), expected, rtol=1e-6)


def _written(results, folder):
    for name, content in csv_files.csv_files(results).items():
        (folder / name).write_bytes(content)
    given = results.combinations, results.failure_settings, results.cells, {}, {}, lambda split: Units(tuple(split))
    return lambda: read_results(folder, *given)


def test_counts_are_written_and_read_back(measured, tmp_path):
    results = _told({name: each.rounded() for name, each in measured[0].items()}, "macro_f1")
    read = _written(results, tmp_path)
    frame = pd.read_csv(io.BytesIO((tmp_path / "class_counts.csv").read_bytes()), keep_default_na=False)
    assert list(frame) == ["cell", "split", "run", "failing", "class", "tp", "fp", "fn"]
    (row,) = frame[
        (frame.cell == "dfg") & (frame.split == "c") & (frame.failing == "n1+n3") & (frame["class"] == 1)
    ].itertuples(index=False)
    at = results.measured["dfg"].outcomes[2, results.failing_sets.index(("n1", "n3")), 1]
    assert (row.run, row.tp, row.fp, row.fn) == (0, *at)
    for name, each in results.measured.items():
        np.testing.assert_array_equal(read().measured[name].outcomes, each.outcomes)
    lines = (tmp_path / "class_counts.csv").read_text().splitlines()
    for changed in (lines[:-1], [*lines, lines[-1]]):
        (tmp_path / "class_counts.csv").write_text("\n".join(changed))
        with pytest.raises(ValueError, match="lacks rows of dfg"):
            read()


def test_a_folder_without_counts_is_read_as_it_was(measured, tmp_path, monkeypatch):
    results = _told(measured[0], ACCURACY)
    monkeypatch.setattr(csv_files, "MOST_ROWS", csv_files.outcome_rows(results) - 1)
    read = _written(results, tmp_path)()
    assert not (tmp_path / "class_counts.csv").exists(), "too many rows"
    assert results.has_class_counts
    assert not read.has_class_counts
    np.testing.assert_allclose(read.average("dfg", "normal"), results.average("dfg", "normal"), atol=1e-7)
