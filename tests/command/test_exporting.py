import importlib.util
import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import resilinet_jax as rj
from resilinet_jax import files, sweeps
from resilinet_jax.command import exporting
from resilinet_jax.command import main as command_line
from resilinet_jax.deploy import trial
from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.errors import UserError
from resilinet_jax.files import checked_json, read_json
from resilinet_jax.runtime import user_code
from tests.helpers.fakes import fake, leave_out_pictures, record
from tests.helpers.hostile import command
from tests.helpers.nodes import Nodes
from tests.helpers.own_scenario import FILE

SWEEP = "--sweep=failure_combinations"
RESULTS = "results/mine/failure_combinations"
EXPORT = (f"--export={RESULTS}", "--scenario=own.py", "--cell=resilinet", "--run=1")


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "_set_up_jax", lambda mode: None)  # the tests' own devices are in place
        leave_out_pictures(patch)
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield patch


@pytest.fixture(scope="module")
def run(patched):
    """Runs a command afresh; what it says, or the line that it ends with."""

    def said(*flags):
        patched.setattr(user_code, "_loaded", {})
        try:
            command(*flags, "--nohuge_pages")
        except SystemExit as stop:
            return str(stop.code)
        return ""

    return said


@pytest.fixture(scope="module")
def here(run):
    """The folder of a finished sweep that has kept its models."""
    folder = pathlib.Path.cwd()
    (folder / "own.py").write_text(FILE)
    assert run(SWEEP, "--scenario=own.py", "--keep_models") == ""
    return folder


@pytest.fixture(scope="module")
def exported(here, run):
    assert run(*EXPORT) == ""
    return here / "results/mine/artefacts/failure_combinations/resilinet/run_1"


def test_a_recalibrated_cell_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    finished = record("statistics"), sweeps.load_sweep("statistics"), fake("statistics")
    monkeypatch.setattr(exporting, "_read", lambda *given: finished)
    with pytest.raises(UserError, match=r"^dfg_recalibrated has statistics of each failure combination.*take the same"):
        exporting.export_cell(tmp_path, "dfg_recalibrated", 0, None, sweeps, Console(), "health", None, False)


def test_an_exported_cell_says_what_the_sweep_measured(here, exported):
    nodes = Nodes(exported)
    manifest = nodes.manifest
    frame = pd.read_csv(here / RESULTS / "accuracies.csv", keep_default_na=False)
    measured = frame.query("cell == 'resilinet' and run == 1").set_index("failing").accuracy
    rng = np.random.default_rng(0)  # the file's own data
    y = rng.integers(0, 3, 200)
    x = rng.normal(size=(200, 5)) + 2 * np.eye(3, 5)[y]
    splits = rj.split_dataset(rj.Dataset("mine", x, y), "random", 0)
    shuffled = np.random.default_rng(0).permutation(200)[-20:]
    model = rj.load_model(exported, scenario="own.py")
    sizes = {"i": 5 * 4, "edge": 4 * 4}
    for predicted in manifest.predicted:
        failing = "+".join(predicted.failing) or "none"
        assert predicted.score == measured[failing]
        logits = nodes.answer(splits.test.x, dict.fromkeys(predicted.failing, 0))
        assert (logits.argmax(1) == splits.test.y).mean() == pytest.approx(measured[failing], abs=1e-6)
        np.testing.assert_allclose(model(x[shuffled], failed=predicted.failing), logits, rtol=1e-5, atol=1e-5)
        assert predicted.messages == (["i->edge", "edge->cloud"] if failing == "none" else ["i->cloud"])
        assert predicted.bytes == sum(sizes[name.split("->")[0]] for name in predicted.messages)
    assert manifest.class_counts == np.bincount(splits.train.y).tolist()
    assert (manifest.input_shape, manifest.input_dtype) == ([5], "float32")
    assert json.loads((exported / "manifest.json").read_text())["settings"]["inference_activity"] == "0"


def no_namespaces(graph):
    raise UserError("this machine gives none")


def test_the_nodes_of_an_artefact_are_tried_and_reported(here, run, exported, capsys, monkeypatch):
    monkeypatch.setattr(trial, "Namespaces", no_namespaces)  # what is cut off is waited for in tests/deploy
    shutil.copytree(exported, here / "tried")
    assert run("--deploy=tried").startswith("error: tried is of a scenario of somebody's own; add --scenario=own.py")
    capsys.readouterr()
    assert run("--deploy=tried", "--scenario=own.py") == ""
    said = capsys.readouterr().out
    assert "Everything is as predicted" in said
    assert "silent cuts: this machine gives none" in said
    assert "Written to tried_deployment" in said
    rows = pd.read_csv(here / "tried_deployment" / "deployment.csv", keep_default_na=False)
    assert rows.failing.tolist() == ["none", "edge"]
    assert (rows.accuracy_predicted - rows.accuracy_measured).abs().max() < 1e-6
    assert rows.messages_measured.tolist() == [2, 1]
    assert run("--deploy=own.py") == "error: --deploy=own.py is no artefact; make one with --export"


def test_an_artefact_that_names_another_file_runs_nothing_of_it(here, run, exported):
    shutil.copytree(exported, here / "hostile")
    (here / "evil.py").write_text("open('ran', 'w')")
    path = here / "hostile" / "manifest.json"
    values = read_json(path)
    for settings in (values["recorded"]["settings"] | {"scenario": "evil.py"}, {"scenario": "own.py", "x": 1}):
        path.write_bytes(checked_json(values | {"recorded": {**values["recorded"], "settings": settings}}))
        line = run("--deploy=hostile", "--scenario=own.py")
        assert line == "error: hostile does not tell what it was trained on; export it again"
    assert not (here / "ran").exists()


def test_without_its_model_a_run_is_trained_again_to_the_last_bit(here, run, exported, tmp_path):
    (models,) = here.glob("results/mine/runs*/models")
    models.rename(tmp_path / "models")
    try:
        assert run(*EXPORT, f"--artefact={tmp_path / 'again'}") == ""
    finally:
        (tmp_path / "models").rename(models)
    kept, again = (sorted(folder.glob("*.safetensors")) for folder in (exported, tmp_path / "again"))
    assert [path.read_bytes() for path in kept] == [path.read_bytes() for path in again]
    assert len(kept) == 3
    assert not list(here.glob("results/mine/checkpoints*/*"))


@pytest.fixture
def artefact(exported, tmp_path):
    """A folder with an artefact, of which no program can be read any more, and a file of somebody's."""
    folder = shutil.copytree(exported, tmp_path / "a")
    (folder / "edge.stablehlo").unlink()
    (folder / "cloud.stablehlo").write_bytes(b"of a JAX that is gone")
    (folder / "placement.toml").write_text("mine")
    return folder


AGAIN = "--scenario=own.py"
WEIGHTS = ("cloud.safetensors", "edge.safetensors", "i.safetensors")


def test_programs_are_made_again_from_the_weights_alone(here, run, artefact, capsys):
    before = rj.load_model(artefact, scenario="own.py")
    with pytest.raises(UserError, match=r"edge.stablehlo.* missing or not what was exported; --export=.* again"):
        Artefact.open(artefact)
    kept = {name: ((artefact / name).read_bytes(), (artefact / name).stat().st_ino) for name in WEIGHTS}
    manifest = read_json(artefact / "manifest.json")
    capsys.readouterr()
    assert run(f"--export={artefact}", AGAIN, "--artefact=elsewhere") == ""
    assert run(f"--export={artefact}", AGAIN) == ""
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Made the programs of 3 nodes again from the weights, in {artefact}"
    )
    assert {name: ((artefact / name).read_bytes(), (artefact / name).stat().st_ino) for name in WEIGHTS} == kept
    assert (artefact / "placement.toml").read_text() == "mine"
    assert read_json(artefact / "manifest.json")["predicted"] == manifest["predicted"]
    x = np.random.default_rng(3).normal(size=(7, 5))
    for folder in (artefact, here / "elsewhere"):
        nodes = Nodes(folder)
        for failed in ((), ("edge",)):
            logits = nodes.answer(before.standardised(x), dict.fromkeys(failed, 0))
            np.testing.assert_allclose(logits, before(x, failed), rtol=1e-5, atol=1e-5)
        assert sorted(nodes.manifest.files) == sorted([*WEIGHTS, "i.stablehlo", "edge.stablehlo", "cloud.stablehlo"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([AGAIN, "--cell=dfg"], r"--cell belongs to a sweep's results, but .*a is an artefact; leave --cell out"),
        ([AGAIN, "--run=0"], r"--run belongs to a sweep's results, but .*a is an artefact; leave --run out"),
        ([], r".*a is of a scenario of somebody's own; add --scenario=own.py, which is run"),
        ([AGAIN, "--onnx"], r"--onnx needs jax2onnx, which is missing; pip install 'resilinet_jax\[onnx\]'"),
        ([AGAIN], r".*a: edge.safetensors missing or not what was exported; export the artefact again"),
    ],
)
def test_programs_that_can_not_be_made_again_leave_all_as_it_was(run, artefact, flags, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    if flags == [AGAIN]:
        weights = artefact / "edge.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    before = {path.name: path.read_bytes() for path in artefact.iterdir()}
    assert re.fullmatch(f"error: {message}", run(f"--export={artefact}", *flags))
    assert {path.name: path.read_bytes() for path in artefact.iterdir()} == before


def test_what_a_killed_command_leaves_is_refused_and_mended_by_the_same_command(run, artefact, monkeypatch):
    weights = {name: (artefact / name).read_bytes() for name in WEIGHTS}
    write, written = files.write_file, []

    def killed(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(files, "write_file", killed)
    assert run(f"--export={artefact}", AGAIN).startswith("interrupted")
    monkeypatch.undo()
    with pytest.raises(UserError, match="missing or not what was exported"):
        Artefact.open(artefact)
    assert {name: (artefact / name).read_bytes() for name in WEIGHTS} == weights
    assert run(f"--export={artefact}", AGAIN) == ""
    Artefact.open(artefact)


@pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not installed")
def test_programs_in_onnx_come_and_go(run, artefact):
    for flags, suffixes in (["--onnx"], {".stablehlo", ".safetensors", ".onnx"}), ([], {".stablehlo", ".safetensors"}):
        assert run(f"--export={artefact}", AGAIN, *flags) == ""
        assert {pathlib.Path(name).suffix for name in Artefact.open(artefact).manifest.files} == suffixes
        assert bool(list(artefact.glob("*.onnx"))) == bool(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cell=resilinett"], r"--cell: unknown cell 'resilinett'; did you mean resilinet\? \(known: .*\)"),
        (["--run=2"], r"--run=2: resilinet has 2 runs; expected 0 to 1"),
        (["--scenario=health"], r"results of a scenario of somebody's own; add --scenario=own.py, which is run then"),
        (["--artefact=results/mine/failure_combinations/x"], r".*lies in the sweep's folder, which is replaced.*"),
        (["--artefact=results/mine/runs"], r".*runs holds something else than an artefact; choose another --artefact"),
        (["--export=results/mine"], r"--export=results/mine holds no results; give a sweep's folder, as .*"),
        (["--export=nowhere"], r"--export=nowhere: no such folder; .*"),
        (["--sweep=all"], r"--export and --sweep are two things to do; give one of them"),
        (["--draw"], r"--export and --draw are two things to do; give one of them"),
        (["--run=-1"], r"--run must be an integer in \[0, 10000\], got -1"),
    ],
)
def test_a_mistake_is_one_line(here, run, flags, message):
    given = {flag.split("=")[0]: flag for flag in (*EXPORT, *flags)}
    assert re.fullmatch(f"error: {message}", run(*given.values()))


def test_models_that_could_not_be_kept_are_refused_before_anything_is_written(run, monkeypatch, tmp_path):
    flags = (SWEEP, "--keep_models", f"--results_dir={tmp_path / 'r'}")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert "safetensors, which is missing; pip install" in run(*flags)
    assert not list(tmp_path.iterdir())


def test_a_cell_must_be_named(here, run):
    line = run(*(flag for flag in EXPORT if not flag.startswith("--cell")))
    assert line == "error: --cell is missing; give one of resilinet, dfg, vanilla"
    for flag, job in {
        "cell=dfg": "export=<a sweep's results>",
        "run=0": "export=<a sweep's results>",
        "artefact=a": "export=<a sweep's results>",
        "onnx": "export=<a sweep's results>",
        "chaos_seconds=1": "deploy=<an artefact>",
    }.items():
        name = flag.split("=")[0]
        line = f"error: --{name} belongs to --{job}; add that, or leave --{name} out"
        assert run(f"--{flag}", "--sweep=failout_rate") == line


def test_results_that_were_changed_are_refused(here, run):
    path = here / RESULTS / "accuracies.csv"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"resilinet,0,1,none,", b"resilinet,0,1,none,0"))
    try:
        line = run(*EXPORT)
    finally:
        path.write_bytes(before)
    assert "accuracies.csv is not what the sweep wrote" in line
    assert line.count("\n") == 0


def test_results_of_other_code_are_refused(here, run, monkeypatch):
    now = read_json(here / RESULTS / "settings.json")["environment"]["code"]
    monkeypatch.setattr(exporting, "environment", lambda: {"code": "another"})
    line = run(*EXPORT)
    assert (
        line == f"error: {RESULTS} was made by version {now} of the code, not another; run the sweep again, then export"
    )


def test_a_scenario_that_has_changed_is_refused(here, run):
    (here / "own.py").write_text(FILE.replace("nn.relu(", "nn.tanh("))
    try:
        line = run(*EXPORT)
    finally:
        (here / "own.py").write_text(FILE)
    assert line == "error: own.py has changed since; bring it back, or run the sweep again"


def test_a_run_that_comes_out_otherwise_is_refused_and_what_differs_is_named(here, run, monkeypatch, tmp_path):
    measured = exporting.run_cells

    def other(*arguments):
        return {name: each._replace(score=each.score + 0.1) for name, each in measured(*arguments).items()}

    monkeypatch.setattr(exporting, "run_cells", other)
    monkeypatch.setattr(exporting, "MODELS", "elsewhere")
    monkeypatch.setattr(exporting, "machine", lambda: "TPU v9")
    line = run(*EXPORT, f"--artefact={tmp_path / 'a'}")
    told = (
        r"error: run 1 of resilinet, trained again, has other accuracies \(by up to 10 %\); what differs: cpu .*, now "
    )
    assert re.fullmatch(told + "TPU v9; run the sweep again with --keep_models, and export that", line)
    assert not (tmp_path / "a").exists()
