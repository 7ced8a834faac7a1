"""Faults of disks, workers and plugins, really caused: full and read-only folders, hangs, leaks, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from conftest import Bench, Result
from test_faults import wait_for

from mmc_bench.engines import local
from mmc_bench.system.processes import this_process

pytestmark = pytest.mark.slow

PLUGINS = Path(__file__).parent / "plugins"
RUN = f"{sys.executable} -m mmc_bench run --suite tiny.yaml --workers 1 --seeds 0,1"


@cache
def may_mount():
    """Whether a file system of one's own can be mounted here, in a name space of one's own."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


def in_own_mounts(bench, script, **environment):
    """Run a shell script that may mount what it likes."""
    if not may_mount():
        pytest.skip("no file system can be mounted here")
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=bench.folder,
        env={**os.environ, "MMC_BENCH_PLUGINS": str(PLUGINS), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_full_disk_stops_the_run_with_one_sentence_and_the_next_goes_on(bench):
    done = in_own_mounts(
        bench,
        f"""
        mkdir results; mount -t tmpfs -o size=36k tmpfs results || exit 9
        {RUN} --methods tiny-still,tiny-ft --workers 0; echo full: $?
        cp -r results left
        """,
    )
    assert done.stdout.splitlines()[-1:] == ["full: 1"], done.stdout + done.stderr
    stopped = "mmc-bench: stopped: results folder results cannot be written (No space left on device); nothing that is"
    assert stopped.replace("folder results", f"folder {bench.folder}/results") in done.stderr
    assert "Traceback" not in done.stderr
    left = [path for path in (bench.folder / "left").rglob("*") if path.suffix in (".tmp", ".lease")]
    assert left == [] and 0 < len(bench.records("left")) < 6
    assert bench.tiny("--methods", "tiny-still,tiny-ft", "--results", "left").code == 0  # where there is room
    assert len(bench.records("left")) == 6


def test_a_full_disk_stops_a_run_where_nothing_can_be_mounted_too(bench, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmc_bench.system.files.os.fsync", full)
    result = bench.tiny("--seeds", "0")
    assert result.code == 1
    assert "stopped: results folder" in result.err and "(No space left on device)" in result.err
    assert "Traceback" not in result.err
    monkeypatch.undo()
    left = [path for path in (bench.folder / "results").rglob("*") if path.is_file()]
    assert [path for path in left if path.suffix in (".tmp", ".lease")] == []


def test_a_folder_that_turns_read_only_stops_the_run_and_the_next_goes_on(bench):
    done = in_own_mounts(
        bench,
        f"""
        mkdir results; mount -t tmpfs -o size=10m tmpfs results || exit 9
        {RUN} --methods tiny-nap --no-download & run=$!
        until ls results/cells/*.json > /dev/null 2>&1; do sleep .05; done
        until mount -o remount,ro results; do sleep .05; done  # busy while something is being written
        wait $run; echo read-only: $?
        cp -r results left
        """,
        TINY_NAP="2",
    )
    assert done.stdout.splitlines()[-1:] == ["read-only: 1"], done.stdout + done.stderr
    assert "cannot be written (Read-only file system); nothing that is done is lost" in done.stderr
    assert "Traceback" not in done.stderr
    assert bench.tiny("--methods", "tiny-nap", "--results", "left").code == 0  # where it can be written
    files = [path for path in (bench.folder / "left").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"} and len(bench.records("left")) == 4


FATES = "tiny-exit,tiny-killed,tiny-sleep,tiny-leak,tiny-once,tiny-ft,tiny-talk"


@pytest.fixture
def fates(made_once, capsys, monkeypatch):
    """Return what one run of such methods in one worker printed, and the errors of cells by method."""

    def make(folder):
        done = Bench(folder, capsys, monkeypatch).apart(
            *["run", "--suite", "tiny.yaml", "--seeds", "0", "--workers", 1, "--methods", FATES, "--json"],
            *["--cell-timeout", 0.2, "--cell-memory", 0.9],
            env={"TINY_NAP": "30"},
        )
        (folder / "done.json").write_text(json.dumps(asdict(done)))

    done = Result(**json.loads((made_once("fates", make) / "done.json").read_text()))
    assert done.code == 1, done.err
    content = json.loads(done.out)
    errors = {failure["cell"].rpartition("tiny-")[2]: failure["error"] for failure in content["failures"]}
    assert (content["computed"], len(errors)) == (3, 4)  # each takes only its own cell along
    return done.err, errors


def test_a_worker_that_dies_takes_only_its_own_cell_along(fates):
    told, errors = fates
    assert "exited with code 7" in errors["exit"]
    assert "killed by signal SIGKILL (out of memory?)" in errors["killed"]
    assert "noise on standard output" in told


def test_a_cell_that_hangs_fails_alone(fates):
    told, errors = fates
    assert errors["sleep"] == "it took longer than --cell-timeout (0.2 minutes)"
    assert "tiny-sleep: FAILED: it took longer than --cell-timeout (0.2 minutes)" in told


@pytest.mark.skipif(not this_process().machine, reason="this system does not tell how large processes are")
def test_a_cell_that_takes_too_much_memory_fails_alone(fates):
    told, errors = fates
    assert errors["leak"] == "it took more memory than --cell-memory (0.9 GB)"
    assert "tiny-leak: FAILED: it took more memory than --cell-memory (0.9 GB)" in told


def test_a_cell_whose_worker_a_cluster_ends_is_tried_again(fates):
    told, errors = fates
    assert "once" not in errors
    assert "its worker process was killed by signal SIGTERM; it is tried again" in told


@pytest.mark.skipif(not this_process().machine, reason="this system does not tell how large processes are")
def test_a_worker_that_a_plugin_has_swollen_is_replaced_before_its_next_cell(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(local, "GIGABYTE", 1 << 26)
    words = ["run", "--suite", "tiny.yaml", "--workers", 1, "--methods", "tiny-leak,tiny-talk", "--seeds", "0"]
    done = Bench(tmp_path, capfd, monkeypatch)(*words)
    assert done.code == 0, done.err
    assert "noise on standard output, 0 kept" in done.err


def test_limits_need_a_worker_to_stop(bench):
    refused = bench.tiny("--cell-timeout", 1)
    assert (refused.code, "they need 1 worker or more" in refused.err) == (4, True)


def test_sigterm_ends_a_run_as_ctrl_c_does(bench):
    process = bench.start("run", "--suite", "tiny.yaml", "--methods", "tiny-sleep", "--workers", 1, "--seeds", "0")
    locks = bench.folder / "results" / "locks"
    wait_for(lambda: (bench.folder / "results" / "pretrained").is_dir() and list(locks.glob("*.lease")))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (2, False), err
    assert list(locks.iterdir()) == []


ELSEWHERE = """
from mmc_bench.results import leases
leases.HEARTBEAT, leases.STALE_AFTER = 0.2, 5.0
if __name__ == "__main__":
    from mmc_bench.cli.main import main
    main()
"""


def test_a_machine_that_is_lost_leaves_its_jobs_to_the_others(bench):
    """A space of process numbers of its own is, to everybody else, another machine: only its touches tell of it."""
    (bench.folder / "impatient.py").write_text(ELSEWHERE)
    run = f"{sys.executable} impatient.py run --suite tiny.yaml --workers 0 --seeds 0 --methods tiny-nap"
    done = in_own_mounts(
        bench,
        f"""
        unshare -pf --kill-child --mount-proc {run} & first=$!
        until ls results/locks/*.lease > /dev/null 2>&1 && ls results/pretrained/*.json > /dev/null 2>&1
        do sleep .05; done
        sleep 1
        {run} & second=$!
        sleep 5; ls results/locks | wc -l; ls results/cells | wc -l
        kill -9 $first; wait $second; echo second: $?
        ls results/locks | wc -l; ls results/cells | wc -l
        """,
        TINY_NAP="12",
    )
    assert done.stdout.splitlines()[:2] == ["1", "0"], done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith(("|", "*"))][-3:] == [
        "second: 0",
        "0",
        "1",
    ]
    assert "1 cell: 1 computed" in done.stderr
