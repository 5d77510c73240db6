"""Memory settings that must be in place before Python starts.

Training convolutions moves tens of megabytes in every operation. By default glibc gives such blocks back to the
system at once, and asks for them again in pages of 4 KiB; to keep them, in huge pages, made a step 1.2 to 1.6 times
as fast on CPU. glibc reads its settings when a process starts, so a running one can only start itself anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys

from resilinet_jax.runtime import interruption

VARIABLE = "GLIBC_TUNABLES"
RESTARTED = "RESILINET_JAX_RESTARTED"
TUNABLES = {
    "glibc.malloc.hugetlb": "1",  # ask for transparent huge pages
    "glibc.malloc.mmap_max": "0",  # no block of its own mapping, which would be given back when it is freed
    "glibc.malloc.trim_threshold": "1000000000000",  # keep what is free
}


def huge_pages_environment() -> dict[str, str]:
    """The environment variable to start Python with; empty where it would change nothing.

    That is on systems without glibc, and where the variable has these settings already, whatever their values.
    """
    if platform.libc_ver()[0] != "glibc":
        return {}
    given = os.environ.get(VARIABLE, "")
    named = {setting.split("=")[0] for setting in given.split(":")}
    missing = [f"{name}={value}" for name, value in TUNABLES.items() if name not in named]
    return {VARIABLE: ":".join(filter(None, [given, *missing]))} if missing else {}


def restart_with_huge_pages() -> None:
    """Starts this very command anew with huge pages, unless it has them or was started anew already; then it returns.

    Does not return otherwise: the process keeps its number, terminal and arguments.
    """
    missing, restarted = huge_pages_environment(), os.environ.pop(RESTARTED, None)
    if missing and not restarted:  # some systems take the variable away
        sys.stdout.flush()
        sys.stderr.flush()
        interruption.check()  # the new program would know nothing of it
        os.execve(sys.executable, sys.orig_argv, os.environ | missing | {RESTARTED: "1"})


def give_back() -> None:
    """Gives the system what is free (glibc): in small pieces between others it piles up from pass to pass."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
