import dataclasses
import functools
import io
import json
import pathlib
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from resilinet_jax import sweeps
from resilinet_jax.command import experiment, reporting
from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.errors import UserError
from resilinet_jax.failures import combinations
from resilinet_jax.failures.user_failures import YOUR_OWN, parse_failure_probability, user_report_folder
from resilinet_jax.runtime.store import Measured
from resilinet_jax.sweeps import load_sweep
from tests.helpers.fakes import fake, leave_out_pictures
from tests.helpers.hostile import contents

ASKED = "n3:0.3, n1:0.1"
OWN_PROBABILITY = {"n1": 0.1, "n2": 0.0, "n3": 0.3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1:0.1,n2:0.02", {"n1": 0.1, "n2": 0.02}),
        (" n1 : 1 , n2: 0", {"n1": 1.0, "n2": 0.0}),
        ("n1->n2:1e-3,rack:a:0.5", {"n1->n2": 0.001, "rack:a": 0.5}),
    ],
)
def test_a_name_ends_at_the_last_colon(text, expected):
    assert parse_failure_probability(text) == expected


@pytest.mark.parametrize("text", ["", ",", "n1", "n1=0.1", "n1:", ":0.1", "n1:0.1,", "0.1", "n1:0,1"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"must be name:probability with commas between, as n1:0\.1,n2:0\.02, got '"):
        parse_failure_probability(text)


@pytest.mark.parametrize("number", ["-0.1", "1.5", "10", "nan", "inf", "-inf", "1e999"])
def test_what_is_no_probability_is_refused(number):
    with pytest.raises(UserError, match=f"of 'n2' must be in \\[0, 1\\], got {number}$"):
        parse_failure_probability(f"n1:0.1,n2:{number}")


def test_a_name_given_twice_is_refused():
    with pytest.raises(UserError, match="names 'n1' twice; keep one"):
        parse_failure_probability("n1:0.1,n2:0.1,n1:0.1")


def test_the_report_goes_beside_the_sweeps_own():
    assert user_report_folder(pathlib.Path("results/health/failout_rate")) == pathlib.Path(
        "results/health/failout_rate_your_own"
    )
    here = pathlib.Path.cwd()
    assert user_report_folder(pathlib.Path(".")) == here.parent / f"{here.name}_your_own"


@pytest.fixture(scope="module")
def patched():
    """Nothing is trained or rendered: the cells that the engine was asked for, each time.

    It answers with accuracies that tell cells and runs apart.
    """
    seen = []

    def answer(network, feed, cells, training, progress, combinations, *others):
        seen.append(list(cells))
        curves = np.full((training.runs, training.epochs), 0.25)
        return {
            name: Measured(
                np.random.default_rng(number).uniform(size=(training.runs, len(combinations.survival))),
                curves,
                curves,
                np.ones((training.runs, len(network.graph.hyperconnections))),
                np.zeros((training.runs, len(combinations.survival), 0, 3)),
            )
            for number, name in enumerate(cells)
        }

    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        patch.setattr(experiment, "run_cells", answer)
        patch.setattr(experiment, "rehearse", lambda *arguments: None)  # it takes longer than all else
        yield seen


@pytest.fixture(scope="module")
def sweep_in(tmp_path_factory, patched):
    """Runs sweeps in a folder; their scenario's folder, and what was said."""
    rng = np.random.default_rng(0)
    npz = tmp_path_factory.mktemp("data") / "mine.npz"
    np.savez(npz, x=rng.normal(size=(600, 2)), y=np.arange(600) % 3)

    def run(folder, *names, **flags):
        flags = {"results_dir": str(folder), "batch_size": 5, "runs": 3, **flags}
        output = io.StringIO()
        console = Console(file=output, width=80, highlight=False)
        settings = Settings(sweep="all", dataset=str(npz), **flags)
        experiment.run_experiment(choose(settings), {name: load_sweep(name) for name in names}, console)
        return folder / "health", output.getvalue()

    return run


@pytest.fixture
def run(sweep_in, tmp_path):
    return functools.partial(sweep_in, tmp_path / "out")


class Finished(NamedTuple):
    """A sweep that was run, and then reported under the user's own failures.

    Attributes:
      scenario: the folder of its scenario.
      before: what was in it before that report.
      said: by the report.
      asked: the cells that the engine was asked for, each time.
    """

    scenario: pathlib.Path
    before: dict
    said: str
    asked: list


@pytest.fixture(scope="module")
def finished(sweep_in, patched, tmp_path_factory):
    """Makes a finished sweep, which nobody changes, once."""

    def make(name):
        patched.clear()
        scenario, _ = sweep_in(tmp_path_factory.mktemp(name), name)
        before = contents(scenario)
        return Finished(scenario, before, report(scenario / name, ASKED), list(patched))

    return functools.cache(make)


def report(folder, text=None):
    output = io.StringIO()
    reporting.report_again(folder, sweeps, Console(file=output, width=80, highlight=False), text)
    return output.getvalue()


def brute_force(folder):
    """Averages under the user's own probabilities, from the rows of `accuracies.csv` one by one."""
    averages = {}
    for row in pd.read_csv(folder / "accuracies.csv", keep_default_na=False).itertuples():
        failing = [] if row.failing == "none" else row.failing.split("+")
        probability = np.prod([p if node in failing else 1 - p for node, p in OWN_PROBABILITY.items()])
        averages[row.cell, row.run] = averages.get((row.cell, row.run), 0) + probability * row.accuracy
    return averages


def test_a_finished_sweep_is_evaluated_under_the_users_own_failures(finished):
    scenario, before, said, asked = finished("failout_rate")
    own = scenario / "failout_rate_your_own"
    assert said.rstrip().endswith("failout_rate_your_own")
    assert len(asked) == 1, "it trained nothing"
    after = contents(scenario)
    assert {path: after[path] for path in before} == before, "the sweep's own report stays"
    averages = pd.read_csv(own / "averages.csv").set_index(["cell", "failure_setting"])
    expected = brute_force(scenario / "failout_rate")
    for cell in ("failout_0.05", "failout_failure_poor"):
        runs = [expected[cell, number] for number in range(3)]
        assert averages.loc[(cell, YOUR_OWN), "mean"] == pytest.approx(np.mean(runs), abs=1e-6)
        assert averages.loc[(cell, YOUR_OWN), "std"] == pytest.approx(np.std(runs, ddof=1), abs=1e-6)
    others = averages[averages.index.get_level_values("failure_setting") != YOUR_OWN]
    pd.testing.assert_frame_equal(
        others, pd.read_csv(scenario / "failout_rate/averages.csv").set_index(["cell", "failure_setting"])
    )
    row = next(line for line in said.splitlines() if line.startswith("Your own"))
    assert f"{100 * averages.loc[('failout_0.05', YOUR_OWN), 'mean']:.2f} ± " in row
    text = (own / "report.md").read_text()
    assert (
        "Failure setting 'your own' (--failure_probability): n3 30 %, n1 10 %; what is not named never fails." in text
    )
    assert "under your own failures" in (own / "report.html").read_text()
    assert "'--failure_probability=n3:0.3, n1:0.1'" in text.splitlines()[-2]


@pytest.mark.parametrize("name", ["failout_rate", "hyperconnection_weight"])  # whose cells know failure settings
def test_a_sweep_with_the_flag_trains_the_same_cells_and_reports_the_same(finished, run, patched, name):
    scenario, *_, asked = finished(name)
    patched.clear()
    other, said = run(name, failure_probability=ASKED)
    assert patched == asked, "its failure setting made no cell"
    assert said.count("Written to") == 1
    assert "Your own" in said
    for folder in (name, f"{name}_your_own"):
        one, two = (contents(where / folder) for where in (scenario, other))
        assert sorted(one) == sorted(two)
        differing = {str(path) for path in one if one[path] != two[path]}
        assert differing <= {"settings.json", "report.html"}, "these name the results folder"


def test_weights_of_failure_settings_are_not_made_for_the_users_own(finished):
    said = finished("hyperconnection_weight").said
    row = next(line for line in said.splitlines() if line.startswith("Your own"))
    assert row.count("n/a") == 2
    assert row.count("±") == 3


def test_a_report_under_own_failures_is_made_again_or_under_others(run):
    scenario, _ = run("average_accuracy", "failure_combinations")
    own = scenario / "average_accuracy_your_own"
    report(scenario / "average_accuracy", ASKED)
    before = contents(own)
    report(own)
    assert contents(own) == before
    report(scenario / "average_accuracy", "n2:0.5")
    other = contents(own)
    assert other != before
    report(own, ASKED)
    assert contents(own) == before
    # All sweeps of a scenario at once, but no report beside a report.
    report(scenario, "n2:0.5")
    assert contents(own) == other
    assert sorted(path.name for path in scenario.iterdir() if path.name.startswith(("average", "failure"))) == [
        "average_accuracy",
        "average_accuracy_your_own",
        "failure_combinations",
        "failure_combinations_your_own",
    ]


def test_results_of_an_earlier_version_take_the_flag(run):
    scenario, _ = run("average_accuracy")
    path = scenario / "average_accuracy" / "settings.json"
    known = json.loads(path.read_text())
    del known["settings"]["failure_probability"]
    for newer in ("files", "sha256"):  # which they had not, either
        known.pop(newer, None)
    path.write_text(json.dumps(known))
    report(scenario / "average_accuracy", ASKED)
    assert json.loads((scenario / "average_accuracy_your_own" / "settings.json").read_text())["settings"] == {
        **known["settings"],
        "failure_probability": ASKED,
    }


def test_failures_that_were_not_evaluated_are_refused(run, monkeypatch):
    monkeypatch.setattr(combinations, "MOST_NODES", 2)
    scenario, _ = run("average_accuracy", tolerance=0.06)
    before = contents(scenario)
    with pytest.raises(UserError, match=r"weigh 0\.\d+ under it, expected at most --tolerance=0.06; give smaller"):
        report(scenario / "average_accuracy", "n1:0.5,n2:0.5,n3:0.5")
    assert contents(scenario) == before
    said = report(scenario / "average_accuracy", "n1:0.02,n2:0.01")
    assert "Your own" in said[said.index("Intervals (points)") :]


def test_the_users_own_setting_is_the_one_that_is_told_where_there_is_room_for_one():
    results = fake("failure_combinations")
    own = dataclasses.replace(results, failure_settings={**results.failure_settings, YOUR_OWN: {"n2": 0.25}})
    assert (results.usual_setting, results.harshest_setting) == ("normal", "hazardous")
    assert (own.usual_setting, own.harshest_setting) == (YOUR_OWN, YOUR_OWN)
    (table,) = load_sweep("failure_combinations").tables(own)
    assert table.columns[1] == "Prob. (%), your own"
    assert [row[:2] for row in table.rows[:4]] == [["None", "75.00"], ["n1", "0"], ["n2", "25.00"], ["n3", "0"]]
    calm = dataclasses.replace(results, failure_settings={**results.failure_settings, YOUR_OWN: {"n2": 0.0}})
    assert (calm.usual_setting, calm.harshest_setting) == ("normal", "hazardous")
