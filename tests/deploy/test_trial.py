"""Nodes as processes, killed for real: the short form of `--deploy`."""

import asyncio
import dataclasses
import functools
import os
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from resilinet_jax.deploy.client import Client
from resilinet_jax.deploy.measured import BOUND, unjust
from resilinet_jax.deploy.namespaces import Namespaces
from resilinet_jax.deploy.placement import Placement
from resilinet_jax.deploy.processes import Processes, loopback
from resilinet_jax.deploy.report import deployment_files, deployment_notes
from resilinet_jax.deploy.trial import run_trial
from resilinet_jax.errors import UserError
from resilinet_jax.network.graph import build_chain
from tests.helpers.deployed import X
from tests.helpers.process import ROOT


@pytest.fixture(scope="module")
def trials(made, make):
    """Two trials at once, as each waits most of the time: of nodes that select and of nodes that always add."""
    (one, model, y), (add, other, labels) = made, make("dfg")
    few = [each for each in add.manifest.predicted if list(each.failing) in ([], ["n2"])]
    assert len(few) == 2
    add = dataclasses.replace(add, manifest=dataclasses.replace(add.manifest, predicted=few))

    async def both():
        return await asyncio.gather(
            run_trial(one, model, X, y, lambda text: None, requests=20),
            run_trial(add, other, X, labels, lambda text: None, requests=10, chaos_seconds=4, seed=3),
        )

    return list(zip((one, add), asyncio.run(both())))


@pytest.fixture(scope="module")
def tried(trials):
    """Every failure combination of Health, select, brought about by SIGKILL in mid-stream."""
    return trials[0]


def test_everything_is_as_predicted(tried):
    artefact, trial = tried
    assert trial.failed() == []
    assert [each.predicted for each in trial.held] == artefact.manifest.predicted
    for each in trial.held:
        reached = {"n3->n4", "n2->n4"} & set(each.predicted.messages)
        assert np.isnan(each.wire) == (not cuts_here())
        assert not each.wire < each.bytes
        assert each.score == (pytest.approx(each.predicted.score, abs=1e-9) if reached else None)
    ways = ["killed"] * 7 + ["stopped"] * 3 + ["cut off"] * 3 * cuts_here()
    assert [set(each.ways.values()) for each in trial.struck] == [{way} for way in ways]
    for each in trial.struck:
        assert (each.lost, each.wrong) == (0, 0)
        informed = {"n1", "n2"} - set(each.ways) and {"n2", "n3"} - set(each.ways)
        assert (each.uninformed == 0) == bool(informed), each.ways
        assert each.answered + each.uninformed == 40


@functools.cache
def cuts_here():
    """Whether this machine gives network namespaces."""
    try:
        with Namespaces(build_chain(["i", "n1", "e"])):
            return True
    except UserError:
        return False


def test_what_is_not_as_predicted_is_named(tried):
    _, trial = tried
    first, second, *others = trial.held
    wrong = dataclasses.replace(first, score=0.123, messages={"i->n1": 1.5}, bytes=7, furthest=1e-3)
    lost = dataclasses.replace(trial.struck[0], lost=2, wrong=3)
    failed = dataclasses.replace(trial, held=[wrong, second, *others], struck=[lost]).failed()
    expected = [
        "nothing dead: accuracy 12.3",
        "nothing dead: a logit differs by 0.001",
        "nothing dead: messages",
        "nothing dead: 7 bytes an example",
        "n1 killed: 2 requests were lost",
        "n1 killed: 3 answers",
    ]
    assert [line[: len(start)] for line, start in zip(failed, expected)] == expected
    assert len(failed) == len(expected)
    # What is not answered has no accuracy that could differ; what is answered without a path was guessed.
    silent = dataclasses.replace(first, score=None, answered=19, lost=1)
    guessed = dataclasses.replace(others[-1], answered=20)
    assert dataclasses.replace(trial, held=[silent, guessed], struck=[]).failed() == [
        "nothing dead: 1 requests were lost",
        "nothing dead: 19 of 20 requests answered, expected 20",
        "n1+n2+n3 dead: 20 of 20 requests answered, expected 0",
    ]


def test_the_report_says_what_was_measured(tried):
    artefact, trial = tried
    files = deployment_files(artefact, trial)
    assert set(files) == {"deployment.csv", "deployment.md", "deployment.html", "timeline.png"}
    rows = files["deployment.csv"].decode().splitlines()
    assert len(rows) == 1 + 8
    assert rows[2].startswith("n1,")
    for page in (files["deployment.md"].decode(), files["deployment.html"].decode()):
        assert "n1, n3" in page
        assert "no information" in page
        assert "Everything is as predicted" in page
    bad = dataclasses.replace(trial, struck=[dataclasses.replace(trial.struck[0], lost=1)])
    assert deployment_notes(bad)[0] == "NOT as predicted: n1 killed: 1 requests were lost."


def test_nodes_that_always_add_are_as_predicted_and_chaos_loses_nothing(trials):
    artefact, trial = trials[1]
    assert trial.failed() == []
    assert "i->n2" in trial.held[0].messages
    chaos = trial.chaos
    assert (chaos.lost, trial.twice, chaos.wrong, chaos.unjust) == (0, 0, 0, 0)
    assert chaos.kills + chaos.stops + chaos.cuts > 1
    assert chaos.answered > 100
    assert 0 < chaos.late < 4
    assert "longest pause (s)" in deployment_files(artefact, trial)["deployment.md"].decode()
    bad = dataclasses.replace(trial, twice=2, chaos=dataclasses.replace(chaos, wrong=3)).failed()
    assert bad == [
        "2 requests were answered more than once",
        "chaos: 3 requests have answers that are not the simulator's under their witness",
    ]


def test_a_client_that_was_away_asks_once_it_is_heard_again(made, tmp_path):
    artefact, _, _ = made
    # Longer than a busy machine keeps a living node from running.
    placement = dataclasses.replace(loopback(artefact, 1), suspicion=1.5)

    async def main():
        async with Processes(artefact, placement, tmp_path) as processes:
            await asyncio.gather(*(processes.start(name) for name in placement.nodes))
            async with Client(artefact, placement) as client:
                await client.ready()
                statuses = []
                for away in (0, 2, 2):
                    time.sleep(away * placement.suspicion)  # nothing else goes on here, signs of life neither
                    statuses += [answer.status async for answer in client.stream(X[:1] for _ in range(40))]
                return statuses

    assert asyncio.run(main()) == 120 * ["answered"]


def test_no_information_is_unjust_where_a_path_was_whole_all_the_time(tried):
    manifest = tried[0].manifest
    changes = [(0.0, frozenset()), (10.0, frozenset({"n1"})), (20.0, frozenset({"n1", "i->n2"})), (30.0, frozenset())]
    assert unjust(manifest, 5.0, 5.1, changes)
    assert unjust(manifest, 9.9, 10.1, changes)  # a skip goes around n1, whether it lives or not
    assert unjust(manifest, 15.0, 15.1, changes)
    assert not unjust(manifest, 19.0, 20.1, changes)  # the skip was cut meanwhile
    assert not unjust(manifest, 25.0, 25.1, changes)  # no path
    assert not unjust(manifest, 30.0 + BOUND - 0.1, 35.0, changes)  # the path is not old enough
    assert unjust(manifest, 30.0 + BOUND + 0.1, 35.0, changes)
    # One path ends and another begins: neither was whole all the time.
    changes = [(0.0, frozenset({"n1"})), (10.0, frozenset({"n2"}))]
    assert not unjust(manifest, 9.9, 10.1, changes)


def test_links_that_are_cut_are_dropped_both_ways_and_nothing_else(tried):
    graph = tried[0].graph
    if not cuts_here():
        pytest.skip("no network namespaces here")

    def arrives(namespaces, source, target):
        """Whether a packet gets from one node to another."""
        place = "('{}', {})".format(*namespaces.address(target).split(":"))
        listen = (
            f"{DATAGRAM}; s.bind({place}); print('listens', flush=True); input(); s.settimeout(0.3); print(s.recv(9))"
        )
        command = [*namespaces.enter(target), sys.executable, "-c", listen]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipes) as receiver:
            assert receiver.stdout.readline() == "listens\n"
            send = f"{DATAGRAM}; s.sendto(b'packet', {place})"
            subprocess.run([*namespaces.enter(source), sys.executable, "-c", send], check=True)
            return "packet" in receiver.communicate("sent\n", timeout=20)[0]

    def reached(namespaces, *pairs):
        return [arrives(namespaces, *pair) for pair in pairs]

    with Namespaces(graph) as namespaces:
        asyncio.run(namespaces.cut("n1->n3"))
        assert reached(namespaces, ("n1", "n3"), ("n3", "n1"), ("n1", "n2")) == [False, False, True]
        asyncio.run(namespaces.mend("n1->n3"))
        asyncio.run(namespaces.cut("n3"))
        assert reached(namespaces, ("n1", "n3"), ("n3", "n4"), ("n2", "n4")) == [False, False, True]
        asyncio.run(namespaces.mend("n3"))
        assert reached(namespaces, ("n1", "n3"), ("n3", "n4")) == [True, True]


def test_memory_is_counted_in_the_pages_of_this_machine(artefact, tmp_path, monkeypatch):
    processes = Processes(artefact, loopback(artefact, 1), tmp_path)
    processes._running = {"n1": types.SimpleNamespace(pid=os.getpid())}
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 10**12}.get)
    pages, rest = divmod(processes.memory()["n1"], 10**12)
    assert pages > 0
    assert rest == 0


DATAGRAM = "import socket; s = socket.socket(type=socket.SOCK_DGRAM)"
BLOCKED = """
import sys
for name in ("jax", "jaxlib", "flax", "orbax", "tensorflow_datasets", "pandas", "filelock", "matplotlib",
             "cryptography"):
    sys.modules[name] = None
from resilinet_jax.deploy.run_node import main
main(sys.argv[1:])
"""


def test_a_node_runs_without_jax(tried, tmp_path):
    artefact, _ = tried
    (tmp_path / "placement.toml").write_text(loopback(artefact, 1, tmp_path / "certs").to_toml())
    flags = [str(artefact.folder), "--node=n2", f"--placement={tmp_path / 'placement.toml'}"]
    command = [sys.executable, "-c", BLOCKED, *flags, "--ends_with_stdin"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as node:
        assert node.stdout.readline() == "n2 is ready\n"
        _, log = node.communicate(timeout=20)
        assert node.returncode == 0
        assert log.endswith("n2: stopped\n")
    text = loopback(artefact, 1).to_toml().replace('"numpy"', '"jax"')
    (tmp_path / "placement.toml").write_text(text)
    done = subprocess.run([sys.executable, "-c", BLOCKED, *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: node 'n2' is placed on engine \"jax\", which is not installed; pip install jax\n"


def test_a_placement_comes_back(tried, tmp_path):
    artefact, _ = tried
    placement = dataclasses.replace(loopback(artefact, 3), patience=0.25)
    (tmp_path / "p.toml").write_text(placement.to_toml())
    assert Placement.read(tmp_path / "p.toml", artefact.graph.order) == placement
