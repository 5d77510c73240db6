"""A parent that watches one of several processes.

If another process dies, JAX ends this one by an abort and pages of its log; the parent turns that into one line.
Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any, NoReturn

VARIABLE = "RESILINET_JAX_STDERR"  # in a watched process: the descriptor of the user's standard error


def restart_watched() -> None:
    """Starts this command anew as a child, waits for it, and exits with its status; in the child, returns.

    What libraries write to descriptor 2 goes to a file, which an error names; this project's own lines go where the
    parent's do.
    """
    if VARIABLE in os.environ:
        sys.stderr = os.fdopen(int(os.environ.pop(VARIABLE)), "w", buffering=1)
        return
    own = os.dup(2)
    descriptor, name = tempfile.mkstemp(prefix="resilinet_jax.", suffix=".log")
    with subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        stderr=descriptor,
        pass_fds=(own,),
        env=os.environ | {VARIABLE: str(own)},
        preexec_fn=_die_with_parent,
    ) as child:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda got, _: child.send_signal(got))
        status = child.wait()
    _exit(status, pathlib.Path(name))


def _die_with_parent() -> None:
    """Has the system kill this process once its parent has died (Linux); called in the child."""
    if sys.platform == "linux":
        set_parent_death_signal: Any = ctypes.CDLL(None).prctl
        set_parent_death_signal(1, signal.SIGKILL)


def _exit(status: int, log: pathlib.Path) -> NoReturn:
    if status in (0, 1):
        log.unlink()
        sys.exit(status)
    if status == -signal.SIGABRT:
        sys.exit(
            f"error: another process has ended (what JAX says: {log}); start all of them again: they go on where "
            "they stopped"
        )
    what = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
    sys.exit(f"error: the process was {what} (its log: {log}); start all of them again: they go on where they stopped")
