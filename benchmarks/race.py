"""Contenders in processes of their own that take turns, so that a machine's moods meet all of them alike.

A contender is `python -m benchmarks.<module> --worker=<JSON>`, or several such processes that work side by side. It
prepares, says so on standard output with what there is to tell, and then does a piece of work (an epoch, a matrix
product) as often as a line of its standard input says. One that ends early or takes too long is left out, with a line
that says so: bfloat16 where the processor has no instructions for it may take hours.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from absl import flags

from resilinet_jax.runtime.memory import huge_pages_environment

_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each contender's turn comes.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "About how long a turn in a process of its own is.", lower_bound=0.1)
_LIMIT = flags.DEFINE_float(
    "limit", 300.0, "Seconds that a process may take until it is ready, and for a turn.", lower_bound=0.1
)
_WORKER = flags.DEFINE_string("worker", None, "Internal: what this process contends with, as JSON.")

Name = TypeVar("Name")
T = TypeVar("T")


def take_turns(contenders: Mapping[Name, Callable[[], T]]) -> dict[Name, list[T]]:
    """What each contender answers, round by round."""
    answers: dict[Name, list[T]] = {name: [] for name in contenders}
    for _ in range(_ROUNDS.value):
        for name, turn in contenders.items():
            answers[name].append(turn())
    return answers


def race(
    contenders: Iterable[tuple[Name, contextlib.AbstractContextManager[Contender]]],
) -> dict[Name, tuple[Contender, list[float]]]:
    """Starts contenders, gives them turns, and ends them.

    Args:
      contenders: with their names; from `contender`.

    Returns:
      Each contender with its rates; those that did not get through are left out, which standard error says.
    """
    with contextlib.ExitStack() as stack:
        racing: dict[Name, tuple[Contender, list[float]]] = {}
        for name, starting in contenders:
            with _unless_left_out(name):
                racing[name] = stack.enter_context(starting), []
        for _ in range(_ROUNDS.value):
            for name, (rival, rates) in list(racing.items()):
                with _unless_left_out(name):
                    rates.append(rival.rate())
                    continue
                del racing[name]
    return racing


class LeftOut(Exception):
    """Says why a contender is left out."""


@contextlib.contextmanager
def _unless_left_out(name: object) -> Iterator[None]:
    try:
        yield
    except LeftOut as reason:
        print(f"left out: {name}, which {reason}", file=sys.stderr)


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """How many seconds `work` takes."""

    def turn() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return turn


def asked() -> Any:
    """What this process contends with; None in the process that gives turns."""
    return None if _WORKER.value is None else json.loads(_WORKER.value)


def serve(piece: Callable[[], object], told: Mapping[str, Any]) -> None:
    """Does a piece of work as often as asked, until standard input ends."""
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            piece()
        print("done", flush=True)


class Contender:
    """Processes that work side by side.

    Attributes:
      told: what each of them had to tell once it was ready.
    """

    def __init__(self, processes: Sequence[subprocess.Popen]):
        """Waits until all are ready."""
        self._processes = processes
        self.told = [json.loads(self._answer(process)) for process in processes]
        self._pieces = 1
        self._pieces = max(1, round(_SECONDS.value * self.rate()))

    def rate(self) -> float:
        """Pieces of work per second of each process, over a turn.

        A piece before it is not timed: while others have their turns, a system may take back memory that nobody
        touches, and whoever keeps the same memory from step to step would pay for that at each turn, as in no training.
        """
        self._work(1)
        start = time.perf_counter()
        self._work(self._pieces)
        return self._pieces / (time.perf_counter() - start)

    def _work(self, pieces: int) -> None:
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError):  # it has ended, which its answer tells
                print(pieces, file=process.stdin, flush=True)
        for process in self._processes:
            self._answer(process)

    def _answer(self, process: subprocess.Popen) -> str:
        assert process.stdout is not None
        watchdog, start = threading.Timer(_LIMIT.value, process.kill), time.monotonic()
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            late = time.monotonic() - start >= _LIMIT.value
            for each in self._processes:  # they may wait for each other
                each.kill()
            raise LeftOut(
                f"took longer than --limit={_LIMIT.value:g} seconds" if late else "ended early; see what it said above"
            )
        return line


@contextlib.contextmanager
def contender(module: str, asked: Sequence[Mapping[str, Any]], more: Sequence[str] = ()) -> Iterator[Contender]:
    """Starts a process for each of `asked`."""
    commands = [["-m", f"benchmarks.{module}", f"--worker={json.dumps(each)}", *more] for each in asked]
    with started(commands) as rival:
        yield rival


@contextlib.contextmanager
def started(commands: Sequence[Sequence[str]]) -> Iterator[Contender]:
    """Starts Python with each of these arguments, all with the same memory settings as the command line's."""
    with contextlib.ExitStack() as stack:
        processes: list[subprocess.Popen] = []
        for arguments in commands:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    # On a GPU they share its memory as well.
                    env=os.environ | huge_pages_environment() | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
                )
            )
            processes.append(process)
        # All are told to end before one is waited for: joined processes end together.
        stack.callback(_end, processes)
        yield Contender(processes)


def _end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
