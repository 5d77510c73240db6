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


# Modules, a line to plant in each, and what it imports, as the linter calls it.
PLANTED = (
    ("network.graph", "from resilinet_jax.engine import training", "resilinet_jax.engine.training"),
    ("command.notes", "from resilinet_jax.sweeps import failout_rate", "resilinet_jax"),
    ("command.forecasting", "from resilinet_jax import sweeps", "resilinet_jax"),
    ("command.describing", "import sweeps", "sweeps"),
    ("report.tables", "from resilinet_jax.scenarios import health", "resilinet_jax.scenarios.health"),
    ("deploy.node", "from resilinet_jax.network import forward", "resilinet_jax.network.forward"),
)


@pytest.fixture(scope="module")
def planted(copy, tmp_path_factory):
    """What is said of all of them at once; each makes an edge of its own."""
    folder = shutil.copytree(copy, tmp_path_factory.mktemp("planted"), dirs_exist_ok=True)
    for module, line, _ in PLANTED:
        with (folder / "resilinet_jax" / f"{module.replace('.', '/')}.py").open("a") as file:
            file.write(f"\n{line}\n")
    return lint(folder)


@pytest.mark.parametrize(("module", "imported"), [pytest.param(*case[::2], id=case[1]) for case in PLANTED])
def test_an_import_from_beside_or_above_breaks_it(planted, module, imported):
    assert planted.returncode == 1, planted.stdout
    assert f"resilinet_jax.{module} -> {imported} (" in planted.stdout
