#!/bin/bash
# Runs a suite in independent parts, each an ordinary run on one node, without Ray. Arguments after the script's name are
# passed to `mmc-bench run`:
#
#     sbatch slurm-array.sh --suite table1
#
# Submit it from a shared folder, with the environment that has mmc-bench active. To repeat some parts, give their numbers
# and the number of all parts: SHARDS=8 sbatch --array=3,5 slurm-array.sh --suite table1

#SBATCH --job-name=mmc-bench
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@60 # stops the run cleanly a minute before the time is up

set -euo pipefail

exec mmc-bench run --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_MAX}" "$@"
