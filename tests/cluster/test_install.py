"""The install script, run for real against a Python that records pip's calls instead of carrying them out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RECORDING_PYTHON = f"""#!/usr/bin/env bash
log="$(dirname "$0")/../pip.log"
arguments="$*"
case "$arguments" in
  "-m pip --version") ;;
  "-m pip show --quiet ${{INSTALLED:-nothing}}") ;;
  "-m pip show"*) exit 1 ;;
  "-m pip install"*)
    echo "${{arguments#-m pip install --quiet --quiet --no-compile }}" >>"$log"
    [ -z "${{FAILING:-}}" ] || [[ "$arguments" != *"$FAILING"* ]] ;;
  "-m compileall -qq -j 0 "*) ;;
  "-W ignore -c"*)
    [ -z "${{IMPORT_ERROR:-}}" ] || {{ echo "$IMPORT_ERROR" >&2; exit 1; }} ;;
  *) exec "{sys.executable}" "$@" ;;
esac
"""


class Checkout:
    """A folder with the script, the project file and a virtual environment whose Python records pip's calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / "venv"
        (root / "cluster").mkdir()
        shutil.copy(ROOT / "cluster" / "install.sh", root / "cluster")
        shutil.copy(ROOT / "pyproject.toml", root)
        (self.venv / "bin").mkdir(parents=True)
        (self.venv / "pyvenv.cfg").touch()
        (self.venv / "bin" / "python").write_text(RECORDING_PYTHON)
        (self.venv / "bin" / "python").chmod(0o755)

    def install(self, *options: str, folder: str = "venv", **environment: str) -> tuple[int, str, list[str]]:
        """Exit status, output, and what pip was asked to install in this call."""
        log = self.venv / "pip.log"
        log.unlink(missing_ok=True)
        command = ["cluster/install.sh", *options, folder]
        environment = {"RAYSPARSE_DEVICE": "cpu", "PYTHON": sys.executable} | environment
        result = subprocess.run(
            command, cwd=self.root, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        calls = log.read_text().splitlines() if log.exists() else []
        return result.returncode, result.stdout + result.stderr, calls


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_cpu_install_keeps_pip_from_resolving_the_cuda_build(checkout: Checkout):
    status, output, calls = checkout.install("--extras", "test")
    assert status == 0, output
    assert len(calls) == 3
    assert calls[0].startswith("torch==2.13.0 fbgemm-gpu-cpu==1.8.0 tensordict==")
    assert calls[1] == "--no-deps torchrec==1.8.0"
    assert calls[2] == f"--editable {checkout.root}[test]"


def test_cuda_install_leaves_the_set_to_pip(checkout: Checkout):
    status, output, calls = checkout.install(RAYSPARSE_DEVICE="cuda")
    assert status == 0, output
    assert calls == ["torch==2.13.0 fbgemm-gpu==1.8.0 torchrec==1.8.0", f"--editable {checkout.root}"]


def test_second_call_installs_nothing(checkout: Checkout):
    checkout.install("--extras", "flights")
    status, output, calls = checkout.install("--extras", "flights")
    assert (status, calls) == (0, [])
    assert "up to date" in output


def test_other_extras_install_once_and_keep_the_first(checkout: Checkout):
    checkout.install("--extras", "flights")
    assert checkout.install("--extras=test")[2] != []
    assert checkout.install("--extras=test")[2] == []
    assert checkout.install("--extras", "flights")[2] == []


def test_changed_dependencies_install_again(checkout: Checkout):
    checkout.install()
    with (checkout.root / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert checkout.install()[2] != []


@pytest.mark.parametrize("fault", [{"FAILING": "torchrec"}, {"IMPORT_ERROR": "ImportError: libtorch_cuda.so"}])
def test_a_partial_install_is_not_taken_for_a_whole_one(checkout: Checkout, fault: dict[str, str]):
    checkout.install()
    status, output, _ = checkout.install("--extras", "test", **fault)
    assert status == 1
    reason = (
        "pip could not install --no-deps torchrec==1.8.0" if "FAILING" in fault else "ImportError: libtorch_cuda.so"
    )
    assert output.splitlines()[-1].startswith("install.sh: failed: ")
    assert output.splitlines()[-1].endswith(reason)
    # Neither the failed set nor the one before it counts: pip may have left it half replaced.
    assert checkout.install()[2] != []


def test_the_other_build_in_the_same_environment_is_refused(checkout: Checkout):
    status, output, calls = checkout.install(INSTALLED="fbgemm-gpu")
    assert (status, calls) == (1, [])
    assert "already holds fbgemm-gpu," in output
    assert "start from a new environment" in output


def test_unknown_device_is_refused(checkout: Checkout):
    status, output, calls = checkout.install(RAYSPARSE_DEVICE="tpu")
    assert (status, calls) == (1, [])
    assert output == "install.sh: failed: RAYSPARSE_DEVICE is 'tpu'; allowed are cpu and cuda\n"


def test_unknown_option_is_refused(checkout: Checkout):
    status, output, _ = checkout.install("--extra")
    assert status == 1
    assert "unknown option --extra; known are --system and --extras" in output


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Checkout):
    folder = checkout.root / "photos"
    folder.mkdir()
    (folder / "one.jpg").touch()
    status, output, _ = checkout.install(folder="photos")
    assert status == 1
    assert "photos exists and is no virtual environment" in output
    assert [path.name for path in folder.iterdir()] == ["one.jpg"]


def test_an_old_python_is_named(checkout: Checkout):
    old = checkout.root / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18 && exit 0\nexit 1\n')
    old.chmod(0o755)
    status, output, _ = checkout.install(PYTHON=str(old))
    assert status == 1
    assert f"{old} is Python 3.9.18; raysparse needs Python 3.11 or newer" in output
