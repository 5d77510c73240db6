"""Signals that ask this process to end: noted at once, heeded where nothing is half done.

An exception out of a signal handler can appear anywhere, in the middle of an import or of a library's callback, which
swallows it. So the handler only sets a flag, and whoever has just finished something looks at it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

# What a person types, what clusters and closed terminals send before they kill; some systems lack some.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_TOLD = b"\nStopping at the next safe point; the same command will go on from there. A second signal ends it at once.\n"
_asked: list[int] = []


@contextlib.contextmanager
def signals_heeded() -> Iterator[None]:
    """Meanwhile a first signal is noted, for `check`, and a second one ends the process at once.

    Signals that the process was started to ignore, as by nohup, stay ignored.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _note)
    try:
        yield
    finally:
        _asked.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(number: int, _: Any) -> None:
    if _asked:
        os._exit(128 + number)  # all that is on disk is whole at any time
    _asked.append(number)
    with contextlib.suppress(OSError):
        os.write(2, _TOLD)  # printing could meet the middle of another print


def asked() -> bool:
    """Whether a signal has asked this process to end."""
    return bool(_asked)


def check() -> None:
    """Called where a step has ended and the next has not begun.

    Raises:
      KeyboardInterrupt: if a signal has asked this process to end.
    """
    if asked():
        raise KeyboardInterrupt
