"""The contract of floors, which import-linter checks, sees what it has to see."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.helpers.process import ROOT

LINT = pathlib.Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floors")
    for name in ("resilinet_jax", "sweeps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", folder)
    return folder


def lint(folder):
    return subprocess.run([LINT, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_contract_holds(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert ", 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("network/graph.py", "from resilinet_jax.engine import training"),
        ("command/notes.py", "from resilinet_jax.sweeps import failout_rate"),
        ("command/notes.py", "from resilinet_jax import sweeps"),
        ("command/notes.py", "import sweeps"),
        ("report/tables.py", "from resilinet_jax.scenarios import health"),
        ("deploy/node.py", "from resilinet_jax.network import forward"),
    ],
)
def test_an_import_from_beside_or_above_breaks_it(copy, file, planted):
    path = copy / "resilinet_jax" / file
    text = path.read_text()
    path.write_text(f"{text}\n{planted}\n")
    try:
        done = lint(copy)
    finally:
        path.write_text(text)
    assert done.returncode == 1, done.stdout
    assert f"resilinet_jax.{file.removesuffix('.py').replace('/', '.')} -> " in done.stdout
