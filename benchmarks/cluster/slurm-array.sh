#!/bin/bash
# A suite in parts, each an ordinary run on one node: no Ray, no talk between the nodes. What follows the script's name
# goes to `mmc-bench run`:
#
#     sbatch slurm-array.sh --suite table1
#
# Submit it from a shared folder, with the environment that has mmc-bench active. To send some parts again, give their
# numbers and say how many parts there are: SHARDS=8 sbatch --array=3,5 slurm-array.sh --suite table1

#SBATCH --job-name=mmc-bench
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@60 # a minute before the time is up, the run ends in good order

set -euo pipefail

exec mmc-bench run --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_MAX}" "$@"
