"""The scripts for clusters: run as Slurm runs them, with small stand-ins for its commands."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "cluster"
PLUGINS = Path(__file__).parent / "plugins"
STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'echo "$3" > nodes; printf "%s\\n" 127.0.0.1 127.0.0.1',
    "mmc-bench": f'exec {sys.executable} -m mmc_bench "$@"',
    "ray": f'exec {sys.executable} -m ray.scripts.scripts "$@"',
}


def submit(bench, script, *words, **variables):
    """Run a script with the variables that Slurm sets; everything that it leaves running is ended."""
    commands = bench.folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, line in STAND_INS.items():
        (commands / name).write_text(f"#!/bin/bash\n{line}\n")
        (commands / name).chmod(0o755)
    environment = {"MMC_BENCH_PLUGINS": str(PLUGINS), "PATH": f"{commands}:{os.environ['PATH']}", **variables}
    with open(bench.folder / "log", "w+") as log:
        job = subprocess.Popen(
            ["bash", str(SCRIPTS / script), *map(str, words)],
            cwd=bench.folder,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = job.wait(240)
        finally:
            with contextlib.suppress(ProcessLookupError):  # Slurm ends what a script leaves running
                os.killpg(job.pid, signal.SIGKILL)
        log.seek(0)
        return code, log.read()


def test_the_ray_script_runs_a_suite_on_every_node_of_its_allocation(bench):
    pytest.importorskip("ray")
    words = ["--suite", "tiny.yaml", "--methods", "tiny-still", "--workers", 2]
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "1"}
    code, log = submit(bench, "slurm-ray.sh", *words, **slurm)
    assert code == 0, log
    assert "2 cells: 2 computed" in log
    assert (bench.folder / "nodes").read_text().split() == ["node[1-2]"]
    assert log.count("Local node IP") == 2, log
    assert len(bench.records()) == 4


def test_the_array_script_runs_one_part_of_a_suite(bench):
    words = ["--suite", "tiny.yaml", "--methods", "tiny-still", "--workers", 0]
    for part in ("1", "2"):
        slurm = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_MAX": "2"}
        code, log = submit(bench, "slurm-array.sh", *words, **slurm)
        assert code == 0, log
        assert "1 cell: 1 computed" in log
    assert len(bench.records()) == 4


def test_parts_that_are_sent_again_alone_are_those_of_the_whole(bench):
    words = ["--suite", "tiny.yaml", "--methods", "tiny-still", "--dry-run"]
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "1", "SHARDS": "2"}
    assert "1 cell" in submit(bench, "slurm-array.sh", *words, **slurm)[1]
