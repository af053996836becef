#!/usr/bin/env bash
# Installs the peers that jobs/bench/peers.py measures into a virtual environment of their own, so that their
# dependencies never meet ours:  jobs/bench/peers_install.sh [VENV_DIR]   (default raysparse-peers in the temporary folder)
set -euo pipefail

VENV_DIR="${1:-${TMPDIR:-/tmp}/raysparse-peers}"
PACKAGES=(
  "torch==2.13.0" # ours, so that a difference in speed is the peer's and not torch's
  "fuxictr==2.3.10"
  "deepctr-torch==0.3.0"
  "requests" # imported by deepctr-torch, which does not declare it
)

fail() {
  echo "peers_install.sh: failed: $*" >&2
  exit 1
}

"${PYTHON:-python3}" -m venv "$VENV_DIR" || fail "could not make a virtual environment in $VENV_DIR"
"$VENV_DIR/bin/python" -m pip install --quiet --quiet "${PACKAGES[@]}" || fail "pip could not install ${PACKAGES[*]}"
"$VENV_DIR/bin/python" -c "import fuxictr.pytorch.models, fuxictr.pytorch.layers, deepctr_torch.models" >/dev/null ||
  fail "the import check of fuxictr and deepctr_torch"
echo "peers_install.sh: $VENV_DIR is ready after $SECONDS s"
