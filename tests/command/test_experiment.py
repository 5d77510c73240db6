import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from resilinet_jax import sweeps
from resilinet_jax.command import experiment
from resilinet_jax.command import reporting as finished
from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.datasets.splits import Splits
from resilinet_jax.errors import UserError
from resilinet_jax.failures import combinations
from resilinet_jax.runtime import user_code
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.own_scenario import made_up

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture
def asked(monkeypatch):
    """What the engine would have been asked to run; it answers with accuracies made up on the spot."""
    seen = {}

    def answer(network, feed, cells, training, progress, combinations, *others):
        seen.update(
            network=network,
            splits=Splits(*feed._examples.values(), feed.classes),
            cells=cells,
            training=training,
            combinations=combinations,
        )
        return made_up(network, feed, cells, training, progress, combinations)

    monkeypatch.setattr(experiment, "run_cells", answer)
    monkeypatch.setattr(experiment, "rehearse", lambda *arguments: None)  # it takes longer than all else
    return seen


@pytest.fixture
def unreported(monkeypatch):
    """No report is made, where a test is about what was asked for alone."""
    monkeypatch.setattr(finished, "publish_both", lambda *arguments: None)


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    subject = np.arange(600) % 6
    x = rng.normal(size=(600, 2))
    x[:, 1] = subject
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(600) % 3, subject=subject)
    return str(tmp_path / "mine.npz")


@pytest.fixture
def published(monkeypatch):
    """Results that would have been reported, by folder."""
    seen = {}
    monkeypatch.setattr(finished, "publish_both", lambda _, target, results, *others: seen.update({target: results}))
    return seen


def interrupted(*_, **__):
    raise KeyboardInterrupt


def run(tmp_path, npz, names=("failout_rate", "failure_combinations"), **flags):
    settings = Settings(sweep="all", dataset=npz, results_dir=str(tmp_path / "out"), overwrite=True, **flags)
    experiment.run_experiment(choose(settings), {name: load_sweep(name) for name in names}, Console(quiet=True))


def test_every_flag_reaches_the_engine(tmp_path, npz, asked):
    run(tmp_path, npz, runs=2, epochs=3, batch_size=5, learning_rate=0.25, failout_rate=0.125, hidden_units=7, seed=4)
    training = asked["training"]
    assert (training.runs, training.epochs, training.batch_size, training.seed) == (2, 3, 5, 4)
    assert {float(cell.learning_rate) for cell in asked["cells"].values()} == {0.25}
    assert set(asked["cells"]["failure_combinations/resilinet"].failout_rate) == {0.125}
    assert set(asked["cells"]["failout_rate/failout_0.3"].failout_rate) == {np.float32(0.3)}
    assert asked["network"].stages["n3"].units == 7
    settings = json.loads((tmp_path / "out" / "health" / "failout_rate" / "settings.json").read_text())
    assert settings["preset"]["learning_rate"] == 0.25
    assert settings["settings"]["seed"] == 4


def test_what_selects_epochs_reaches_the_engine_and_the_sweeps(tmp_path, npz, asked, published):
    for select_by in ("no_failure", "last"):
        run(tmp_path, npz, select_by=select_by)
        assert asked["training"].selection.last == (select_by == "last")
        assert {results.select_by for results in published.values()} == {select_by}


@pytest.mark.usefixtures("unreported")
def test_traced_functions_are_kept_by_network_data_and_code(tmp_path, npz, asked, monkeypatch):
    def rests_on(**flags):
        run(tmp_path, npz, **flags)
        return asked["training"].rests_on

    first = rests_on()
    assert rests_on(seed=4, runs=2, epochs=3, learning_rate=0.25, failout_rate=0.125, batch_size=5) == first
    assert rests_on(hidden_units=7) != first
    monkeypatch.setattr(experiment, "code_version", lambda: {"code": "another"})
    assert rests_on() != first
    # A user's own code may depend on more than its file shows.
    file = user_code.UserFile("mine.py", tmp_path / "mine.py", b"", {})
    health = choose(Settings("all", dataset=npz, results_dir=str(tmp_path / "user"), hidden_units=7))
    choice = dataclasses.replace(health, scenario=dataclasses.replace(health.scenario, file=file))
    experiment.run_experiment(choice, {"failout_rate": load_sweep("failout_rate")}, Console(quiet=True))
    assert asked["training"].rests_on is None


@pytest.mark.usefixtures("unreported")
def test_sweeps_share_runs_by_what_their_networks_are_not_by_whose_argument(tmp_path):
    networks = [{}, {"skip_units": 64}, {"skip_units": 32}, {"layers": [1, 2]}, {"layers": [1, 3]}]
    made = {f"{number}": dataclasses.replace(load_sweep("failout_rate"), network=network)
            for number, network in enumerate([*networks, {"skip_units": 32}])}  # fmt: skip
    groups = experiment.by_network(made)
    assert [[network, list(sharing)] for network, sharing in groups] == [
        [network, [f"{number}", "5"] if number == 2 else [f"{number}"]] for number, network in enumerate(networks)
    ]
    names = [experiment.kept_apart(tmp_path / "runs", network).name for network in networks]
    assert names[:3] == ["runs", "runs_skip_units_64", "runs_skip_units_32"]
    assert len({*names}) == len(networks)
    assert experiment.kept_apart(tmp_path / "runs", {}, overwriting=True).name == "runs_overwriting"


def test_presets_are_sized_as_told(tmp_path, npz, asked):
    run(tmp_path, npz, preset="paper", batch_size=32)
    assert (asked["training"].runs, asked["training"].epochs) == (10, 50)
    assert asked["network"].stages["n1"].units == 250
    assert len(asked["splits"].train.y) == 480


@pytest.mark.usefixtures("unreported")
def test_split_and_seed_reach_the_split(tmp_path, npz, asked):
    def subjects(**flags):
        run(tmp_path, npz, batch_size=5, **flags)
        return [set(np.unique(part.x[:, 1].round(4))) for part in asked["splits"][:3]]

    by_subject = subjects(split="subject")
    assert [len(group) for group in by_subject] == [4, 1, 1]
    assert [len(group) for group in subjects(split="random")] == [6, 6, 6]
    assert any(subjects(split="subject", seed=seed) != by_subject for seed in range(1, 5))


@pytest.mark.usefixtures("unreported")
def test_train_examples_are_a_limit(tmp_path, npz, asked):
    run(tmp_path, npz, batch_size=5, train_examples=100)
    assert [len(part.y) for part in asked["splits"][:3]] == [100, 12, 60]


def test_a_graph_too_large_to_enumerate_gets_intervals_in_every_sweep(asked, npz, tmp_path, monkeypatch):
    monkeypatch.setattr(combinations, "MOST_NODES", 2)
    output = io.StringIO()
    settings = Settings(sweep="all", dataset=npz, results_dir=str(tmp_path), tolerance=0.06, runs=2)
    chosen = {name: load_sweep(name) for name in sweep_names()}
    experiment.run_experiment(choose(settings), chosen, Console(file=output, width=80, highlight=False))
    assert not asked["combinations"].complete
    # Under hazardous failures n2 alone, n3 alone or both are likely enough to count; under normal ones less so.
    assert "of 8 failure combinations are evaluated" in output.getvalue()
    assert output.getvalue().count("Intervals (points) around the average accuracies") == len(chosen)
    hazardous = np.array([0.22, 0.20, 0.15])
    left_out = asked["combinations"].left_out(hazardous)
    assert 0 < left_out <= 0.06
    report = (tmp_path / "health" / "average_accuracy" / "report.md").read_text()
    assert f"| Hazardous | {100 * left_out:.2g} | ± {50 * left_out:.2g} |" in report
    frame = pd.read_csv(tmp_path / "health" / "average_accuracy" / "accuracies.csv", keep_default_na=False)
    assert set(frame.failing) == {"+".join(failing) or "none" for failing in asked["combinations"].failing_sets}


def test_message_sizes_reach_the_sweep_and_the_report_made_again(tmp_path, npz, asked):
    settings = Settings(sweep="bandwidth", dataset=npz, results_dir=str(tmp_path), runs=2, hidden_units=7)
    experiment.run_experiment(choose(settings), {"bandwidth": load_sweep("bandwidth")}, Console(quiet=True))
    folder = tmp_path / "health" / "bandwidth"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    # Two features from the source, seven units from each node.
    assert json.loads(before["settings.json"])["message_bytes"] == {"i": 8, "n1": 28, "n2": 28, "n3": 28}
    assert f"| n2+n1+i | select | 4.00 | {8 + 3 * 28} |" in before["report.md"].decode()
    assert f"| n2+n1+i | add | 7.00 | {2 * 8 + 5 * 28} |" in before["report.md"].decode()
    finished.report_again(folder, sweeps, Console(quiet=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_results_from_before_message_sizes_were_stored_are_reported_again(tmp_path, npz, asked):
    run(tmp_path, npz, batch_size=5)
    folder = tmp_path / "out" / "health" / "failout_rate"
    known = json.loads((folder / "settings.json").read_text())
    for newer in ("message_bytes", "command", "files", "sha256"):
        del known[newer]
    (folder / "settings.json").write_text(json.dumps(known))
    finished.report_again(folder, sweeps, Console(quiet=True))
    assert json.loads((folder / "settings.json").read_text())["message_bytes"] == {}


@pytest.mark.usefixtures("unreported")
def test_to_overwrite_removes_runs_and_the_pass_under_way_once_others_take_their_place(
    tmp_path, npz, asked, monkeypatch
):
    run(tmp_path, npz, batch_size=5)
    scenario = tmp_path / "out" / "health"
    (scenario / "checkpoints" / "own").mkdir(parents=True)
    (scenario / "runs" / "old.npz").touch()
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run_cells", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, npz, batch_size=6)
    assert (scenario / "checkpoints").exists()
    assert (scenario / "runs" / "old.npz").exists()
    assert (scenario / "runs_overwriting" / "identity.json").exists()
    run(tmp_path, npz, batch_size=6)
    assert sorted(path.name for path in scenario.iterdir()) == [".lock", "runs"]
    assert json.loads((scenario / "runs" / "identity.json").read_text())["--batch_size"] == 6


@pytest.mark.usefixtures("unreported")
def test_to_overwrite_goes_on_with_every_network_where_it_was_stopped(tmp_path, npz, asked, monkeypatch):
    names, scenario = ["failout_rate", "skip_layer"], tmp_path / "out" / "health"
    answers = iter([experiment.run_cells, interrupted])
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run_cells", lambda *arguments: next(answers)(*arguments))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, npz, names)
    (scenario / "runs_overwriting" / "of the first network").touch()
    run(tmp_path, npz, names)
    assert sorted(path.name for path in scenario.iterdir()) == [".lock", "runs", "runs_skip_units_64"]
    assert (scenario / "runs" / "of the first network").exists()


@pytest.mark.usefixtures("unreported")
def test_runs_of_two_kinds_of_devices_meet_on_request_alone(tmp_path, npz, asked, monkeypatch):
    monkeypatch.setattr(experiment.Store, "machines", ["another"])
    with pytest.raises(UserError, match=r"measured on another, .*; train on another, .* or add --mix_devices"):
        run(tmp_path, npz)
    run(tmp_path, npz, mix_devices=True)
    assert asked["cells"]


@pytest.mark.usefixtures("unreported")
def test_finished_runs_are_not_trained_again_for_their_models_on_another_kind_of_device(
    tmp_path, npz, asked, monkeypatch
):
    monkeypatch.setattr(experiment.Store, "machines", ["another"])
    monkeypatch.setattr(experiment, "unfinished", lambda models, store, kept=None: [] if kept is None else models)
    run(tmp_path, npz)
    with pytest.raises(UserError, match=r"measured on another, .*; train on another, .* or add --mix_devices"):
        run(tmp_path, npz, keep_models=True)


@pytest.mark.usefixtures("unreported")
def test_a_command_leaves_the_checkpoints_of_one_that_was_stopped(tmp_path, npz, asked):
    kept = tmp_path / "out" / "health" / "checkpoints" / "own" / "models.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    settings = Settings(sweep="failout_rate", dataset=npz, results_dir=str(tmp_path / "out"))
    experiment.run_experiment(choose(settings), {"failout_rate": load_sweep("failout_rate")}, Console(quiet=True))
    assert asked["cells"]
    assert kept.exists()
