import os
import subprocess
import sys

import pytest

from resilinet_jax.runtime import memory

needs_glibc = pytest.mark.skipif(
    not memory.huge_pages_environment() and memory.VARIABLE not in os.environ, reason="no glibc"
)
SCRIPT = """
import os, sys
from resilinet_jax.runtime.memory import VARIABLE, restart_with_huge_pages
print("started", os.getpid())
restart_with_huge_pages()
print("runs", os.environ[VARIABLE], sys.argv[1:])
"""


@needs_glibc
def test_restarts_once_as_the_same_process_with_the_same_arguments():
    environment = {name: value for name, value in os.environ.items() if name != memory.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--a b", "ü"], capture_output=True, text=True, env=environment, check=True
    )
    first, second, last = done.stdout.splitlines()
    assert first == second
    expected = memory.huge_pages_environment().get(memory.VARIABLE, os.environ.get(memory.VARIABLE))
    assert last == f"runs {expected} ['--a b', 'ü']"
    assert done.stderr == ""


@needs_glibc
def test_what_the_user_has_set_is_kept(monkeypatch):
    monkeypatch.setenv(memory.VARIABLE, "glibc.malloc.hugetlb=0:glibc.malloc.tcache_count=1")
    added = memory.huge_pages_environment()[memory.VARIABLE]
    assert added.startswith("glibc.malloc.hugetlb=0:glibc.malloc.tcache_count=1:glibc.malloc.mmap_max=0:")
    assert added.count("hugetlb") == 1
    monkeypatch.setenv(memory.VARIABLE, added)
    assert memory.huge_pages_environment() == {}


@needs_glibc
def test_starts_anew_once_where_the_system_takes_the_variable_away():
    script = f"import os\nos.environ.pop({memory.VARIABLE!r}, None)\n" + SCRIPT.replace("[VARIABLE]", ".get(VARIABLE)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[2] == "runs None []"
