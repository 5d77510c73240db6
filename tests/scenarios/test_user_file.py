"""A scenario in a user's own file: what works, and what is said about what does not."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

import resilinet_jax as rj
from resilinet_jax.command import experiment
from resilinet_jax.command import main as command_line
from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.datasets.feed import first_split
from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.deploy.ask import _guesses
from resilinet_jax.deploy.model import load_model
from resilinet_jax.errors import UserError
from resilinet_jax.runtime import user_code
from resilinet_jax.scenarios import load_scenario
from tests.helpers.hostile import check_line, command, contents, run
from tests.helpers.own_scenario import FILE, leave_out_training, made_up
from tests.helpers.process import ROOT
from tests.helpers.process import launch as start

QUICK = ("--runs=1", "--epochs=1", "--batch_size=16", "--train_examples=64", "--nocompilation_cache")


class Mistake(NamedTuple):
    """One that a user may make in such a file.

    Attributes:
      name: of the mistake.
      old, new: what is replaced in the file, and by what.
      message: a regular expression for what follows the file's name.
      blamed: text of the line that has to be named; None where no line is to blame.
    """

    name: str
    old: str
    new: str
    message: str
    blamed: str | None = None


def change(name, old, new, message, blamed=None):
    """A mistake whose line is the new text, unless another is to blame."""
    return Mistake(name, old, new, message, blamed or new.split("\n")[0].strip() or None)


SCENARIO_LINE = "SCENARIO = rj.Scenario("
BUILD, LOAD = "def build_network", "def load"
CALL = "def __call__(self, x, training):"
RETURNED = 'return rj.Data(rj.Resident(splits), splits.classes, "mine", "made up", 200, data.fingerprint())'
MISTAKES = [
    # The file as such.
    change("a syntax error", "graph = rj", "graph == = rj", "SyntaxError: invalid syntax; mend this line"),
    change("an indentation", "    graph = rj", "      graph = rj", "IndentationError: .*; mend this line",
           "stages = {"),
    change("a module that is not there", "import numpy as np", "import nunpy as np",
           "ModuleNotFoundError: No module named 'nunpy'; install it, or put it beside this file"),
    change("an import relative to nothing", "import numpy as np", "from .helper import np",
           "ImportError: attempted relative import .*; write import helper for the helper.py beside this file"),
    change("flags of its own", "class Stage(", "import argparse; argparse.ArgumentParser().parse_args()\nclass Stage(",
           "argparse finds no flags of its own here; put numbers of your own into Preset.network"),
    change("an exported name misspelt", "class Stage(", "x = rj.build_chains\nclass Stage(",
           "AttributeError: .*no attribute 'build_chains'"),
    change("an error at import", "class Stage(", "x = 1 / 0\nclass Stage(", "ZeroDivisionError: division by zero"),
    change("a file that ends Python", "class Stage(", "raise SystemExit\nclass Stage(",
           "SystemExit; such a file must only define"),
    Mistake("no SCENARIO", "SCENARIO =", "scenario =", ": defines no SCENARIO; end it with SCENARIO = Scenario"),
    Mistake("a function called scenario", "SCENARIO = rj.Scenario", "SCENARIO = lambda **_: 0\nnone = rj.Scenario",
            "SCENARIO must be a resilinet_jax.Scenario, got function", "SCENARIO = lambda"),
    Mistake("a dictionary", SCENARIO_LINE, "SCENARIO = dict(", "must be a resilinet_jax.Scenario, got dict",
            "SCENARIO = dict"),
    Mistake("the class alone", SCENARIO_LINE, "SCENARIO = rj.Scenario; dict(", "Scenario, got the class Scenario",
            "SCENARIO = "),
    # Its fields.
    Mistake("an unknown field", "failure_settings=", "failures=",
            "Scenario has no field 'failures'; did you mean failure_settings", SCENARIO_LINE),
    Mistake("a missing field", "    build_network=build_network,\n", "",
            "TypeError: .*missing 1 required.*'build_network'", SCENARIO_LINE),
    change("an unknown field of a preset", 'presets={"quick": rj.Preset(2, 2, 16, 0.01, 0.1, None, network',
           'presets={"quick": rj.Preset(2, 2, 16, 0.01, 0.1, None, netwrok',
           "Preset has no field 'netwrok'; did you mean network"),
    Mistake("a name that is no folder", '"mine",\n', '"my/own",\n',
            r"SCENARIO.name must be letters, digits.* got 'my/own'", SCENARIO_LINE),
    Mistake("a name of the project's", '"mine",\n', '"health",\n', "SCENARIO.name must be none of the project's own",
            SCENARIO_LINE),
    Mistake("data sets as text", "datasets=()", 'datasets=("digits")', "SCENARIO.datasets must be a tuple of names",
            SCENARIO_LINE),
    Mistake("a loss that is no function", "load=load,", "load=load,\n    loss=1.0,",
            "SCENARIO.loss must be a function, given by", SCENARIO_LINE),
    Mistake("a loss that is a mean", "load=load,", "load=load,\n    loss=lambda logits, y: logits.mean(),",
            r"the loss must be one float an example: shape \(3,\), got float32 \(\); leave out the mean", "loss="),
    Mistake("a function that was called", "load=load", "load=None", "SCENARIO.load must be a function, given by",
            SCENARIO_LINE),
    Mistake("probabilities without settings", '"normal": {"edge": 0.1}', '"normal": 0.1',
            r"SCENARIO.failure_settings\['normal'\] must be probabilities by node", SCENARIO_LINE),
    Mistake("a preset by itself", '{"quick": rj.Preset(2, 2, 16, 0.01, 0.1, None, network={"units": 4})}',
            'rj.Preset(2, 2, 16, 0.01, 0.1, None, network={"units": 4})',
            'SCENARIO.presets must be as {"quick": Preset', SCENARIO_LINE),
    Mistake("no quick preset", '"quick": rj', '"tiny": rj', ": SCENARIO.presets has no 'quick' .known: tiny.; add it"),
    Mistake("a number as text", "16, 0.01", '16, "0.01"',
            r": SCENARIO.presets\['quick'\].learning_rate must be in \[1e-30, 1000\], got '0.01'"),
    Mistake("a rate in percent", "0.01, 0.1, None", "0.01, 10, None",
            r": SCENARIO.presets\['quick'\].failout_rate must be in \[0, 1\], got 10"),
    Mistake("a module in a preset", 'network={"units": 4}', 'network={"units": nn.Dense}',
            r"presets\['quick'\].network\['units'\] must be a number, a text or a tuple", SCENARIO_LINE),
    # Its graph.
    change("a size that build_network does not take", "def build_network(classes, units)",
           "def build_network(classes, units, depth)",
           r"SCENARIO.build_network is called with .*presets\['quick'\].network, but: missing .*'depth'"),
    change("a network that is not returned", "return rj.Network", "rj.Network",
           r"build_network\(\) must return a resilinet_jax.Network, got NoneType", BUILD),
    change("a node misspelt", 'rj.build_chain(("i", "edge", "cloud"))',
           'rj.build_graph(("i", "edge", "cloud"), [("i", "egde"), ("edge", "cloud")])',
           "hyperconnection i->egde: unknown node 'egde'; did you mean edge", "rj.build_graph"),
    change("a cycle", 'rj.build_chain(("i", "edge", "cloud"))',
           'rj.build_graph("iabc", [("i", "a"), ("a", "b"), ("b", "a"), ("b", "c")])',
           "form a cycle: .*; data must flow towards the cloud", "rj.build_graph"),
    Mistake("a failing node that is not there", '"normal": {"edge": 0.1}', '"normal": {"fog": 0.1}',
            ": failure setting 'normal': unknown node 'fog'"),
    Mistake("a failing cloud", '"normal": {"edge": 0.1}', '"normal": {"cloud": 0.1}',
            ": failure setting 'normal': 'cloud' is the cloud, which never fails"),
    change("a stage for no node", '{"edge": Stage(units)', '{"egde": Stage(units)',
           "stage for an unknown node 'egde'; did you mean edge", "return rj.Network"),
    change("an adapter for no hyperconnection", '{"i->cloud":', '{"i->clod":',
           "adapter for an unknown hyperconnection 'i->clod'; did you mean i->cloud", "return rj.Network"),
    change("a class as stage", '"edge": Stage(units)', '"edge": Stage',
           "the stage of node 'edge' must be a Flax module .*, got the class Stage", "return rj.Network"),
    # Its stages.
    change("shapes that can't be summed", '{"i->cloud": rj.dense(units)}', "{}",
           r"node 'cloud' can't sum what it receives: edge->cloud \(1, 4\), i->cloud \(1, 5\); add an adapter", BUILD),
    change("a stage that wants more", CALL, "def __call__(self, x, training, mask):",
           r"the stage of node 'edge', Stage, is called with \(x, training\), but: missing.*; give it .*training\)",
           "@nn.compact"),
    Mistake("a stage of NNX", "    return rj.Network(graph, stages",
            '    from flax import nnx\n    stages["edge"] = nnx.Linear(5, 4, rngs=nnx.Rngs(0))\n'
            "    return rj.Network(graph, stages",
            "stage of node 'edge' must be a Flax module .*, got Linear; make one with flax.nnx.bridge.to_linen.Linear",
            "return rj.Network"),
    change("a dictionary as stage", '"edge": Stage(units)', '"edge": {}',
           "must be a Flax module .* or a function, got dict; make one, as in nn.Dense", "return rj.Network"),
    change("a node called none", '"edge", "cloud"', '"none", "cloud"', "a node can't be called 'none', which means",
           "rj.build_chain"),
    change("what a stage keeps", "return nn.relu(nn.Dense(self.units)(x))",
           'return nn.Dense(self.units)(x) + self.variable("ema", "mean", lambda: 0.0).value',
           "the module of 'edge' keeps ema; only params and batch_stats can be kept here: keep it in batch_stats",
           BUILD),
    change("noise at inference", "return nn.relu(nn.Dense(self.units)(x))",
           'return nn.Dropout(0.5, deterministic=False, rng_collection="noise")(nn.Dense(self.units)(x))',
           "InvalidRngError: .* needs PRNG for \"noise\", in the stage of node 'edge'"),
    change("a stage as adapter", '{"i->cloud": rj.dense(units)}', '{"i->cloud": Stage(units)}',
           r"the adapter of hyperconnection i->cloud, Stage, is called with \(x\), but: missing .*'training'",
           "@nn.compact"),
    Mistake("no nn.compact", "    @nn.compact\n", "",
            "AssignSubModuleError: .*in the stage of node 'edge'", "return nn.relu"),
    change("too few logits", "rj.DenseStage(1, units, classes)", "rj.DenseStage(1, units, classes - 1)",
           r"the cloud 'cloud' must send one float a class: shape \(3, 3\) .*got float32 \(3, 2\)", BUILD),
    change("another output in training", "return nn.relu(nn.Dense(self.units)(x))",
           "return nn.relu(nn.Dense(self.units + training)(x))", "ScopeParamShapeError: .*in the stage of node 'edge'"),
    change("a branch on a number", "return nn.relu(nn.Dense(self.units)(x))", "return x if x.sum() > 0 else -x",
           "TracerBoolConversionError: .*in the stage of node 'edge'"),
    change("an undefined name in a stage", "return nn.relu(nn.Dense(self.units)(x))", "return nn.relu(y)",
           "NameError: name 'y' is not defined, in the stage of node 'edge'"),
    change("a batch of a fixed size", "return nn.relu(nn.Dense(self.units)(x))",
           "return nn.relu(nn.Dense(self.units)(x.reshape(1, 5)))",
           "TypeError: .*reshape.*in the stage of node 'edge'"),
    change("statistics of an adapter", '{"i->cloud": rj.dense(units)}', '{"i->cloud": nn.BatchNorm(True)}',
           "the module of 'i->cloud' keeps batch_stats; only params can be kept here", BUILD),
    # Its data.
    change("a load that takes nothing", "def load(settings, preset)", "def load()",
           "SCENARIO.load is called with settings and preset, but: too many positional"),
    change("splits instead of data", RETURNED, "return splits",
           r"load\(\) must return a resilinet_jax.Data, got Splits", LOAD),
    change("splits instead of a feed", "rj.Data(rj.Resident(splits)", "rj.Data(splits",
           "Data.feed must be a feed, as Resident.splits., got Splits", "return rj.Data"),
    change("another number of classes", "splits.classes,", "4,", "Data.classes must be the feed's 3, got 4"
           , "return rj.Data"),
    change("labels from 1", "data = rj.Dataset(\"mine\", x, y)", 'data = rj.Dataset("mine", x, y - 1)',
           "mine's example .* has label -1, expected 0..C-1; number the classes from 0"),
    change("labels as text", "data = rj.Dataset(\"mine\", x, y)",
           'data = rj.Dataset("mine", x, np.array(list("abc"))[y])',
           r"mine's y must be integers of shape \(200,\), .*, got <U1 .*; number the classes with numpy.unique"),
    change("one text for names", "data = rj.Dataset(\"mine\", x, y)",
           'data = rj.Dataset("mine", x, y, target_names="heat")',
           r"mine's target_names must be different texts, one for each column of y, .*, got 'heat'; give such"),
    change("no columns of numbers", "data = rj.Dataset(\"mine\", x, y)",
           'data = rj.Dataset("mine", x, x[..., None], target_names=("heat",))',
           r"mine's y must be numbers of shape \(200, 1\), .*got float64 of shape \(200, 5, 1\)"),
    change("a loss of numbers for classes", 'name="mine",',
           'name="mine", loss=lambda logits, y: (logits - y[:2]).sum(-1),',
           r"the loss, called with logits \(3, 3\) and y int32 \(3,\): .*; give one that takes these"),
    change("rows of unequal lengths", "data = rj.Dataset(\"mine\", x, y)",
           'data = rj.Dataset("mine", [[1.0], [1.0, 2.0]], y)',
           r"mine's x is no array, got list \(setting .*\); make it one"),
    change("too few subjects", "data = rj.Dataset(\"mine\", x, y)", 'data = rj.Dataset("mine", x, y, y[:9])',
           r"mine's subject must be of shape \(200,\), one for each of x, got \(9,\)"),
    change("labels that are no integers", "y = rng.integers(0, 3, 200)", "y = rng.integers(0, 3, (200, 1))[:, 0] + 0.5",
           "IndexError: ", "x = rng.normal"),
    change("NaN", "    data = rj.Dataset", "    splits = [x.fill(np.nan)]\n    data = rj.Dataset",
           "mine's example 0 holds NaN or infinity; drop or fill such examples", "data = rj.Dataset"),
    change("a file that is not there", "    rng = np.random.default_rng(0)", "    rng = open('none.csv')",
           "FileNotFoundError: .*'none.csv'"),
]  # fmt: skip

# Without the tests' shape checks, as a user has it; all in one process, since starting JAX for each takes minutes.
ALL_IN_ONE = """
import json, sys, time
from resilinet_jax import sweeps
from resilinet_jax.command import main
said = []
main._set_up_jax = lambda mode: None
for flags in json.load(sys.stdin):
    start = time.monotonic()
    try:
        main.main(["launch.py", *flags], sweeps)
        stopped = None
    except SystemExit as stop:
        stopped = stop.code
    said.append((stopped, time.monotonic() - start))
json.dump(said, open("said.json", "w"))
"""


def number_of(source, text):
    return next(number for number, line in enumerate(source.splitlines(), 1) if text in line)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What is said about each mistake, the seconds it took, and what all of them left behind."""
    folder = tmp_path_factory.mktemp("mistakes")
    asked = []
    for number, mistake in enumerate(MISTAKES):
        assert mistake.old in FILE, mistake.name
        (folder / f"own{number}.py").write_text(FILE.replace(mistake.old, mistake.new, 1))
        asked.append(["--sweep=failure_combinations", f"--scenario=own{number}.py", f"--results_dir=r{number}", *QUICK])
    before = contents(folder)
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE], input=json.dumps(asked), capture_output=True, text=True, check=False,
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((folder / "said.json").read_text())
    (folder / "said.json").unlink()
    return dict(zip((mistake.name for mistake in MISTAKES), said)), contents(folder) == before


@pytest.mark.parametrize("mistake", [pytest.param(mistake, id=mistake.name) for mistake in MISTAKES])
def test_a_mistake_is_one_line_with_file_line_and_remedy(answers, mistake):
    line, seconds = answers[0][mistake.name]
    assert line is not None, "it was taken"
    number = MISTAKES.index(mistake)
    check_line(line, mistake.message, seconds, mistake.name)
    where = f"error: own{number}.py"
    if mistake.blamed is not None:
        where += f":{number_of(FILE.replace(mistake.old, mistake.new, 1), mistake.blamed)}: "
    assert line.startswith(where), (line, where)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys, unrendered):
    """A folder to be in, and commands that load every file afresh, as those of processes of their own would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(command_line, "_set_up_jax", lambda mode: None)  # the tests' own devices are in place

    def said(*flags):
        monkeypatch.setattr(user_code, "_loaded", {})
        command(*flags, "--nohuge_pages")
        return capsys.readouterr().out

    def refused(*flags):
        monkeypatch.setattr(user_code, "_loaded", {})
        return run(*flags, "--nohuge_pages")[1]

    return tmp_path, said, refused


def test_a_precision_counts_although_the_file_has_imported_jax(here, monkeypatch):
    folder, said, _ = here
    (folder / "mine.py").write_text(FILE)
    leave_out_training(monkeypatch)
    monkeypatch.setattr(command_line, "check_precision", lambda precision: None)  # a CPU takes no notice of it
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16")
    before = jax.config.jax_default_matmul_precision
    try:
        said("--scenario=mine.py", "--sweep=failure_combinations", "--matmul_precision=float32")
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    made = json.loads((folder / "results/mine/runs/identity.json").read_text())
    assert made["jax_default_matmul_precision"] == os.environ["JAX_DEFAULT_MATMUL_PRECISION"] == "float32"


def test_a_mistake_leaves_nothing_behind(answers):
    assert answers[1]


@pytest.mark.parametrize(
    ("old", "new", "flags"),
    [
        (CALL, "def __call__(self, x, training, mask):", ["--sweep=failout_rate", "--dry_run"]),
        ("units):", "units, skip_units=0):\n    units = -1 if skip_units else units", ["--sweep=all"]),
    ],
)
def test_a_mistake_in_any_network_is_told_before_anything_compiles(here, old, new, flags):
    folder, _, refused = here
    (folder / "own.py").write_text(FILE.replace(old, new))
    assert refused("--scenario=own.py", *flags, *QUICK).startswith("error: own.py:")
    assert not [*folder.glob("results/**/*.csv")]


def test_a_process_of_its_own_says_it_in_one_line(tmp_path):
    wrong = FILE.replace(CALL, "def __call__(self, x, training, mask):")
    (tmp_path / "own.py").write_text("import jax.numpy as jnp\nONE = jnp.ones(1)\n" + wrong)  # before JAX is set up
    done = start("--scenario=own.py", "--sweep=failout_rate", *QUICK, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: own.py:12: the stage of node 'edge'")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scenario=none.py"], "--scenario=none.py: no such file; write one as in docs/your_network.md"),
        (["--scenario=own.py", "--preset=paper"], "own.py: SCENARIO.presets has no 'paper' (known: quick); add it"),
        (
            ["--scenario=own.py", "--dataset=mhealth"],
            "--dataset=mhealth is unknown to --scenario=own.py; expected auto",
        ),
        (
            ["--scenario=own.py", "--alpha=1"],
            "--alpha means nothing to --scenario=own.py; its network has no such flag",
        ),
    ],
)
def test_a_wrong_flag_beside_a_file_is_one_line(here, flags, message):
    folder, _, refused = here
    (folder / "own.py").write_text(FILE)
    assert refused("--sweep=failout_rate", *flags, *QUICK).startswith(f"error: {message}")


def test_the_file_in_the_documentation_trains_reports_again_and_counts_as_code(here):
    folder, said, refused = here
    text = (ROOT / "docs" / "your_network.md").read_text(encoding="utf-8")
    text = text[text.index("```python\n") + 10 :].split("```")[0]
    (folder / "blobs.py").write_text(text)
    flags = ("--scenario=blobs.py", "--sweep=failure_combinations", *QUICK)
    assert "Data set: four blobs." in said(*flags)
    assert not (folder / "__pycache__").exists()
    results = folder / "results" / "blobs" / "failure_combinations"
    assert set(pd.read_csv(results / "accuracies.csv", keep_default_na=False).failing) == {"none", "edge"}
    repeated = "python -m resilinet_jax --sweep=failure_combinations --scenario=blobs.py --runs=1"
    assert repeated in (results / "report.md").read_text()
    # The same runs again with other comments; other code is refused.
    (folder / "blobs.py").write_text("# A comment.\n" + text)
    assert "3 of them finished already" in said(*flags)
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    (folder / "blobs.py").write_text(text.replace("nn.relu(", "nn.tanh("))
    changed = r"error: results/blobs holds runs made with SCENARIO's code \w+, not \w+; go back .*"
    assert re.fullmatch(changed, refused(*flags))
    # The report again needs no code of it.
    (folder / "blobs.py").unlink()
    (results / "report.md").unlink()
    said("--report=results/blobs/failure_combinations")
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_the_numbers_in_the_documentation_are_predicted_and_reported(here):
    folder, said, refused = here
    first, *_, numbers = (
        block.split("```")[0]
        for block in (ROOT / "docs" / "your_network.md").read_text(encoding="utf-8").split("```python\n")[1:]
    )
    before, after = first.split("    rng = ")[0], "    splits = " + first.split("    splits = ")[1]
    made = "".join(f"    {line}\n" for line in numbers.splitlines() if line.startswith(("rng", "x", "y", "data")))
    (folder / "oven.py").write_text(before + made + after)
    flags = ("--scenario=oven.py", "--sweep=failure_combinations", "--runs=2", "--epochs=3")
    told = said(*flags)
    assert "R² (%) while nodes fail, on oven" in told
    assert "Errors while nodes fail, in own units, ResiliNet" in told
    results = folder / "results" / "blobs" / "failure_combinations"
    score, errors = (pd.read_csv(results / name, keep_default_na=False) for name in ("r2.csv", "errors.csv"))
    assert {*score.failing} == {"none", "edge"}
    assert {*errors.target_name} == {"temperature", "pressure"}
    errors["r2"] = 1 - errors.mse / errors.mse_of_mean
    run = ["cell", "run", "failing"]
    pd.testing.assert_series_equal(
        errors.groupby(run).r2.mean(), score.set_index(run).r2.sort_index(), rtol=0, atol=1e-6
    )
    vanilla = score[(score.cell == "vanilla") & (score.failing == "edge")]
    assert (vanilla.r2 == 0).all(), "the training mean is predicted"
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    (results / "report.md").unlink()
    said("--report=results/blobs/failure_combinations")
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
    assert "temperature" in said("--scenario=oven.py", "--describe")
    classes_only = "error: --metric=macro_f1 is of classes, but numbers are predicted; leave it out: results are R²"
    assert refused(*flags, "--metric=macro_f1") == classes_only
    assert refused("--report=results/blobs/failure_combinations", "--metric=macro_f1") == classes_only
    export = "--export=results/blobs/failure_combinations", "--cell=resilinet", "--scenario=oven.py"
    assert "Exported run 0 of resilinet" in said(*export)
    artefact = folder / "results" / "blobs" / "artefacts" / "failure_combinations" / "resilinet" / "run_0"
    model = load_model(artefact, str(folder / "oven.py"))
    assert model.classes == ("temperature", "pressure")
    documented: dict = {}
    exec(numbers, documented)
    splits = rj.split_dataset(documented["data"], "random", seed=0)
    test = first_split(rj.Resident(splits), "test")
    x, y = splits.standardisation.undone(test.x), model.targets.undone(test.y)
    assert np.abs(y[:, None] - documented["y"]).min(1).max() < 1e-3, "in their own units"
    errors = errors[(errors.cell == "resilinet") & (errors.run == 0)].set_index("failing")
    for each in Artefact.open(artefact).manifest.predicted:
        own = errors.loc[["+".join(each.failing) or "none"]]
        said_of = model(x, each.failing)
        np.testing.assert_allclose(np.square(said_of - y).mean(0), own.mse, rtol=1e-4)
        assert each.score == pytest.approx(own.r2.mean(), abs=1e-6)
        assert model.score(model.targets(said_of), test.y) == pytest.approx(each.score, abs=1e-5)
    centre, scale = model.targets
    line = _guesses(Artefact.open(artefact).manifest, np.array([[0.0, 1.0]]))
    assert line == [(f"{centre[0]:.10g}", f"{centre[1] + scale[1]:.10g}")]


def test_an_example_trains_with_many_habits(here):
    folder, said, _ = here
    source = (ROOT / "examples" / "mhealth_cnn.py").read_text(encoding="utf-8")
    layers = "nn.Sequential([Convolution(channels), nn.BatchNorm(), nn.Dropout(0.5), nn.relu, lambda x: FACTOR * x])"
    for old, new in (
        ("import numpy as np", "import numpy as np\nfrom habits_helper import FACTOR"),
        ('"fog": Convolution(2 * channels)', '"fog": lambda x, training: Convolution(2 * channels)(x, training)'),
        ('"edge": Convolution(channels)', f'"edge": {layers}'),
        ("return nn.Dense(self.classes)(x.mean(1))", 'return self.perturb("p", nn.Dense(self.classes)(x.mean(1)))'),
        ('"edge', '"édge |, $1'),
    ):
        assert old in source
        source = source.replace(old, new)
    (folder / "my own.py").write_bytes("\ufeff".encode() + source.replace("\n", "\r\n").encode())
    (folder / "habits_helper.py").write_text("FACTOR = 2\n")
    flags = ("--scenario=my own.py", "--sweep=failure_combinations", "--runs=1", "--epochs=1", "--nocompilation_cache")
    limits = ("--train_examples=64", "--batch_size=64")
    assert "Written to results/mhealth_cnn" in said(*flags, *limits)
    results = folder / "results" / "mhealth_cnn" / "failure_combinations" / "accuracies.csv"
    failing = {"none", "édge |, $1", "fog", "édge |, $1+fog"}
    assert set(pd.read_csv(results, keep_default_na=False).failing) == failing
    assert "Written to results/mhealth_cnn" in said("--report=results/mhealth_cnn")
    (folder / "habits_helper.py").write_text("FACTOR = 3\n")
    with pytest.raises(SystemExit, match="holds runs made with SCENARIO's code"):
        said(*flags, *limits)


def test_what_a_network_takes_may_be_called_like_any_flag_that_does_not_size_networks(here):
    given = {"units": 4, "splits": 4, "seed": 7, "window": -1, "epochs": 0, "hidden_units": 9}
    path = here[0] / "mine.py"
    text = FILE.replace("classes, units):", "classes, units, **others):")
    path.write_text(text.replace('network={"units": 4}', f"network={given}"))
    plain, deeper = (choose(Settings("all", scenario=str(path), epochs=epochs, hidden_units=5)) for epochs in (2, 3))
    assert plain.preset.network == given | {"hidden_units": 5}
    assert (plain.preset.epochs, plain.settings.seed) == (2, 0)
    identities = [experiment._identity(each) for each in (plain, deeper, plain.with_network({"seed": 8}))]
    assert all(one != other for one, other in itertools.combinations(identities, 2))


def test_the_version_of_a_file_follows_code_and_not_comments():
    def version(source):
        return user_code.UserFile("own.py", pathlib.Path("own.py"), source.encode(), {}).version()

    assert version("# one\n" + FILE) == version(FILE)
    assert version(FILE.replace("200", "201")) != version(FILE)


@pytest.mark.parametrize(("scenario", "name"), [("own.py", "mine"), ("health", "health"), ("cifar10", "cifar10")])
def test_draw_makes_a_picture_without_data_and_training(here, scenario, name):
    folder, said, _ = here
    # A load that can't be called shows that no data is asked for.
    (folder / "own.py").write_text(FILE.replace("    rng = ", "    rng = 1 / 0\n    rng = "))
    assert said(f"--scenario={scenario}", "--draw", "--results_dir=r") == f"Drawn to r/{name}/graph.svg\n"
    drawn = ET.parse(folder / "r" / name / "graph.svg").getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= ({"i", "edge", "cloud", "10 %"} if name == "mine" else {"i", "4 %", "never"})
    assert [path.name for path in (folder / "r" / name).iterdir()] == ["graph.svg"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--draw", "--sweep=all"], "--draw and --sweep are two things to do; give one of them"),
        (["--draw", "--scenario=helth"], "unknown scenario 'helth'; did you mean health?"),
        (
            ["--draw", "--scenario=own.py"],
            "own.py:15: build_network() must return a resilinet_jax.Network, got NoneType",
        ),
    ],
)
def test_a_mistake_in_drawing_is_one_line(here, flags, message):
    folder, _, refused = here
    (folder / "own.py").write_text(FILE.replace("return rj.Network", "rj.Network"))
    assert refused(*flags).startswith(f"error: {message}")
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("example", "limits"),
    [
        ("mhealth_cnn", ["--train_examples=128", "--batch_size=64"]),
        ("residual_images", ["--train_examples=64", "--batch_size=32", "--image_size=8"]),
    ],
)
def test_an_example_is_rehearsed_and_reported(here, monkeypatch, example, limits):
    folder, said, _ = here
    monkeypatch.setattr(experiment, "run_cells", made_up)
    flags = ("--sweep=failure_combinations", "--runs=1", "--epochs=1", "--nocompilation_cache")
    said(f"--scenario={ROOT / 'examples' / example}.py", *flags, *limits)
    results = folder / "results" / example / "failure_combinations" / "accuracies.csv"
    assert set(pd.read_csv(results, keep_default_na=False).failing) == {"none", "edge", "fog", "edge+fog"}


def test_windows_hold_one_activity_of_one_subject_each():
    example = load_scenario(str(ROOT / "examples" / "mhealth_cnn.py")).file.namespace
    y = np.repeat([0, 1, 0, 1], [70, 40, 31, 40])
    x = np.arange(len(y))[:, None] + np.zeros(3)
    windows = example["cut_windows"](rj.Dataset("mine", x, y, np.repeat([0, 1], [90, 91])))
    assert windows.y.tolist() == [0, 0, 1]
    assert windows.x[:, 0, 0].tolist() == [0, 32, 141]
    assert windows.subject.tolist() == [0, 0, 1]
    with pytest.raises(UserError, match="no 32 rows in a row of one class; sort them by time"):
        example["cut_windows"](rj.Dataset("mine", x, np.arange(len(y)) % 2))
