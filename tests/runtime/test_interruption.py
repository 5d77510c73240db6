"""Signals that ask a process to end: noted wherever they arrive, heeded at the next safe point."""

import os
import signal
import subprocess
import sys

import pytest

from resilinet_jax.runtime import interruption

SCRIPT = """
import signal, sys, time
from resilinet_jax.runtime import interruption

for name in sys.argv[3:]:  # which the tests may have been started to ignore, as by nohup
    signal.signal(getattr(signal, name), signal.SIG_DFL)

class Swallows:
    def __del__(self):  # as a library's callback: what is raised here is lost
        print("in", flush=True)
        end = time.monotonic() + float(sys.argv[2])
        while not interruption._asked and time.monotonic() < end:
            time.sleep(0.01)

with interruption.signals_heeded():
    Swallows()
    try:
        interruption.check()
    except KeyboardInterrupt:
        print("heeded", flush=True)
        time.sleep(10 * int(sys.argv[1]))
"""
EVERY = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"]


def start(waits, patience=20.0, heeds=EVERY):
    """Waits for a signal as long as `patience` seconds: where much runs beside it, one may come late."""
    command = [sys.executable, "-c", SCRIPT, str(waits), str(patience), *heeds]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", EVERY)
def test_a_signal_is_not_lost_where_an_exception_would_be(name):
    with start(0) as process:
        assert process.stdout.readline() == "in\n"
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "heeded\n"
    assert err.strip() == interruption._TOLD.decode().strip()


def test_a_second_one_ends_at_once():
    with start(1) as process:
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "heeded\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 128 + signal.SIGTERM


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a child inherits
    try:
        process = start(0, patience=0.5, heeds=())
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate(timeout=20) == ("", "")


def test_handlers_are_the_caller_s_again_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.signals_heeded():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    assert signal.getsignal(signal.SIGTERM) is before
