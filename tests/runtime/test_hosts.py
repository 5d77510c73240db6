"""Real processes on loopback: they measure what one alone measures."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from resilinet_jax.command import main as command_line
from resilinet_jax.command.settings import Mode
from resilinet_jax.errors import UserError
from resilinet_jax.runtime import hosts, identity
from tests.helpers.hostile import command
from tests.helpers.own_scenario import FILE
from tests.helpers.process import ROOT

STARTED = []


def mode(address, total, number):
    return Mode(coordinator_address=address, num_processes=total, process_id=number)


@pytest.fixture(autouse=True)
def _ended():
    """Nothing that a failed test has started outlives it."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def start(*flags, **environment):
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, flags)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    STARTED.append(process)
    return process


def start_two(*flags):
    """Two processes of four devices each, with as many threads as this one has, by which XLA sums some products."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--coordinator_address=127.0.0.1:{free.getsockname()[1]}"
    devices = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"}
    threads = {"NPROC": str(max(int(identity.threads()), 2))}  # two, since this process has two devices
    return [
        start(*flags, address, "--num_processes=2", f"--process_id={number}", **devices, **threads)
        for number in range(2)
    ]


def test_eight_devices_of_two_processes_measure_what_one_process_does_though_one_dies(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(FILE)
    # 3 cells x 3 runs: neither two processes nor four devices can share them evenly.
    flags = [f"--scenario={tmp_path / 'own.py'}", "--sweep=average_accuracy", "--runs=3", "--epochs=60"]
    processes = start_two(*flags, f"--results_dir={tmp_path / 'two'}")
    while not list((tmp_path / "two").glob("mine/checkpoints/process_0/epochs/[1-9]")):
        assert [process.poll() for process in processes] == [None, None], [p.communicate() for p in processes]
        time.sleep(0.01)
    processes[0].kill()
    said = [process.communicate(timeout=120) for process in processes]
    assert processes[1].returncode == 1
    assert said[1][1].startswith("error: another process has ended")
    assert said[1][1].count("\n") == 1
    # The same commands go on; the first process alone tells and writes.
    processes = start_two(*flags, f"--results_dir={tmp_path / 'two'}")
    monkeypatch.setattr(command_line, "_set_up_jax", lambda mode: None)
    command(*flags, f"--results_dir={tmp_path / 'one'}")  # meanwhile, in this process
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "Going on with 5 runs after epoch" in said[0][1]  # of its own share
    assert "Written to" in said[0][0]
    assert "Written to" not in said[1][0]
    assert "epoch" not in said[1][1]
    one, two = ((tmp_path / name / "mine/average_accuracy/accuracies.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 1 + 9 * 2


def test_alone_this_process_trains_everything_and_writes():
    assert hosts.is_first()
    assert hosts.own_share(7) == range(7)
    here = np.array([True, False])
    np.testing.assert_array_equal(hosts.on_any_process(here), here)


@pytest.mark.parametrize(("processes", "total"), [(2, 9), (3, 9), (8, 21), (4, 3)])
def test_shares_cover_every_model_once(monkeypatch, processes, total):
    monkeypatch.setattr(hosts.jax, "process_count", lambda: processes)
    shares = []
    for number in range(processes):
        monkeypatch.setattr(hosts.jax, "process_index", lambda number=number: number)
        shares += hosts.own_share(total)
    assert shares == list(range(total))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((None, 2, None), "need --coordinator_address"),
        (("here", 2, 0), "must be host:port, got 'here'"),
        (("here:1", None, 0), "needs --num_processes and --process_id"),
        (("here:1", 0, 0), r"--num_processes must be an integer in \[1, 65536\], got 0"),
        (("here:1", 2, 2), r"--process_id must be in \[0, 1\], got 2"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        mode(*flags).check()
    mode(None, None, None).check()
    mode("here:1", 2, 1).check()
