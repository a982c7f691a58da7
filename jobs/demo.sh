#!/bin/bash
# Shows the whole of mrp: builds it, trains a small model on invented facts, then makes it forget one
# topic. That takes about 25 minutes on two cores; a second run finds everything done.
#
#   bash jobs/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/mrp
demo=$cache/demo

bash jobs/setup.sh
mkdir -p "$demo"
"$cache/venv/bin/python" jobs/py/demo_data.py --output "$demo/data"
"$cache/venv/bin/python" jobs/py/train_model.py --data "$demo/data/train.jsonl" \
  --output "$demo/model" --target-accuracy 0.999
cat >"$demo/job.yaml" <<EOF
model: model
output: unlearned
work: work
data:
  forget: data/forget.jsonl
  retain: data/retain.jsonl
  evaluate: {retain_unseen: data/retain_unseen.jsonl}
# A show: a third of the steps and half of the samples that a job takes by default.
refine: {steps: 300, samples: 8000}
EOF
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun --oversubscribe -n 2 "${MRP_BUILD_DIR:-build}/mrp" run "$demo/job.yaml"
