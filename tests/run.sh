#!/bin/bash
# Sets everything up, then runs the tests; arguments go to ctest.
#
#   bash tests/run.sh
#   bash tests/run.sh -R solver
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash jobs/setup.sh slurm-wlm munge
build=${MRP_BUILD_DIR:-build}
cmake --build "$build"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec ctest --test-dir "$build" --no-tests=error --output-on-failure -j "$(nproc)" "$@"
