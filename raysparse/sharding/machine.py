"""The memory of the machine that a process runs on, as far as the process may take it."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that is free on this machine, capped by the limits of the process's control groups.

    None where it cannot be read. `root` is where /proc and /sys lie.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    # In a container /proc/meminfo is the host's.
    return min([1024 * kib, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """The limits of the process's groups and of those around them, version 1 and 2."""
    for file in _limit_files(root):
        try:
            text = file.read_text().strip()
        except OSError:
            continue  # a container sees its own group as the root: the path to it is not there
        if text != "max":
            yield int(text)


def _limit_files(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for one in (group, *group.parents):
            yield top / one / name
