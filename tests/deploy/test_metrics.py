"""Nodes in this process, as Prometheus and a collector of logs see them."""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from resilinet_jax.deploy.client import Client
from resilinet_jax.deploy.engines import load_engine
from resilinet_jax.deploy.metrics import Metrics
from resilinet_jax.deploy.node import Node
from resilinet_jax.deploy.processes import loopback
from resilinet_jax.deploy.run_node import JsonLines
from resilinet_jax.errors import UserError
from tests.helpers.deployed import X, running
from tests.helpers.process import ROOT


def samples(metrics):
    """Values by name and labels, as a scrape has them."""
    collected = (sample for family in metrics.registry.collect() for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in collected}


def test_a_scrape_says_what_the_node_does(artefact):
    async def main():
        placement = loopback(artefact, 1)
        async with running(artefact, artefact.graph.order, placement) as (_, nodes):
            metrics = {name: Metrics(node) for name, node in nodes.items()}
            async with Client(artefact, placement) as client:
                await client.ready()
                await asyncio.sleep(3 * placement.heartbeat)
                async for answer in client.stream(X[:1] for _ in range(20)):
                    assert answer.status == "answered"
                await asyncio.sleep(placement.heartbeat)
                before = {name: samples(each) for name, each in metrics.items()}
                sent = dict(nodes["n1"]._outgoing[0].sent)
                # n2 neither computes nor says anything, although its streams stay.
                nodes["n2"]._events.get = asyncio.Event().wait
                nodes["n2"]._beat = lambda now: None
                await asyncio.sleep(placement.suspicion + 3 * placement.heartbeat)
                assert (await client.ask(X[:1])).status == "answered"
                after = samples(metrics["n3"])
            return before, after, placement.suspicion, sent

    before, after, suspicion, sent = asyncio.run(main())
    for name, seen in before.items():
        assert seen["resilinet_decision_seconds_count", "answered"] >= 20, name
        assert seen["resilinet_blind",] == 0
    seen = before["n1"]
    assert seen["resilinet_sent_total", "n1->n2", "messages"] == sent["n1->n2 messages"] >= 20
    assert seen["resilinet_sent_bytes_total", "n1->n2"] == 24 * sent["n1->n2 messages"]  # six numbers each
    assert seen["resilinet_sent_total", "n1->n3", "heartbeats"] > 0
    assert seen["resilinet_queue", "undecided"] == 0
    seen = before["n3"]
    assert (seen["resilinet_up", "n2->n3"], seen["resilinet_gate_open", "n1->n3"]) == (1, 0)
    assert ("resilinet_gate_open", "n2->n3") not in seen  # no skip
    assert seen["resilinet_silence_seconds", "n2->n3"] >= 0
    assert (after["resilinet_up", "n2->n3"], after["resilinet_gate_open", "n1->n3"]) == (0, 1)
    assert after["resilinet_connected", "n2->n3"] == 1  # alive to the network, dead to this node
    assert after["resilinet_silence_seconds", "n2->n3"] > suspicion


def test_a_node_serves_prometheus_and_logs_json(artefact, tmp_path):
    placement = loopback(artefact, 1)
    (tmp_path / "placement.toml").write_text(placement.to_toml())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        metrics = Metrics(Node(artefact, "n2", placement, load_engine(artefact, "n2", "numpy")))
        with pytest.raises(UserError, match=rf"--metrics_port={port} at 127.0.0.1: Address .* in use; choose another"):
            metrics.serve("127.0.0.1", port)
    command = [sys.executable, "-m", "resilinet_jax.deploy.run_node", str(artefact.folder), "--node=n2"]
    command += [f"--placement={tmp_path / 'placement.toml'}", f"--metrics_port={port}", "--log_json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        bound = threading.Timer(60, process.kill)
        bound.start()
        try:
            assert process.stdout.readline() == "n2 is ready\n"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                families = {family.name: family for family in text_string_to_metric_families(page.read().decode())}
        finally:
            process.terminate()
            said = [json.loads(line) for line in process.communicate()[1].splitlines()]
            bound.cancel()
    assert families["resilinet_blind"].samples[0].value == 1
    assert {"resilinet_sent", "resilinet_up", "resilinet_decision_seconds", "resilinet_queue"} <= set(families)
    assert [(each["node"], each["level"], each["message"]) for each in said] == [("n2", "info", "stopped")]


def test_a_record_is_one_line_of_json_that_names_the_hyperconnection(artefact, caplog):
    async def main():
        async with running(artefact, artefact.graph.order) as (placement, _), Client(artefact, placement) as client:
            await client.ready()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logging.exception("odd:\n%s", "two lines")
    lines = [JsonLines("n2").format(record) for record in caplog.records]
    assert all("\n" not in line for line in lines)
    said = [json.loads(line) for line in lines]
    (one,) = [each for each in said if each["message"] == "n2->n3: connected"]
    assert (one["node"], one["level"], one["edge"]) == ("n2", "info", "n2->n3")
    assert one["time"].endswith("+00:00")
    assert not [each for each in said if each["message"] == "hears from somebody" and "edge" in each]
    assert said[-1]["level"] == "error"
    assert said[-1]["error"].endswith("ZeroDivisionError: division by zero")
