import io
import logging
import os
import subprocess
import sys
import warnings

import jax
import pytest

from resilinet_jax.command import process
from resilinet_jax.errors import UserError
from resilinet_jax.runtime import limits
from tests.helpers.own_scenario import FILE
from tests.helpers.process import ROOT, launch

OTHERS = {
    "JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_TRANSFER_GUARD": "disallow", "JAX_DEBUG_NANS": "1", "JAX_DISABLE_JIT": "1", "JAX_LOG_COMPILES": "1",
    "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_RANDOM_SEED_OFFSET": "7", "JAX_CHECK_TRACER_LEAKS": "banana",
}  # fmt: skip


@pytest.fixture
def environ(monkeypatch):
    """The environment that a process owns, from what it has inherited."""

    def owned(**inherited):
        monkeypatch.setattr(os, "environ", dict(inherited))
        process.own_environment()
        return os.environ

    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    level = logging.root.level
    yield owned
    logging.root.setLevel(level)


@pytest.mark.parametrize(
    ("inherited", "owned"),
    [
        (OTHERS, {}),
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {"MPLBACKEND": "agg"}),
        ({"JAX_PLATFORMS": "CPU", "HOME": "/h"}, {"JAX_PLATFORMS": "cpu", "HOME": "/h"}),
        ({"JAX_NUM_CPU_DEVICES": "17"}, {"JAX_NUM_CPU_DEVICES": "17"}),
        ({"JAX_DEFAULT_PRNG_IMPL": "rbg"}, {"JAX_DEFAULT_PRNG_IMPL": "rbg"}),
        ({"JAX_CUDA_VISIBLE_DEVICES": "1"}, {"JAX_CUDA_VISIBLE_DEVICES": "1"}),
    ],
)
def test_the_environment_is_the_same_whatever_is_inherited_but_for_what_a_user_may_choose(environ, inherited, owned):
    assert environ(**inherited) == environ() | owned


def test_a_cpu_becomes_a_device_a_core_unless_the_user_said_otherwise(environ):
    assert int(environ()["JAX_NUM_CPU_DEVICES"]) == limits.cores()
    assert "JAX_NUM_CPU_DEVICES" not in environ(XLA_FLAGS="--xla_force_host_platform_device_count=3")


def test_libraries_neither_warn_nor_log(environ, capsys):
    warnings.simplefilter("error")
    environ()
    warnings.warn("of no use to a user", stacklevel=1)
    logging.warning("of a library that sets up a handler")
    logging.getLogger("matplotlib").warning("a temporary cache")
    assert capsys.readouterr() == ("", "")


def test_a_variable_that_jax_cannot_read_is_one_line():
    code = "from resilinet_jax.command.process import import_jax; import_jax()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"JAX_NUM_CPU_DEVICES": "x"}, capture_output=True, text=True,
        cwd=ROOT, check=False,
    )  # fmt: skip
    expected = 'Invalid value "x" for JAX flag jax_num_cpu_devices; change that environment variable, or unset it'
    assert done.stderr.splitlines()[-1].endswith(f"UserError: {expected}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"JAX_DEFAULT_PRNG_IMPL": "x"}, 'Invalid value "x" for JAX flag jax_default_prng_impl'),
        ({"JAX_DISABLE_MOST_OPTIMIZATIONS": "x"}, "invalid truth value 'x' for environment '"),
    ],
)
@pytest.mark.parametrize(("scenario", "place"), [("cifar10", ""), ("mine.py", "mine.py:1: ValueError: ")])
def test_it_is_one_line_also_where_images_or_a_users_file_import_jax(tmp_path, value, said, scenario, place):
    (tmp_path / "mine.py").write_text(FILE)
    done = launch(f"--scenario={scenario}", "--sweep=failure_combinations", "--nohuge_pages", cwd=tmp_path, **value)
    assert done.stderr.startswith(f"error: {place}{said}")
    assert done.stderr.endswith("; change that environment variable, or unset it\n")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda': none.")])
def test_a_device_that_is_not_there_is_one_line(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("jax.devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"JAX finds no device with .*JAX_PLATFORMS=cuda.*; unset what asks for others"):
        process.find_devices()


def shell(line, **environment):
    """A line of bash in which `$LAUNCH` is the command line: its status, standard output and error."""
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False,
        env=os.environ | {"LAUNCH": f"{sys.executable} {ROOT / 'launch.py'}"} | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("$LAUNCH --sweep=list >&-", 0),
        ("$LAUNCH --help >&- <&-", 0),
        ("set -o pipefail; $LAUNCH --help | true", 0),
        ("set -o pipefail; PYTHONUNBUFFERED=1 $LAUNCH --sweep=list | head -1 >/dev/null", 0),
        ("$LAUNCH --sweep=nothing 2>&-", 1),
        ("cd / && PYTHONSAFEPATH=1 $LAUNCH --sweep=list >/dev/null", 0),
    ],
)
def test_an_output_that_nobody_reads_is_no_error(line, status):
    done = shell(line)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_becomes_a_question_mark(monkeypatch, encoding):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    process.own_streams()
    print("97.1 ± 0.2 → n1")
    process.check_output()
    expected = {"ascii": b"97.1 ? 0.2 ? n1\n", "utf-8": "97.1 ± 0.2 → n1\n".encode()}
    assert streams["stdout"].buffer.getvalue() == expected.get(encoding, b"97.1 \xb1 0.2 ? n1\n")


def test_a_precision_that_would_change_nothing_is_refused(monkeypatch):
    process.check_precision(None)
    with pytest.raises(UserError, match=r"--matmul_precision=bfloat16: a CPU multiplies in float32, whatever is asked"):
        process.check_precision("bfloat16")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    process.check_precision("bfloat16")


def test_a_precision_reaches_the_products_of_this_and_other_processes(monkeypatch):
    """What is asked goes to JAX's variable, of which a Python that starts with it makes products of that precision."""
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "float32")
    process.multiply_in(None)
    assert os.environ["JAX_DEFAULT_MATMUL_PRECISION"] == "float32"
    process.multiply_in("tensorfloat32")
    code = (
        "import jax, numpy as np; x = np.ones((2, 2), np.float32); print(jax.jit(lambda x: x @ x).lower(x).as_text())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "precision = [HIGH, HIGH]" in done.stdout
