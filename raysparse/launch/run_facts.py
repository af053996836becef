"""What every summary says of its run, whatever ran."""

import contextlib
import datetime
import subprocess
import time
from pathlib import Path
from typing import Any

from raysparse.train.summary import versions


def run_facts(name: str, started: float) -> dict[str, Any]:
    """Return the first keys of the summary of a run that has just ended; driver. `started` is in seconds."""
    return {
        "name": name,
        "status": "finished",
        "started": _timestamp(started),
        "finished": _timestamp(time.time()),
        "seconds": time.time() - started,
        "commit": _commit(),
        "versions": versions(),
    }


def _timestamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    """The commit of the checkout that runs, where it is one."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return None
