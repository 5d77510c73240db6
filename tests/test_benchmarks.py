"""The benchmarks' own parts, without their peers: they must not rot between measurements."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from benchmarks import accelerator, cases, clock, common, cost, evaluation, growth, own, precision, race, step, verdict
from benchmarks import all as every
from benchmarks.cases import CASES, build_network
from resilinet_jax import sweeps
from resilinet_jax.command.ingredients import load_sweep
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splits import Examples, Members, Splits
from resilinet_jax.engine.run_cells import run_cells
from resilinet_jax.engine.training import CROSS_ENTROPY
from resilinet_jax.network.forward import Variables, Wiring
from resilinet_jax.report.tables import interval_table
from resilinet_jax.results.results import Results
from resilinet_jax.runtime import limits
from resilinet_jax.runtime.compilation import default_cache_dir
from resilinet_jax.scenarios import load_scenario
from tests.helpers.blobs import CELLS, NETWORK, SETTINGS, SPLITS
from tests.helpers.fakes import fake
from tests.helpers.process import ROOT


def test_operations_of_a_training_step_are_six_for_each_weight_and_example():
    """Health's ten layers of 250 units, the first skip's adapter and the softmax head, in multiply-adds."""
    weights = 23 * 250 + 9 * 250**2 + 23 * 250 + 250 * 12
    preset = load_scenario("health").presets["paper"]
    network = load_scenario("health").build_network(12, **preset.network)
    counted = cost.operations_per_example(network, cost.DATA["health"])
    # Biases, sums and the loss come on top; the gradient of the input is not needed.
    assert 0.98 * 6 * weights < counted < 1.02 * 6 * weights


@pytest.fixture
def parsed():
    """Flags as if nothing had been given."""
    flags.FLAGS(["benchmark"])
    yield flags.FLAGS
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("given", [*every.PARTS.values(), *accelerator.PARTS.values()], ids=" ".join)
def test_every_part_is_a_benchmark_with_these_flags(given):
    # By their text: modules that define the same flag can't be imported side by side.
    module, *asked = given
    texts = [(ROOT / "benchmarks" / f"{name}.py").read_text() for name in (module, "race", "common")]
    for name, value in (flag.removeprefix("--").split("=") for flag in asked):
        assert re.search(rf'flags\.DEFINE_\w+\(\s*"{name}"', "".join(texts))
        assert name != "scenario" or value in CASES


def test_one_table_tells_the_ratios_of_every_part(parsed, tmp_path, capsys, monkeypatch):
    rows = [{"what": "chain", "pairs": {"a peer": [1.0, 3.0, 2.0]}}, {"what": "the peer"}]

    # Writes its rows; or fails; or waits beside a process of its own, which has to end with it.
    python = tmp_path / "python"
    kinds = (
        f"""*one) echo '{json.dumps({"tables": [{"rows": rows}]})}' > "${{3#--json=}}";; *two) exit 3;;"""
        f" *) sleep 1000 & echo $! > {tmp_path}/beside; wait;;"
    )
    python.write_text(f'#!/bin/sh\ncase "$*" in {kinds} esac\n')
    python.chmod(0o755)
    monkeypatch.setattr(every.sys, "executable", str(python))
    with pytest.raises(SystemExit, match="not every part got through"):
        every.tell("Ratios", {name: ["module", name] for name in ("one", "two", "three")}, {"three": 0.5})
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].split() == ["one", "chain", "a", "peer", "3", "1.00", "2.00", "3.00"]
    assert "non-zero exit status 3" in printed[-2]
    assert "timed out after 0.5 seconds" in printed[-1]
    beside = pathlib.Path(f"/proc/{(tmp_path / 'beside').read_text().strip()}/stat")
    # It was told to end, which a busy machine takes a moment for.
    assert any(not beside.exists() or ") Z" in beside.read_text() or time.sleep(0.1) for _ in range(100))


def test_tables_are_printed_and_written(parsed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    monkeypatch.setattr(common, "_told", [])
    parsed.json = str(tmp_path / "figures.json")
    rows = [{"who": "we", "speed": 1234.5, "turns": [1, 2]}, {"who": "they"}]
    common.tell("Speed", {"who": "", "speed": ",.0f"}, rows, ["A note."])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [["Speed"], ["who", "speed"], ["we", "1,234"], ["they"], ["A", "note."]]
    common.tell("Shares", {"what": ""}, [{"what": "all"}])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert [(table["title"], table["rows"]) for table in written["tables"]] == [
        ("Speed", rows),
        ("Shares", [{"what": "all"}]),
    ]
    assert written["machine"]["versions"]["jax"]
    assert {"cpus", "processor", "system", "backend"} <= written["machine"].keys()
    parsed.json = None


def test_a_clock_times_the_epochs_of_a_pass(monkeypatch):
    times = iter([1.0, 3.0, 6.0, 10.0, 11.0, 14.0, 16.0, 26.0])  # when the epochs of two passes end
    now = [0.0]
    epoch = clock.Progress.epoch

    def at(progress, number, **told):
        epoch(progress, number, **told)
        now[0] = next(times)

    monkeypatch.setattr(clock.Progress, "epoch", at)
    monkeypatch.setattr(clock.Progress, "_tell", lambda *_, **__: None)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    timed = clock.Clock()
    settings = dataclasses.replace(SETTINGS, epochs=4, runs=2, runs_per_pass=1)
    run_cells(NETWORK, Resident(SPLITS), {"dfg": CELLS["dfg"]}, settings, timed)
    assert timed.seconds() == 3  # the median of 3, 2 and 10, of the last pass


def test_evaluation_by_the_plan_contends_with_plain_vmap():
    """In a process of its own: it fails unless both say the same."""
    asked = ["--what=health", "--health_models=2", "--examples=1024", "--rounds=1", "--seconds=0.1"]
    command = [sys.executable, "-m", "benchmarks.evaluation", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "resilinet_jax, plain vmap" in done.stdout


def test_evaluation_in_small_batches_contends_with_large_ones(monkeypatch):
    taken, take = [], Members.take
    monkeypatch.setattr(Members, "take", lambda own, data, rows: taken.append(len(rows)) or take(own, data, rows))
    monkeypatch.setattr(race, "take_turns", lambda turns: {how: [turn(), turn()] for how, turn in turns.items()})
    (row,) = evaluation.batches(evaluation.examples(2048), widths=(16,), fallible=2)
    assert set(taken) == {256, 1024}
    assert [len(pairs) for pairs in row["pairs"].values()] == [2]


@pytest.mark.parametrize("models", [1, 4, 10, 13, 35])
def test_the_project_contends_with_as_many_models_as_are_counted(models):
    (case,) = CASES["small"]
    data = Examples(np.zeros((512, 23), np.float32), np.zeros(512, np.int32))
    contender = own.own_case(case, Splits(data, data, data, 3), models, stack=4)
    assert len(contender.assembled().order) == models
    assert contender.program.stack == 4


def test_peers_train_a_model_at_least_in_each_of_many_processes(monkeypatch):
    monkeypatch.setattr(cases, "CORES", 16)
    assert {(models, processes) for _, models, processes in cases._peers(10)} == {(1, 1), (10, 1), (1, 16)}
    assert ("bmm", 2, 16) in cases._peers(40)


def test_processes_take_their_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(limits, "_core_shares", lambda: [0.5])  # a container's quota
    assert common.cores() == 1
    monkeypatch.setattr(common, "cores", lambda: 8)
    monkeypatch.setattr(common.os, "environ", {})
    devices = []
    monkeypatch.setattr(common, "set_up_jax", lambda *given: devices.append(given))
    common.take_share("keras jax", 2)
    assert common.os.environ == {"KERAS_BACKEND": "jax", "TF_NUM_INTRAOP_THREADS": "4", "NPROC": "4"}
    common.take_share(verdict.OWN, 1)
    assert devices == [(1,), ()]


def test_a_fresh_start_has_nothing_compiled_before(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/of/the/user")
    monkeypatch.setattr(common.os, "environ", common.fresh_start(str(tmp_path)))
    assert default_cache_dir().is_relative_to(tmp_path)


@pytest.mark.parametrize("only_products", [False, True])
def test_the_steps_that_the_engine_s_are_compared_with_run(only_products):
    case = CASES["small"][0]._replace(steps=2)
    data = Examples(np.ones((256, 23), np.float32), np.zeros(256, np.int32))
    step.bare(case, Splits(data, data, data, 3), 2, only_products)()


def test_operations_of_a_step_are_those_of_its_matrices():
    """The engine's network has one more than a plain chain: the adapter of the skip from the readings."""
    (case,) = CASES["small"]
    data = Examples(np.ones((256, 23), np.float32), np.zeros(256, np.int32))
    splits = Splits(data, data, data, 12)
    plain = step.weights(step.layers(case, splits, jax.random.key(0)))
    assert plain == 23 * 32 + 5 * 32 * 32 + 32 * 12
    assert step.weights(build_network(case, 12)[1].shapes(data.x).params) == plain + 23 * 32


def test_what_a_step_does_is_told_by_kind():
    compiled = """
  %fusion.1 = f32[8,4]{1,0} fusion(%a, %b), kind=kCustom, metadata={op_name="jit(f)/jvp(Dense)/dot_general"}
  %dot.2 = f32[4,4]{1,0} dot(%a, %c), metadata={op_name="jit(f)/transpose(jvp(Dense))/transpose"}
  %add.3 = f32[8,4]{1,0} add(%a, %b), metadata={op_name="jit(f)/transpose(jvp(Dense))/select_n"}
  %tuple.4 = (f32[8,4]{1,0}) tuple(%a)
  %sub.5 = f32[8,4]{1,0} subtract(%a, %b), metadata={op_name="jit(f)/sub"}
"""
    assert step.kinds(compiled) == {
        "fusion.1": "products, forward",
        "dot.2": "products, backward",
        "add.3": "between products, backward",
        "sub.5": "Adam, else",
    }


def test_the_project_contends_and_learns():
    (case,) = CASES["small"]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 512, np.int32)
    data = Examples((rng.normal(size=(512, 23)) + 3 * np.eye(3, 23)[y]).astype(np.float32), y)
    contender = own.own_case(case, Splits(data, data, data, 3), models=2)
    epoch = contender.start(seed=0)
    first, *_, last = [epoch() for _ in range(5)]
    assert all(0 < after < before for before, after in zip(first, last))
    assert contender.start(seed=0)() == first
    network = build_network(case, 3)[1]
    layers = 23 * 32 + 5 * 32 * 32 + 6 * 32 + 32 * 3 + 3
    assert (
        own.parameters(network, Splits(data, data, data, 3)) == layers + 23 * 32 + 32 + 7
    )  # hyperconnections' weights


WORKER = "import sys; print('{}', flush=True); [print('done', flush=True) for _ in sys.stdin]"


def test_a_contender_that_takes_too_long_is_left_out_with_a_reason(parsed, capsys):
    parsed.limit, parsed.rounds, parsed.seconds = 1.5, 2, 0.1
    hangs, piece = "import time; time.sleep(60)", "input(); print('done', flush=True)"
    tires = f"print('{{}}', flush=True); {piece}; input(); {hangs}"
    dies = f"print('{{}}', flush=True); {piece}; {piece}"
    contenders = {
        "slow": [hangs],
        "broken": ["1 / 0"],
        "tires": [tires],
        "dies": [dies],
        "half": [WORKER, hangs],
        "good": [WORKER],
    }
    raced = race.race(
        (name, race.started([["-I", "-S", "-c", each] for each in code])) for name, code in contenders.items()
    )
    assert [(name, len(rates)) for name, (_, rates) in raced.items()] == [("good", 2)]
    late, early = "which took longer than --limit=1.5 seconds", "which ended early; see what it said above"
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")] == [
        f"left out: slow, {late}",
        f"left out: broken, {early}",
        f"left out: tires, {late}",
        f"left out: half, {late}",
        f"left out: dies, {early}",
    ]


@pytest.mark.parametrize(("loss", "same"), [(1.05, True), (1.3, False)])
def test_contenders_must_learn_the_same(loss, same):
    rows = [
        {"contender": "a", "way": "eager", "loss": 1.0, "loss's standard error": 0.02},
        {"contender": "b", "way": "vmap", "loss": 1.0, "loss's standard error": 0.02},
        {"contender": "c", "way": "bf16", "loss": 9.0, "loss's standard error": 0.02},
        {"contender": "d", "way": verdict.OWN, "loss": loss, "loss's standard error": 0.02},
    ]
    if same:
        verdict.check_losses(rows)
    else:
        with pytest.raises(SystemExit, match=r"d reaches a loss of 1.300"):
            verdict.check_losses(rows)


def test_ratios_are_to_the_best_pytorch_in_float32():
    rows = [
        {"contender": "a", "way": "eager", "models x examples/s": 10.0, "turns": [10.0, 8.0, 10.0], "GFLOP/s": 1.0},
        {"contender": "b", "way": "bf16", "models x examples/s": 90.0, "turns": [90.0] * 3, "GFLOP/s": 9.0},
        {"contender": "c", "way": verdict.OWN, "models x examples/s": 5.0, "turns": [5.0] * 3, "GFLOP/s": 0.5},
        {
            "contender": "d",
            "way": verdict.OWN,
            "models x examples/s": 30.0,
            "turns": [30.0, 32.0, 24.0],
            "GFLOP/s": 3.0,
        },
        {"contender": "e", "way": verdict.SQUARE, "turns": [6.0, 6.0, 4.0], "GFLOP/s": 6.0},
    ]
    verdict.compare(rows)
    assert rows[3]["of best PyTorch"] == 3
    assert rows[3]["of square product"] == 0.5
    # Turn by turn, of the best of ours alone.
    assert rows[3]["pairs"] == {"best PyTorch: a": [3, 4, 2.4], "square product: e": pytest.approx([0.5, 3.2 / 6, 0.6])}
    assert "pairs" not in rows[2]


def test_products_are_rounded_as_they_go_in_forward_and_backward():
    """Against NumPy: operands cut to bfloat16 by their upper 16 bits, to the nearest, and products exact."""

    def nearest(x):
        bits = np.asarray(x, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)

    rng = np.random.default_rng(0)
    a, b, g = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 3), (3, 5), (4, 5)))
    product = precision.rounded_product(precision.MANTISSA["bfloat16"])
    result, pull = jax.vjp(lambda a, b: product(a, b, (((1,), (0,)), ((), ()))), a, b)
    np.testing.assert_allclose(result, nearest(a) @ nearest(b), rtol=1e-5)
    of_a, of_b = pull(g)
    np.testing.assert_allclose(of_a, nearest(g) @ nearest(b).T, rtol=1e-5)
    np.testing.assert_allclose(of_b, nearest(a).T @ nearest(g), rtol=1e-5)
    assert not np.allclose(result, a @ b, rtol=1e-5)


def test_the_dense_layers_of_a_network_multiply_rounded(monkeypatch):
    x, y = SPLITS.test.x[:2], np.zeros(2, np.int32)
    variables = jax.jit(NETWORK.init)(jax.random.key(0), x)
    edges = len(NETWORK.graph.hyperconnections)
    masks = jnp.ones(len(NETWORK.graph.fallible)), Wiring(*[jnp.ones(edges)] * 3)

    def gradient(params):
        return CROSS_ENTROPY(NETWORK.apply(Variables(params, variables.statistics), x, *masks).logits, y).sum()

    exact = jax.jit(jax.grad(gradient))(variables.params)
    monkeypatch.setattr(jax.lax, "dot_general", precision.rounded_product(precision.MANTISSA["bfloat16"]))
    pairs = zip(jax.tree.leaves(exact), jax.tree.leaves(jax.jit(jax.grad(gradient))(variables.params)))
    changed = [not np.array_equal(*pair) for pair in pairs if pair[0].ndim == 2]
    assert changed
    assert all(changed)


def test_growth_is_told_as_a_power():
    """Time with the square of the size, memory not at all."""
    rows = [{"nodes": size, "seconds": size**2, "MB": 700.0} for size in (3, 8, 14)]
    growth.slopes(rows, "nodes")
    assert [row.get("seconds: power") for row in rows] == [None, pytest.approx(2), pytest.approx(2)]
    assert [row.get("MB: power") for row in rows] == [None, 0, 0]
    axes = growth.figure({"nodes": rows, "runs": [{"runs": 1, "seconds": 1.0, "MB": 1.0}]}).axes
    assert [each.get_xlabel() for each in axes] == ["", "", "nodes that may fail", "runs"]


def test_the_width_of_an_interval_is_the_report_s(monkeypatch):
    results = fake("failure_combinations")
    monkeypatch.setattr(Results, "left_out", lambda own, setting: {"normal": 0.00491, "poor": 0.2}.get(setting, 0.0))
    assert growth.width(interval_table(results).markdown()) == 0.49
    assert growth.width("all combinations") == 0


@pytest.mark.parametrize("nodes", [3, 8])
def test_what_grows_is_a_chain_and_a_sweep_of_one_cell(tmp_path, nodes):
    scenario, sweep = tmp_path / "chain.py", tmp_path / "one.py"
    scenario.write_text(growth.SCENARIO.format(nodes=nodes, examples=1000, runs=1, failure=0.02))
    sweep.write_text(growth.SWEEP)
    loaded = load_scenario(str(scenario))
    network = loaded.build_network(8)
    assert len(network.graph.fallible) == nodes
    assert len(network.graph.hyperconnections) == 2 * nodes + 1
    variables = network.shapes(np.zeros((2, 16), np.float32))
    weights = sum(leaf.size for leaf in jax.tree.leaves(variables.params) if leaf.ndim == 2)
    assert weights == (nodes + 2) * 16 * 16 + 16 * 8  # a layer a node and the adapter, and the head
    cells = load_sweep(str(sweep), sweeps).cells(lambda method: method)
    assert cells == {"resilinet": "resilinet"}
