#!/bin/bash
# Compares ways of forgetting, each beside a model that never saw what is to be forgotten.
#
#   bash tests/bench/quality.sh
#   bash tests/bench/quality.sh --data FOLDER --methods reliable,npo --seeds 0,1 --json results.jsonl
set -euo pipefail
root=$(dirname "${BASH_SOURCE[0]}")/../..

[[ ${1:-} != --help ]] || exec python3 -B "$root/tests/bench/quality/quality.py" --help
(cd "$root" && bash jobs/setup.sh)
exec "${XDG_CACHE_HOME:-$HOME/.cache}/mrp/venv/bin/python" "$root/tests/bench/quality/quality.py" "$@"
