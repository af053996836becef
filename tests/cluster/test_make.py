"""What a fresh checkout is set up, shown and tested by."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def dry_run(target: str) -> list[str]:
    """The commands that `make TARGET` would run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "--dry-run", target]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_test_checks_everything_in_order():
    commands = dry_run("test")
    assert commands[0] == "cluster/install.sh --extras test .venv"
    assert [command.removeprefix(".venv/bin/") for command in commands[1:]] == [
        "ruff check .",
        "ruff format --check .",
        "basedpyright",
        "OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist loadgroup --durations 15",
    ]


def test_demo_installs_its_data_and_trains_a_job_that_exists():
    install, train = dry_run("demo")
    assert install == "cluster/install.sh --extras flights .venv"
    found = re.fullmatch(r"\.venv/bin/raysparse train (\S+) --fresh", train)
    assert found
    assert (ROOT / found[1]).is_file()


def test_help_lists_every_target():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\w+)", result.stdout, re.MULTILINE)
    assert listed == ["help", "setup", "demo", "test", "clean"]


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")
