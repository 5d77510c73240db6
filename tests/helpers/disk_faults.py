"""Lets one operation on files fail, or the process die there, in a fork."""

from __future__ import annotations

import collections
import errno
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import NamedTuple

SECONDS = 900  # that a fork may take: longer means that it hangs


class Ended(NamedTuple):
    """How a command ended: its status, negative after a signal, and what it wrote to standard error."""

    status: int
    errors: str

    @property
    def how(self) -> str:
        """One of: finished, refused, interrupted, killed; or what is wrong with it."""
        told = [line for line in self.errors.splitlines() if line.startswith(("error: ", "interrupted; "))]
        if "Traceback" not in self.errors and self.status in (0, 1) and len(told) == self.status:
            return "finished" if not told else "refused" if told[0].startswith("error") else "interrupted"
        return "killed" if self.status == -signal.SIGKILL else f"ended with {self.status}: {self.errors[-2000:]}"


class Hook:
    """Watches what Python code does with files below a folder, and does something else from a place on."""

    def __init__(self, root: pathlib.Path, place: str | None, act: Callable[[str], None]):
        """Hooks in, for good: for forks alone.

        Args:
          root: the folder.
          place: from which on `act` is called; None for never.
          act: given the operation that is about to happen; what it raises, the operation raises.
        """
        self.places: list[str] = []  # all so far, told in a way that is the same each time
        self._root, self._place, self._act, self._reached = f"{root}{os.sep}", place, act, False
        self._times: collections.Counter[str] = collections.Counter()
        self._lock, fsync = threading.RLock(), os.fsync
        os.fsync = lambda file: (sys.audit("os.fsync", f"/proc/self/fd/{file}"), fsync(file))[1]
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        """Called by Python before each operation that it audits."""
        if event == "open":
            if not isinstance(args[0], str | bytes) or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in ("os.fsync", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"):
            return
        path = os.fsdecode(args[0])
        if event in ("os.remove", "os.rmdir", "os.mkdir") and args[-1] != -1:  # within an open folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{args[-1]}"), path)
        path = os.path.realpath(path) if event == "os.fsync" else os.path.abspath(path)
        if not path.startswith(self._root):
            return
        told = re.sub(r"\.[0-9a-f]{8}\.part|tmp[a-z0-9_]{8}", ".part", path.removeprefix(self._root))
        told = re.sub(r"\b[0-9a-f]{32}\b", "*", told)
        with self._lock:
            self._meet(f"{event.removeprefix('os.')} {told}")
            if event == "open":
                self._meet(f"write {told}", path if args[2] & os.O_TRUNC else None)

    def _meet(self, told: str, emptied: str | None = None) -> None:
        self._times[told] += 1
        self.places.append(f"{told} #{self._times[told]}")
        self._reached = self._reached or self.places[-1] == self._place
        if self._reached:
            if emptied:  # as it is found when its writing stops
                self._root, root = "nothing", self._root
                os.close(os.open(emptied, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
                self._root = root
            self._act(self.places[-1])


def action(kind: str) -> Callable[[str], None]:
    """What a fault does: a full disk stays full, but lets things be removed; any other happens once."""
    done = []

    def act(place: str) -> None:
        if (kind == "enospc" and place.startswith(("rename", "remove", "rmdir"))) or (kind != "enospc" and done):
            return
        done.append(place)
        if kind in ("kill", "term"):
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        else:
            code = getattr(errno, kind.upper())
            raise OSError(code, os.strerror(code), place)

    return act


def forked(command: Callable[[], None], during: Callable[[int], None] = lambda process: None) -> Ended:
    """Runs a function in a fork; one that raises `SystemExit` tells why, as Python does.

    Args:
      command: the function.
      during: called with the number of the process, while it runs.
    """
    told, tells = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            signal.alarm(SECONDS)
            for number, file in enumerate((os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR), tells)):
                os.dup2(file, number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
            command()
            status = 0
        except SystemExit as error:
            print(error, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(tells)
    during(process)
    with os.fdopen(told, errors="replace") as errors:
        text = errors.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text)


def places_of(command: Callable[[], None], root: pathlib.Path) -> tuple[Ended, list[str]]:
    """Runs a function in a fork; returns how it ended, and what it did with files below a folder, in order."""
    with tempfile.TemporaryFile("w+") as told:

        def watched() -> None:
            hook = Hook(root, None, print)
            command()
            told.write("\n".join(hook.places))
            told.flush()

        ended = forked(watched)
        told.seek(0)
        return ended, told.read().splitlines()


def with_fault(command: Callable[[], None], root: pathlib.Path, kind: str, place: str) -> Ended:
    """Runs a function in a fork, with a fault at a place that `places_of` told."""

    def disturbed() -> None:
        Hook(root, place, action(kind))
        command()

    return forked(disturbed)
