"""What accelerators would be given, compiled for them without one; skipped where their compilers are not installed."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from benchmarks.ahead import DEVICES, Computations, compiled, hindrances, most, taken
from benchmarks.cases import CASES, build_network, load_splits
from benchmarks.own import RUNS, Own
from resilinet_jax.engine.pass_size import COPIES, DEVICE_SHARE
from resilinet_jax.engine.trial import Trial
from tests.helpers.process import ROOT

# A loop within a loop, as compiled programs are written down.
TEXT = """\
HloModule jit_train, is_scheduled=true

%product (a: f32[4,2,3], b: f32[4,3,5]) -> f32[4,2,5] {
  %a = f32[4,2,3]{2,1,0} parameter(0)
  %b = f32[4,3,5]{2,1,0} parameter(1)
  ROOT %dot.1 = f32[4,2,5]{2,1,0} dot(%a, %b), lhs_batch_dims={0}
}

%sum (c: f32[4,2,5]) -> f32[4,5] {
  %c = f32[4,2,5]{2,1,0} parameter(0)
  ROOT %reduce.1 = f32[4,5]{1,0} reduce(%c), dimensions={1}
}

%graph (a.1: f32[4,2,3]) -> (f32[4,5], f32[4,5]) {
  %fusion.1 = f32[4,2,5]{2,1,0} fusion(%a.1, %a.1), kind=kCustom, calls=%product
  %fusion.2 = f32[4,5]{1,0} fusion(%fusion.1), kind=kInput, calls=%sum
  %custom-call.1 = (f32[4,2,5]{2,1,0}, s8[64]{0}) custom-call(%a.1, %a.1), custom_call_target="__cublas$gemm"
  ROOT %tuple.1 = (f32[4,5]{1,0}, f32[4,5]{1,0}) tuple(%fusion.2, %fusion.2)
}

%step (state: (s32[], f32[4,5])) -> (s32[], f32[4,5]) {
  %state = (s32[], f32[4,5]{1,0}) parameter(0)
  %get-tuple-element.1 = f32[4,5]{1,0} get-tuple-element(%state), index=1
  %call.1 = (f32[4,5]{1,0}, f32[4,5]{1,0}) call(%get-tuple-element.1), to_apply=%graph
  ROOT %tuple.2 = (s32[], f32[4,5]{1,0}) tuple(%call.1)
}

%models (all: (s32[], f32[4,5])) -> (s32[], f32[4,5]) {
  %copy.1 = f32[4,5]{1,0} copy(%all)
  ROOT %while.1 = (s32[], f32[4,5]{1,0}) while(%copy.1), condition=%less, body=%step
}

ENTRY %main (x: f32[4,5]) -> f32[4,5] {
  %fusion.3 = f32[4,5]{1,0} fusion(%x), kind=kLoop, calls=%sum
  ROOT %while.2 = (s32[], f32[4,5]{1,0}) while(%fusion.3), condition=%less, body=%models
}
"""


def test_kernels_of_a_step_are_those_of_the_innermost_loop():
    computations = Computations(TEXT)
    step = computations.step()
    assert [each.operation for each in step] == ["fusion", "fusion", "custom-call"]
    assert [computations.multiplies(each) for each in step] == [True, False, True]


def test_a_program_without_loops_is_its_own_step():
    alone = TEXT[: TEXT.index("%step")] + TEXT[TEXT.index("ENTRY") :].replace("while(", "call(").replace(
        "body=%models", "to_apply=%graph"
    )
    assert len(Computations(alone).step()) == 4


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("  %convert.1 = f64[4]{0} convert(%x)", "float64"),
        ('  %custom-call.2 = f32[] custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback"', "host callback"),
        ("  %outfeed.1 = token[] outfeed(%x, %after)", "transfer"),
        ("  %copy-start.1 = (f32[4]{0:S(5)}, f32[4]{0}, u32[]) copy-start(%x)", "transfer"),
        ("  %convolution.1 = f32[4]{0} convolution(%x, %x), feature_group_count=64", "grouped convolution"),
    ],
)
def test_what_is_in_the_way_is_found(planted, found):
    assert not hindrances(TEXT)
    assert hindrances(f"{TEXT}\n{planted}\n") == [found]
    assert not hindrances(f"{TEXT}\n  %convolution.1 = f32[4]{{0}} convolution(%x, %x), feature_group_count=1")


def test_the_engine_s_functions_are_compiled_for_any_device():
    """Here for one that is there, whose compiler every installation has."""
    case = CASES["small"][0]._replace(steps=2)
    splits = load_splits(case)
    own = Own(*build_network(case, splits.classes), splits, case.batch_size, RUNS)
    mesh = Mesh(np.array(jax.devices()[:1]), ("models",))
    ((name, train),) = compiled(own, mesh, 4, ["train"])
    assert name == "train"
    assert hindrances(train.as_text()) == []
    kept = Trial(own.program).bytes_per_model
    assert taken(train) > 4 * kept  # four models take more than what they keep
    # Of a thousand, with room for the copies of each; what a step works with goes off.
    most_bytes = int(1000 * COPIES["cpu"] * kept / DEVICE_SHARE)
    assert 900 < most(own, mesh, most_bytes) < 1000


# By device, the kernels that a training step of the smallest network may have: a few more than today's 60 and 100.
BOUNDS = {"H100": 66, "TPU v5e": 120}
FORWARD = 6 + 1 + 1  # products of a network with six layers, an adapter of the skip from the source, and its head
BACKWARD = FORWARD + 6  # a gradient of each weight, and of what goes in, but for the two that take the readings


@pytest.mark.parametrize("device", [pytest.param(name, id=name.replace(" ", "_")) for name in DEVICES])
def test_an_epoch_is_nothing_but_kernels(device, tmp_path):
    """In a process of its own, with all optimisations, which these tests do without."""
    if importlib.util.find_spec(DEVICES[device].plugin) is None:
        pytest.skip("its compiler is not installed (.[ahead])")
    path = tmp_path / "told.json"
    epoch = "--functions=order,train,validate,finish"
    given = [f"--devices={device}", "--cases=small", "--models=280,most", epoch, f"--json={path}"]
    own = {
        name: told for name, told in os.environ.items() if name not in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    }
    subprocess.run([sys.executable, "-m", "benchmarks.ahead", *given], cwd=ROOT, env=own, check=True, timeout=300)
    (rows,) = (table["rows"] for table in json.loads(path.read_text())["tables"])
    assert {row["in the way"] for row in rows} == {""}
    few, many = (row for row in rows if row["function"] == "train")
    assert few["products"] == FORWARD + BACKWARD
    assert few["kernels"] <= BOUNDS[device]
    # A pass as large as the engine makes it fits the device, and fills it.
    largest = max(row["GB"] for row in rows if row["models"] == many["models"])
    assert many["models"] > 100 * few["models"]
    assert 0.5 < largest / (DEVICES[device].memory / 1e9) < 0.95
