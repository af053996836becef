#!/usr/bin/env bash
# Installs RecBole for jobs/bench/recbole_sasrec.py into a virtual environment of its own: it needs an older numpy and
# pandas.  jobs/bench/recbole_install.sh [VENV_DIR]   (default raysparse-recbole in the temporary folder)
set -euo pipefail

VENV_DIR="${1:-${TMPDIR:-/tmp}/raysparse-recbole}"
# torch is ours, so that a difference in speed is RecBole's and not torch's; its Ray still imports pkg_resources.
PACKAGES=("torch==2.13.0" "recbole==1.2.1" "numpy==1.26.*" "pandas==2.2.*" "scipy<1.13" "setuptools<80")

"${PYTHON:-python3}" -m venv "$VENV_DIR"
"$VENV_DIR/bin/python" -m pip install --quiet --quiet "${PACKAGES[@]}"
"$VENV_DIR/bin/python" -c "import recbole.trainer" >/dev/null
echo "recbole_install.sh: $VENV_DIR is ready after $SECONDS s"
