#!/usr/bin/env bash
# A sweep over the command line: learning rates and seeds one after another, and one report.
#
#     [RATES="1e-3 2.5e-3"] [SEEDS="1 2"] examples/sweep.sh [FOLDER] [more options of impala-train]
#
# Started again, it goes on where it stopped: finished runs are left alone.
set -euo pipefail

folder=${1:-runs/sweep}
shift || true
for rate in ${RATES:-1e-3 2.5e-3}; do
  for seed in ${SEEDS:-1 2}; do
    impala-train CartPole-v1 --learning-rate "$rate" --seed "$seed" "$@" \
      --run-dir "$folder/rate-$rate-seed-$seed" --resume-if-exists --quiet
  done
done
impala-runs "$folder"
impala-report "$folder"/rate-* --output "$folder/report.html"
