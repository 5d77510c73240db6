import contextlib
import importlib.metadata
import json
import platform
import shutil

import jax
import pytest

from resilinet_jax.errors import UserError
from resilinet_jax.runtime import identity
from resilinet_jax.runtime.identity import (
    check_identity,
    code_version,
    environment,
    machine,
    numbers_rest_on,
    stamp,
    write_identity,
)
from tests.helpers.process import ROOT

IDENTITY = {"--epochs": 5, "data set": "synthetic 12", "code": "abc", "--alpha": None}


def test_the_same_identity_is_welcome_and_so_is_a_part_of_it(tmp_path):
    check_identity(tmp_path / "runs", IDENTITY)
    write_identity(tmp_path / "runs", IDENTITY)
    check_identity(tmp_path / "runs", IDENTITY)
    check_identity(tmp_path / "runs", {"--epochs": 5})


@pytest.mark.parametrize("change", [{"--epochs": 6}, {"data set": "mine 34"}, {"code": "abd"}, {"--alpha": 0.5}])
def test_another_identity_is_refused_naming_difference_and_remedies(tmp_path, change):
    write_identity(tmp_path / "runs", IDENTITY)
    ((name, value),) = change.items()
    with pytest.raises(UserError) as error:
        check_identity(tmp_path / "runs", IDENTITY | change)
    assert f"holds runs made with {name} {IDENTITY[name]}, not {value}; go back" in str(error.value)
    assert "another --results_dir, or add --overwrite" in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", json.dumps(IDENTITY)])  # the last as before there were checksums
def test_a_damaged_or_older_identity_is_refused(tmp_path, content):
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(UserError, match="is damaged, or of another version of the code; choose another --results_dir"):
        check_identity(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_default_prng_impl", "rbg"), ("jax_default_matmul_precision", "highest")],
)
def test_a_setting_of_jax_that_changes_numbers_is_another_identity(tmp_path, setting, value):
    before = jax.config.values[setting]
    write_identity(tmp_path, IDENTITY | numbers_rest_on())
    jax.config.update(setting, value)
    try:
        changed = IDENTITY | numbers_rest_on()
    finally:
        jax.config.update(setting, before)
    with pytest.raises(UserError, match=f"holds runs made with {setting} {before}, not {value}"):
        check_identity(tmp_path, changed)
    assert stamp(changed) != stamp(IDENTITY | numbers_rest_on())


def test_of_xla_s_flags_those_count_that_change_numbers(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=true")
    assert numbers_rest_on()["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"


@pytest.mark.parametrize(
    ("flags", "told"), [("fpu avx avx2 avx512f", "avx512f"), ("avx2 avx", "avx2"), ("fpu", platform.machine())]
)
def test_cpus_are_told_apart_by_vectors_and_threads(tmp_path, monkeypatch, flags, told):
    monkeypatch.setenv("NPROC", "3")
    monkeypatch.setattr(identity, "_CPUS", tmp_path / "cpuinfo")
    assert machine() == f"cpu ({platform.machine()}) with 3 threads"  # a system without such a file
    (tmp_path / "cpuinfo").write_text(f"model name\t: avx512f\nflags\t\t: {flags}\nbugs\t\t:\n")
    assert machine() == f"cpu ({told}) with 3 threads"
    monkeypatch.setenv("NPROC", "1")
    assert machine() == f"cpu ({told}) with 2 threads"  # of two devices


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_of_an_identity_is_missed(tmp_path, bit):
    write_identity(tmp_path, IDENTITY)
    path = tmp_path / "identity.json"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with contextlib.suppress(UserError):
            check_identity(tmp_path, IDENTITY)
            check_identity(tmp_path, IDENTITY | {"--epochs": 5})
            with pytest.raises(UserError):
                check_identity(tmp_path, IDENTITY | {"--epochs": 7})


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The version of a copy of the package after a change of the text of one of its files."""
    copy = tmp_path_factory.mktemp("copy") / "package"
    shutil.copytree(ROOT / "resilinet_jax", copy, ignore=shutil.ignore_patterns("__pycache__"))

    def version_after(name, old, new):
        text = (copy / name).read_text()
        assert text.count(old) == 1, name
        (copy / name).write_text(text.replace(old, new))
        try:
            return code_version(copy)
        finally:
            (copy / name).write_text(text)

    assert code_version(copy) == code_version()
    return version_after


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("engine/run_cells.py", "functools.partial(run_keys, seed)", "functools.partial(run_keys, seed + 1)"),
        ("engine/training.py", "eps=1e-7", "eps=1e-8"),
        ("network/stages.py", "MOMENTUM = 0.99", "MOMENTUM = 0.9"),
        ("failures/model.py", "draws >= failout_rate", "draws > failout_rate"),
        ("cells.py", '"resilinet": {"training_activity": 0.5', '"resilinet": {"training_activity": 0.8'),
        ("datasets/synthetic.py", "SEED = 319", "SEED = 320"),
        ("scenarios/health.py", '"n3": 3', '"n3": 4'),
        ("results/metrics.py", "errors[..., 2] != 0", "errors[..., 2] > 1"),
        ("runtime/store.py", "DIVERGED_LOSS = 1e6", "DIVERGED_LOSS = 1e3"),
        ("failures/averages.py", "any(probability.values())", "all(probability.values())"),
    ],
)
def test_what_can_change_a_number_changes_the_code_version(package, name, old, new):
    assert package(name, old, new)["code"] != code_version()["code"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("results/csv_files.py", '"failure_setting": setting', '"setting": setting'),
        ("report/report.py", "Diverged, so failed", "Failed"),
        ("command/notes.py", "Data set: ", "Data: "),
        ("runtime/progress.py", "LOG_EVERY = 10.0", "LOG_EVERY = 20.0"),
        ("engine/training.py", "  # parameters of an array that Adam works on alone", "  # of one array"),
        ("engine/training.py", '"""Trains on a chunk of examples', '"""Goes over a chunk of examples'),
        ("errors.py", "LONGEST = 300", "LONGEST = 200"),
    ],
)
def test_what_surrounds_training_and_comments_leave_it_as_it_is(package, name, old, new):
    assert package(name, old, new) == code_version()


def test_versions_are_told_where_a_package_was_never_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert environment()["versions"]["resilinet_jax"] == "unknown"
    assert code_version()["jax"] == "unknown"
