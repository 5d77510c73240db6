"""The example that runs Health's nodes in containers names what there is."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from resilinet_jax.deploy import run_node
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.scenarios import load_scenario
from tests.helpers.process import ROOT

FILE = ROOT / "examples" / "compose.yaml"
ORDER = load_scenario("health").build_network(2, hidden_units=6).graph.order


def test_each_node_is_a_service_that_others_find_by_its_name(monkeypatch):
    services = yaml.safe_load(FILE.read_text())["services"]
    assert tuple(services) == ORDER
    placement = Placement.read(FILE.with_name("placement.toml"), ORDER)
    started = []

    async def run(given):
        started.append(given)

    monkeypatch.setattr(run_node, "_run", run)
    for name, service in services.items():
        assert placement.nodes[name].address.split(":")[0] == name
        program, *flags = service["entrypoint"]
        assert program == "resilinet-jax-node"
        run_node.main([*flags, *service["command"]])
        mounted = {mount["target"] for mount in service["volumes"]}
        assert {str(started[-1].artefact), str(started[-1].placement)} == mounted
    assert tuple(given.node for given in started) == ORDER


def test_the_image_is_made_of_files_that_there_are():
    build = yaml.safe_load(FILE.read_text())["x-node"]["build"]
    copied = [
        name for line in re.findall(r"^COPY (.+) \S+$", build["dockerfile_inline"], re.M) for name in line.split()
    ]
    assert {"setup.cfg", "resilinet_jax"} <= set(copied)
    assert all((FILE.parent / build["context"] / name).exists() for name in copied)


def test_docker_takes_it():
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("there is no docker compose")
    command = ["docker", "compose", "--file", FILE, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"ARTEFACT": str(ROOT)})
    assert done.returncode == 0, done.stderr
