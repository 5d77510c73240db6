"""Memory settings that must be in place before Python starts.

Training convolutions moves tens of megabytes in every operation. By default glibc gives such blocks back to the
system at once, and asks for them again in pages of 4 KiB; to keep them, in huge pages, made a step 1.2 to 1.6 times
as fast on CPU. glibc reads its settings when a process starts, so a running one can only start itself anew.
"""

from __future__ import annotations

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
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
    """Starts this very command anew with huge pages, unless it has them; then it returns.

    Does not return otherwise: the process keeps its number, terminal and arguments.
    """
    missing = huge_pages_environment()
    if missing:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, sys.orig_argv, os.environ | missing)


def physical_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
