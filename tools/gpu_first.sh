#!/bin/sh
# The first run on a machine with a GPU: everything that needs one, at most nine minutes, and no network.
#
#   sh tools/gpu_first.sh [OUT] [--dry-run] [--only STEP ...]
#
# From the folder `make gpu-bundle` writes, or from a checkout beside one. Installs the wheel into OUT/site, where nothing
# else is touched, and leaves in OUT: page.txt and results.json (what was run and what came of it), bench.json, logs.txt.
# PYTHON names the interpreter (default: python3); it has torch, NumPy and pytest.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
out=$here/gpu-results
case ${1-} in '' | -*) ;; *) out=$1; shift ;; esac
mkdir -p "$out"
exec "${PYTHON:-python3}" "$here/tools/gpu_first.py" --out "$out" "$@"
