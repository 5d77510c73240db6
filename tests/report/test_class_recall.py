import dataclasses

import numpy as np
import pytest

from resilinet_jax.report.class_recall import MOST_CLASSES, mean_recall, most_hurt_table, recall_figure, shown_classes
from resilinet_jax.report.report import make_report
from resilinet_jax.sweeps import load_sweep
from tests.helpers.fakes import fake, record, with_classes

METHODS = {"ResiliNet": "resilinet", "DFG": "dfg", "Vanilla": "vanilla"}
NAMES = [str(number) for number in range(8)]


def hurt(classes, *pairs):
    """Results in which every recall is 0.9, but for these (failing, class, recall) of every run of ResiliNet."""
    results = with_classes(fake("failure_combinations"), classes)
    for runs in results.measured.values():
        runs.outcomes[..., 0], runs.outcomes[..., 2] = 90, 10
    for failing, label, recall in pairs:
        at = results.failing_sets.index(failing)
        results.measured["resilinet"].outcomes[:, at, label] = [100 * recall, 0, 100 * (1 - recall)]
    return results


def test_the_table_names_the_classes_that_lose_most_recall():
    results = hurt(4, (("n1",), 2, 0.1), (("n1",), 0, 0.5), (("n2",), 3, 0.95), (("n1", "n3"), 1, 0.0))
    (table,) = most_hurt_table(results, "ResiliNet", "resilinet")
    assert table.rows == [
        ["n1", "2: 90.0 → 10.0", "0: 90.0 → 50.0", "–"],
        ["n2", "–", "–", "–"],
        ["n3", "–", "–", "–"],
    ]


def test_a_recall_is_the_mean_over_the_runs_that_have_the_class():
    results = hurt(3)
    counts = results.measured["resilinet"].outcomes
    counts[0], counts[1, :, 1], counts[2, :, 1] = np.nan, 0, [30, 0, 70]
    np.testing.assert_allclose(mean_recall(results, "resilinet")[0], [0.9, 0.3, 0.9])


@pytest.mark.parametrize("classes", [2, 12, 19, 1000])
def test_the_figure_shows_all_classes_or_those_that_are_hurt_most(classes):
    results = hurt(classes, *((("n2",), label, 0.2) for label in range(2, classes, 60)))
    (drawn,) = recall_figure(results, METHODS, NAMES)
    shown = shown_classes(results, "resilinet")
    (images,) = zip(*(ax.images for ax in drawn.figure.axes[:3]))
    assert [image.get_array().shape for image in images] == [(8, min(classes, MOST_CLASSES))] * 3
    assert set(range(2, classes, 60)) <= set(shown)
    column = list(shown).index(2) if classes > 2 else 0
    assert images[0].get_array()[2, column] == pytest.approx(20 if classes > 2 else 90)
    assert ("most (ResiliNet)" in drawn.caption) == (classes > MOST_CLASSES)


def test_without_counts_there_is_no_figure_and_no_table():
    results = fake("failure_combinations")
    assert recall_figure(results, METHODS, NAMES) == []
    assert most_hurt_table(results, "ResiliNet", "resilinet") == []


def test_a_method_of_which_all_runs_diverged_is_drawn_empty(unrendered):
    results = with_classes(fake("failure_combinations"))
    for cell in ("resilinet", "vanilla"):
        results.measured[cell].outcomes[:] = np.nan
    report = make_report(load_sweep("failure_combinations"), results, record("failure_combinations"))
    assert report.figures[-1].figure.axes[0].images[0].get_array().mask.all()
    assert "class_recall.png" in report.files()


@pytest.mark.parametrize(("metric", "told"), [("macro_f1", "macro F1"), ("balanced_accuracy", "balanced accuracy")])
def test_reports_by_another_metric_say_so_wherever_they_give_a_number(unrendered, metric, told):
    results = dataclasses.replace(with_classes(fake("average_accuracy")), metric=metric)
    report = make_report(load_sweep("average_accuracy"), results, record("average_accuracy", dataset="mhealth"))
    files = report.files()
    markdown, page = files["report.md"].decode(), files["report.html"].decode()
    assert f"**Average {told} (%), on mhealth**" in markdown
    assert f"points of {told}" in markdown
    assert f"--metric={metric}" in markdown.replace("\\", "")
    assert f"average {told} (%)" in files["figure.png"].decode()
    assert 'class="paper"' not in page, "the paper's figures are accuracies"
    assert "the paper's" not in page


def test_reports_by_accuracy_do_not_depend_on_counts(unrendered):
    sweep, results = load_sweep("average_accuracy"), fake("average_accuracy")
    without, counted = (
        make_report(sweep, each, record("average_accuracy")).files() for each in (results, with_classes(results))
    )
    assert counted.keys() - without.keys() == {"class_counts.csv"}
    assert [name for name in without if without[name] != counted[name]] == ["settings.json"]  # which has digests
