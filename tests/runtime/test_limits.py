import pytest

from resilinet_jax.runtime import limits


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Makes the files of control groups."""
    monkeypatch.setattr(limits, "ROOT", tmp_path)

    def write(told, files):
        made = {"proc/self/cgroup": told} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in made.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "max\n"}, []),
        ("0::/\n", {"memory.max": "2147483648\n"}, [2**31]),
        # What holds for a group holds for those in it.
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, [4096]),
        ("4:memory:/a\n1:cpu:/\n0::/\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, [4096]),
        # In a container the path is often that of the host.
        ("4:cpu,memory:/docker/0123\n", {"memory/memory.limit_in_bytes": "8192\n"}, [8192]),
        ("", {}, []),
    ],
)
def test_limits_of_control_groups_are_read(groups, told, files, expected):
    groups(told, files)
    assert limits._memory_limits() == expected


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/a\n", {"a/cpu.max": "max 100000\n", "cpu.max": "50000 100000\n"}, 1),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "900000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_cores_are_those_that_a_container_may_use(groups, monkeypatch, told, files, expected):
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: range(4), raising=False)
    groups(told, files)
    assert limits.cores() == expected


def test_memory_left_is_what_the_narrowest_limit_leaves(monkeypatch):
    monkeypatch.setattr(limits, "_memory_limits", lambda: [2**31, 2**32])
    monkeypatch.setattr(limits, "_resident", lambda: 2**30)
    assert limits.memory_left() == 2**30
