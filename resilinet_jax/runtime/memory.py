"""Memory settings that must be in place before Python starts.

Training convolutions moves tens of megabytes in every operation. By default glibc gives such blocks back to the
system at once, and asks for them again in pages of 4 KiB; to keep them, in huge pages, made a step 1.2 to 1.6 times
as fast on CPU. glibc reads its settings when a process starts, so a running one can only start itself anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
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


def memory_left() -> int | None:
    """Bytes of memory that this process may take beside what it has; None where the system does not tell.

    A container's limit counts as well as the machine's own memory.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return max(0, min([machine, *_group_limits()]) - _resident())


def _resident() -> int:
    """Bytes of memory that this process has."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _group_limits(root: pathlib.Path = pathlib.Path("/")) -> list[int]:
    """Bytes that each of this process' control groups may have, of both versions (Linux)."""
    limits = []
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / path.lstrip("/")
        # In a container the path is often the host's, and the group's own folder is the top.
        for folder in dict.fromkeys([*(each for each in (group, *group.parents) if each.is_relative_to(top)), top]):
            with contextlib.suppress(OSError, ValueError):  # no such group here, or no limit ("max")
                limits.append(int((folder / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text()))
    return limits
