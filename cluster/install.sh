#!/usr/bin/env bash
# Installs raysparse and the matched set of torch, fbgemm-gpu and torchrec. Everything that installs calls this script.
#
#   cluster/install.sh [--extras test,flights] [VENV_DIR]   into a virtual environment, made if missing (default .venv)
#   cluster/install.sh [--extras ...] --system              into the current Python (containers)
#
# Environment:
#   RAYSPARSE_DEVICE=cpu|cuda   which builds to install (default: cuda where nvidia-smi lists a GPU, otherwise cpu)
#   PYTHON=python3.12           the Python to use (default: the first of python3, python3.13, .12, .11 that is new enough)
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...   pip's own settings are passed on. On Linux x86-64 the public registry's
#                               torch is the CUDA build, several GB: for a CPU install there, point pip at PyTorch's
#                               index of CPU builds with one of these.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

TORCH="torch==2.13.0"
TORCHREC="torchrec==1.8.0"
FBGEMM_CPU="fbgemm-gpu-cpu==1.8.0"
FBGEMM_CUDA="fbgemm-gpu==1.8.0"
# What torchrec 1.8.0 declares besides fbgemm-gpu, because the CPU install cannot let pip resolve it.
TORCHREC_NEEDS=("tensordict==0.15.3" "torchmetrics==1.0.3" "tqdm" "pyre-extensions")

say() { echo "install.sh: $*"; }
fail() {
  echo "install.sh: failed: $*" >&2
  exit 1
}

parse_arguments() {
  VENV_DIR="$ROOT/.venv" SYSTEM=no EXTRAS=""
  while [ $# -gt 0 ]; do
    case "$1" in
      --system) SYSTEM=yes ;;
      --extras)
        [ $# -gt 1 ] || fail "--extras needs a value, such as --extras test,flights"
        EXTRAS="$2"
        shift
        ;;
      --extras=*) EXTRAS="${1#*=}" ;;
      -*) fail "unknown option $1; known are --system and --extras NAME,NAME" ;;
      *) VENV_DIR="$1" ;;
    esac
    shift
  done
  case "$VENV_DIR" in
    /*) ;;
    *) VENV_DIR="$PWD/$VENV_DIR" ;;
  esac
}

choose_device() {
  DEVICE="${RAYSPARSE_DEVICE:-}"
  if [ -z "$DEVICE" ]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then DEVICE=cuda; else DEVICE=cpu; fi
  fi
  case "$DEVICE" in
    cpu | cuda) ;;
    *) fail "RAYSPARSE_DEVICE is '$DEVICE'; allowed are cpu and cuda" ;;
  esac
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON is '$PYTHON', which is not a command"
    is_new_enough "$PYTHON" || fail "$PYTHON is $("$PYTHON" --version 2>&1); raysparse needs Python 3.11 or newer"
    return
  fi
  local candidates=(python3 python3.13 python3.12 python3.11) candidate
  # The environment of a container is the Python that `python3` names: another one would not be found on its PATH.
  [ "$SYSTEM" = no ] || candidates=(python3)
  for candidate in "${candidates[@]}"; do
    if is_new_enough "$candidate"; then
      PYTHON="$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer among: ${candidates[*]}; install one, or name it with PYTHON=/path/to/python"
}

# Sets TARGET, the Python that is installed into, and STAMP, the file that says what it holds.
make_environment() {
  if [ "$SYSTEM" = yes ]; then
    TARGET="$(command -v "$PYTHON")"
    STAMP="$("$TARGET" -c 'import sys; print(sys.prefix)')/.raysparse-installed"
    return
  fi
  TARGET="$VENV_DIR/bin/python"
  STAMP="$VENV_DIR/.raysparse-installed"
  if [ -e "$VENV_DIR" ] && [ -n "$(ls -A "$VENV_DIR")" ] && [ ! -e "$VENV_DIR/pyvenv.cfg" ]; then
    fail "$VENV_DIR exists and is no virtual environment; remove it or name another folder"
  fi
  # An interrupted creation leaves a folder without pip: making it again completes it and deletes nothing.
  if ! "$TARGET" -m pip --version >/dev/null 2>&1; then
    "$PYTHON" -m venv "$VENV_DIR" || fail "$PYTHON could not make a virtual environment in $VENV_DIR"
  fi
  is_new_enough "$TARGET" || fail "$VENV_DIR has $("$TARGET" --version 2>&1); raysparse needs Python 3.11 or newer"
}

# One hash of all that decides what is installed: this script, the project's dependencies, the device, where it lies.
installation_hash() {
  cat "$ROOT/cluster/install.sh" "$ROOT/pyproject.toml" - <<<"$DEVICE $ROOT" | "$TARGET" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# Twice quiet: errors are shown, warnings (the root user's, unreachable mirrors') are not.
pip_install() {
  "$TARGET" -m pip install --quiet --quiet --no-compile "$@" || fail "pip could not install $*"
}

# Compiles what is installed on all cores; pip would do it on one, for a minute. Where nothing is compiled, and no one
# may write there or PYTHONDONTWRITEBYTECODE is set, each of a run's processes takes three times as long to start.
# As with pip, a file that is not of this Python's syntax, such as a template, is left as it is.
compile_modules() {
  local packages
  packages="$("$TARGET" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  "$TARGET" -m compileall -qq -j 0 "$packages" || true
}

refuse_other_build() {
  local other="$1"
  if "$TARGET" -m pip show --quiet "$other" >/dev/null 2>&1; then
    fail "$TARGET already holds $other, which shares the module fbgemm_gpu with the $DEVICE build; start from a new environment"
  fi
}

install_matched_set() {
  if [ "$DEVICE" = cuda ]; then
    refuse_other_build fbgemm-gpu-cpu
    pip_install "$TORCH" "$FBGEMM_CUDA" "$TORCHREC"
  else
    refuse_other_build fbgemm-gpu
    # pip would call it an error that torchrec's fbgemm-gpu is missing; fbgemm-gpu-cpu stands in for it on purpose.
    export PIP_NO_WARN_CONFLICTS=1
    pip_install "$TORCH" "$FBGEMM_CPU" "${TORCHREC_NEEDS[@]}"
    # torchrec requires fbgemm-gpu, whose CUDA libraries would overwrite the CPU build of the same module.
    pip_install --no-deps "$TORCHREC"
  fi
}

# From another folder, so that it is the installed raysparse that is found.
check_imports() {
  local errors
  errors="$(mktemp)"
  (cd / && "$TARGET" -W ignore -c '
import torch, fbgemm_gpu, torchrec, ray, raysparse
print(f"install.sh: torch {torch.__version__}, fbgemm_gpu {fbgemm_gpu.__version__},",
      f"torchrec {torchrec.__version__}, ray {ray.__version__}")' 2>"$errors") || {
    local reason
    reason="$(tail -n 1 "$errors")"
    rm -f "$errors"
    fail "the import check of torch, fbgemm_gpu, torchrec, ray and raysparse: $reason"
  }
  rm -f "$errors"
}

main() {
  parse_arguments "$@"
  choose_device
  choose_python
  make_environment
  local hash wanted kept
  hash="$(installation_hash)"
  wanted="$hash extras=$EXTRAS"
  if grep -qxF "$wanted" "$STAMP" 2>/dev/null; then
    say "up to date: $TARGET ($DEVICE${EXTRAS:+, extras $EXTRAS})"
    return
  fi
  say "installing into $TARGET ($DEVICE${EXTRAS:+, extras $EXTRAS}); the first time takes minutes"
  # The stamp is away while pip works, so that an interrupted install is never taken for a whole one.
  kept="$(grep -F "$hash " "$STAMP" 2>/dev/null || true)"
  rm -f "$STAMP"
  install_matched_set
  pip_install --editable "$ROOT${EXTRAS:+[$EXTRAS]}"
  compile_modules
  check_imports
  printf '%s\n' ${kept:+"$kept"} "$wanted" >"$STAMP"
  say "done in $SECONDS s"
}

main "$@"
