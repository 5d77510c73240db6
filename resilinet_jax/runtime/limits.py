"""What this process may take of its machine: a container's limits count as well as what there is.

Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path("/")


def cores() -> int:
    """How many cores this process may keep busy, at least one."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([own, *(math.ceil(share) for share in _core_shares())])


def memory_left() -> int | None:
    """Bytes of memory that this process may take beside what it has; None where the system does not tell.

    A container's limit counts as well as the machine's own memory.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return max(0, min([machine, *_memory_limits()]) - _resident())


def _resident() -> int:
    """Bytes of memory that this process has."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _memory_limits() -> list[int]:
    """Bytes that each of this process' control groups may have."""
    read = [folder / ("memory.limit_in_bytes" if old else "memory.max") for folder, old in _groups("memory")]
    limits = []
    for path in read:
        with contextlib.suppress(OSError, ValueError):  # no such group here, or no limit ("max")
            limits.append(int(path.read_text()))
    return limits


def _core_shares() -> list[float]:
    """Cores, or parts of one, that each of this process' control groups may keep busy."""
    shares = []
    for folder, old in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if old else ("cpu.max",)
            quota, period = map(int, " ".join((folder / name).read_text() for name in files).split())
            if quota > 0:  # -1: no limit
                shares.append(quota / period)
    return shares


def _groups(controller: str) -> Iterator[tuple[pathlib.Path, bool]]:
    """Folders of this process' control groups (Linux), from its own to the top, and whether of the old version."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
        group = top / path.lstrip("/")
        # In a container the path is often the host's, and the group's own folder is the top.
        inside = (each for each in (group, *group.parents) if each.is_relative_to(top))
        yield from ((folder, bool(controllers)) for folder in dict.fromkeys([*inside, top]))
