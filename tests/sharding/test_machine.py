from pathlib import Path

import pytest

from raysparse.sharding.machine import available_bytes

MIB = 2**20
FREE = {"proc/meminfo": "MemTotal: 2048 kB\nMemAvailable: 1024 kB\n"}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "5000\n"}, 5000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, MIB),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "6000\n"}, 6000),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "7000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            7000,
        ),
        # A container of version 1 sees the host's path, and its own group where the root would be.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/0a\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "8000\n",
            },
            8000,
        ),
    ],
)
def test_memory_is_capped_by_the_control_groups(tmp_path: Path, files: dict[str, str], expected: int):
    write(tmp_path, FREE | files)
    assert available_bytes(tmp_path) == expected


def test_a_machine_that_does_not_say_has_none(tmp_path: Path):
    assert available_bytes(tmp_path) is None


def test_this_machine_has_some():
    assert (available_bytes() or 0) > MIB
