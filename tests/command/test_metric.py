"""Reports by another metric than accuracy: `--metric`."""

import dataclasses
import io
import shutil

import pytest
from rich.console import Console

from resilinet_jax import sweeps
from resilinet_jax.command.reporting import publish_both, report_again
from resilinet_jax.command.settings import Settings, choose, chosen_sweeps
from resilinet_jax.errors import UserError
from resilinet_jax.report import report as reports
from resilinet_jax.report.console import PlainConsole
from resilinet_jax.results import csv_files
from resilinet_jax.results.metric_names import METRIC_NAMES
from resilinet_jax.results.metrics import METRICS
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.fakes import fake, leave_out_pictures, record, with_classes, with_history
from tests.helpers.hostile import contents

pytestmark = pytest.mark.usefixtures("unrendered")
NAME = "average_accuracy"
WITHOUT = with_history(fake(NAME))
WITHOUT = dataclasses.replace(WITHOUT, measured={name: each.rounded() for name, each in WITHOUT.measured.items()})
RESULTS = with_classes(WITHOUT)


def published(folder, metric="accuracy", results=RESULTS, failures=None):
    output = io.StringIO()
    own = "n1:0.5" if failures else None
    settings = Settings("all", dataset="synthetic", metric=metric, failure_probability=own, select_by=results.select_by)
    graph = dataclasses.asdict(results.graph)
    known = dataclasses.replace(record(NAME, settings=settings), graph=graph)
    publish_both(load_sweep(NAME), folder, results, known, failures or {}, Console(file=output, width=80))
    return output.getvalue()


def again(folder, metric="accuracy", failures=None):
    output = io.StringIO()
    report_again(folder, sweeps, Console(file=output, width=80, highlight=False), failures, metric=metric)
    return output.getvalue()


def folders(where):
    return sorted(path.name for path in where.iterdir())


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of a sweep by accuracy."""
    folder = tmp_path_factory.mktemp("own") / NAME
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        published(folder)
    return folder


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"accuracy"}))
def test_a_report_by_another_metric_is_what_training_with_it_would_have_written(own, tmp_path, metric):
    said = published(tmp_path / "asked" / NAME, metric)
    assert contents(tmp_path / "asked" / NAME) == contents(own), "the sweep's own report is as ever"
    assert folders(tmp_path / "asked") == [NAME, f"{NAME}_{metric}"]
    assert said.count("Written to") == 1
    assert f"Average {METRIC_NAMES[metric].name} (%)" in said
    shutil.copytree(own, tmp_path / "later" / NAME)
    again(tmp_path / "later" / NAME, metric)
    one, other = (contents(tmp_path / each / f"{NAME}_{metric}") for each in ("asked", "later"))
    assert {path: one[path] for path in one} == other
    again(tmp_path / "later" / f"{NAME}_{metric}")
    assert contents(tmp_path / "later" / f"{NAME}_{metric}") == other, "made again from itself"


def test_brackets_are_no_markup_in_a_report_that_is_written_and_not_printed(tmp_path):
    known = record(NAME, dataset="heart rate [/min]", settings=Settings("all", metric="macro_f1"))
    publish_both(load_sweep(NAME), tmp_path / NAME, RESULTS, known, {}, PlainConsole(quiet=True))
    assert "heart rate" in (tmp_path / NAME / "report.md").read_text()


@pytest.mark.parametrize(
    ("select_by", "said"),
    [
        ("no_failure", "epochs are selected by accuracy on the validation split"),
        ("average", "epochs are selected by average accuracy on the validation split"),
        ("last", "each run's last epoch counts"),
    ],
)
def test_a_report_says_which_epochs_count_and_says_so_again(tmp_path, select_by, said):
    published(tmp_path / NAME, "macro_f1", dataclasses.replace(RESULTS, select_by=select_by))
    report = tmp_path / f"{NAME}_macro_f1" / "report.md"
    before = report.read_text()
    assert f"; {said}." in before
    report.unlink()
    again(report.parent)
    assert report.read_text() == before


def test_metrics_and_own_failures_go_together(own, tmp_path):
    shutil.copytree(own, tmp_path / NAME)
    again(tmp_path / NAME, "macro_f1", "n1:0.5")
    both = f"{NAME}_your_own_macro_f1"
    assert folders(tmp_path) == [NAME, both]
    before = contents(tmp_path / both)
    published(tmp_path / "trained" / NAME, "macro_f1", failures={"your own": {"n1": 0.5}})
    assert contents(tmp_path / "trained" / both) == before
    # From one report beside the sweep's own to another.
    again(tmp_path / both, "micro_f1")
    assert folders(tmp_path) == [NAME, both, f"{NAME}_your_own_micro_f1", "trained"]
    assert contents(tmp_path / both) == before
    # All sweeps of a scenario at once, but no report beside a report.
    again(tmp_path, "balanced_accuracy")
    assert folders(tmp_path) == [NAME, f"{NAME}_balanced_accuracy", both, f"{NAME}_your_own_micro_f1", "trained"]


def test_a_folder_without_counts_reports_accuracy_and_refuses_the_rest_in_one_line(tmp_path):
    published(tmp_path / NAME, results=WITHOUT)
    before = contents(tmp_path)
    again(tmp_path / NAME)
    assert contents(tmp_path) == before
    message = r"--metric=macro_f1 needs class_counts.csv, which is not in .*; run the sweep with --metric=macro_f1, or"
    with pytest.raises(UserError, match=message):
        again(tmp_path / NAME, "macro_f1")
    assert contents(tmp_path) == before


def test_counts_that_are_too_many_for_a_file_are_told_and_serve_while_training(tmp_path, monkeypatch):
    for module in (csv_files, reports):
        monkeypatch.setattr(module, "MOST_ROWS", 100)
    assert "class_counts.csv would have 864 rows" in published(tmp_path / NAME, "macro_f1")
    assert "class_counts.csv" not in {path.name for path in (tmp_path / NAME).iterdir()}
    by_f1 = dataclasses.replace(RESULTS, metric="macro_f1")
    expected = f"{100 * by_f1.average('dfg', 'poor').mean():.2f}"
    assert expected in (tmp_path / f"{NAME}_macro_f1" / "report.md").read_text()


def test_what_is_no_metric_is_one_line_with_the_nearest_one():
    for asked in ("f1", "macrof1"):
        with pytest.raises(
            UserError, match=rf"unknown metric '{asked}'; did you mean macro_f1\? \(known: accuracy, ba"
        ):
            choose(Settings("all", metric=asked))


def test_no_users_sweep_is_called_like_a_report_beside_anothers(tmp_path):
    with pytest.raises(UserError, match="'mine_macro_f1' names results of the project's own"):
        chosen_sweeps(str(tmp_path / "mine_macro_f1.py"), sweep_names())


def test_neither_commands_nor_stored_runs_rest_on_the_metric():
    from resilinet_jax.command.experiment import _identity

    one, other = (choose(Settings("all", metric=metric)) for metric in ("accuracy", "macro_f1"))
    assert _identity(one) == _identity(other)
    assert "--metric=macro_f1" in other.settings.command_line(NAME)


def without_choices(text):
    """Epochs and learning rates are chosen by accuracy in validation, whatever the metric."""
    return text.lower().replace("validation accuracy", "")


def test_every_sweep_takes_every_metric():
    for name in sweep_names():
        results = dataclasses.replace(with_classes(fake(name)), metric="macro_f1")
        sweep = load_sweep(name)
        titles = " ".join(table.title + " ".join(table.columns) for table in sweep.tables(results))
        assert "macro F1" in titles.replace("Macro", "macro"), name
        assert "accuracy" not in without_choices(titles), name
        drawn = [sweep.figure(results), *(each.figure for each in sweep.more_figures(results))]
        labels = {ax.get_ylabel() for figure in drawn for ax in figure.axes}
        assert "accuracy" not in without_choices(" ".join(labels)), name
        assert {each.points for each in sweep.comparisons(results)} == {"points of macro F1"}, name
