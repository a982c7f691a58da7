#!/bin/bash
# Runs benchmarks: those named, or all that have a bench.py; other arguments go to each of them.
#
#   bash tests/bench/run.sh [BENCHMARK …] [--quick] [--json FILE]
#   bash tests/bench/run.sh solver --json results.jsonl
#   bash tests/bench/run.sh solver --help
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${XDG_CACHE_HOME:-$HOME/.cache}/mrp/venv/bin/python
build=${MRP_BUILD_DIR:-$root/build}

names=()
while [[ $# -gt 0 && $1 != -* ]]; do
  [[ -f $root/tests/bench/$1/bench.py ]] || { echo "error: no tests/bench/$1/bench.py" >&2; exit 2; }
  names+=("$1")
  shift
done
if [[ ${#names[@]} -eq 0 ]]; then
  for file in "$root"/tests/bench/*/bench.py; do names+=("$(basename "$(dirname "$file")")"); done
fi

if [[ " $* " == *" --help "* ]]; then
  sed -n '2,/^set/{s/^# \?//p}' "${BASH_SOURCE[0]}"
  for name in "${names[@]}"; do
    python3 -c 'import ast, sys; print("\n" + ast.get_docstring(ast.parse(open(sys.argv[1]).read())))' \
      "$root/tests/bench/$name/bench.py"
  done
  exit
fi
[[ -n ${MRP_BUILD_DIR:-} ]] || bash "$root/jobs/setup.sh"
cmake --build "$build" >&2
for name in "${names[@]}"; do
  "$python" "$root/tests/bench/$name/bench.py" --build "$build" "$@"
done
