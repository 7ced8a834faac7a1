#!/bin/bash
# Runs a suite on a Ray cluster inside one Slurm allocation. Arguments after the script's name are passed to
# `mmc-bench run`:
#
#     sbatch --nodes=4 --gpus-per-node=2 slurm-ray.sh --suite table1 --gpus-per-cell 0.25
#
# Submit it from a shared folder, with the environment that has mmc-bench[ray] active: results/ and the folders given
# to --data and --plugins-dir must be the same on every node. Submitted again, it computes only what is missing.

#SBATCH --job-name=mmc-bench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@60 # stops the run cleanly a minute before the time is up

set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
cpus=${SLURM_CPUS_PER_TASK:-1}
address=${nodes[0]}:$((20000 + SLURM_JOB_ID % 10000)) # other jobs may have clusters on the same node

# Anyone who can reach a cluster can run programs on it: the token admits this job alone.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# Starts Ray on one node for the duration of the job. Ray finds the node's GPUs itself. The object store is small because
# little data passes through it.
start_ray() {
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$cpus" \
        ray start --block --num-cpus="$cpus" --object-store-memory=100000000 --disable-usage-stats "$@" &
}

start_ray "${nodes[0]}" --head --port="${address##*:}" --include-dashboard=false
for attempt in {1..60}; do
    ray health-check --address "$address" 2> /dev/null && break
    echo "waiting for the head of the cluster ($attempt)" >&2
    sleep 2
done
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address="$address"
done

# Workers start as nodes join. Slurm stops Ray when this ends.
exec mmc-bench run --engine ray --address "$address" "$@"
