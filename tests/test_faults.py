"""Runs that are interrupted or killed; tests/test_endurance.py has those that lose a worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmc_bench.running.interrupts import interrupted_after
from mmc_bench.system.processes import descendants

pytestmark = pytest.mark.slow

PLUGINS = Path(__file__).parent / "plugins"


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    """Tell whether a process has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_ctrl_c_leaves_within_five_seconds_with_code_2_and_keeps_what_is_done(bench):
    seconds = []
    while not seconds or (seconds[-1] >= 5 and len(seconds) < 3):  # other work on the cores may delay it now and then
        seconds.append(interrupted_run(bench, f"results{len(seconds)}"))
    assert seconds[-1] < 5, seconds


def interrupted_run(bench, results):
    """Interrupt a run during its second cell, check what it leaves, and return the seconds until it has ended."""
    process = bench.start(
        *["run", "--suite", "tiny.yaml", "--seeds", "0", "--methods", "tiny-still,tiny-sleep", "--workers", 1],
        *["--results", results],
        start_new_session=True,
    )
    assert any(line.startswith("[2/3]") for line in process.stderr)  # the first cell has ended, and the run knows it
    workers = descendants(process.pid)
    assert workers
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, err = process.communicate(timeout=60)
    seconds = time.monotonic() - start
    assert process.returncode == 2
    assert "interrupted: 2 cells: 1 computed, 0 cached, 1 not run" in err
    assert "Traceback" not in err
    assert len(list((bench.folder / results / "cells").glob("*.json"))) == 1
    wait_for(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), 20)
    return seconds


def test_a_time_limit_stops_a_run_as_ctrl_c_does_and_the_next_run_goes_on(bench):
    words = ["run", "--suite", "tiny.yaml", "--seeds", "0"]
    first = bench(*words, "--workers", 0, "--methods", "tiny-still", "--time-limit", 60)
    assert (first.code, "1 cell: 1 computed" in first.err) == (0, True), first.err
    stopped = bench.apart(*words, "--workers", 1, "--methods", "tiny-still,tiny-sleep", "--time-limit", 0.15)
    assert (stopped.code, "Traceback" in stopped.err) == (2, False), stopped.err
    assert "interrupted: 2 cells: 0 computed, 1 cached, 1 not run" in stopped.err


def test_a_time_limit_of_ages_is_a_time_limit(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with interrupted_after(1e300, 0.0):
        time.sleep(0.1)
    assert not raised


def test_a_time_limit_of_nothing_is_refused(bench):
    refused = bench("run", "--suite", "tiny.yaml", "--time-limit", 0)
    assert refused.code == 4 and "--time-limit" in refused.err


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_while_a_run_starts_ends_it_with_code_2_and_no_traceback(bench, workers):
    """At any instant: torch, when it is imported, may clear an exception that a signal handler raised."""
    words = ["run", "--suite", "tiny.yaml", "--methods", "tiny-sleep", "--workers", workers]
    for tenths in (3, 7, 11, 16) if workers else (5, 9):
        process = bench.start(*words, "--results", f"results{tenths}", start_new_session=True)
        time.sleep(tenths / 10)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if process.returncode == -signal.SIGINT:  # Python itself was still starting: nothing of ours ran yet
            continue
        assert process.returncode == 2, (tenths, err)
        assert "interrupted" in err
        assert "Traceback" not in err, (tenths, err)


def shell(bench, line):
    """Run `line` in a shell, with $BENCH for the command and $RUN for a small run of it."""
    bench_ = f"{sys.executable} -m mmc_bench"
    run = f"{bench_} run --suite tiny.yaml --workers 1 --seeds 0 --methods tiny-talk"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=bench.folder,
        env={**os.environ, "MMC_BENCH_PLUGINS": str(PLUGINS), "BENCH": bench_, "RUN": run},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>&1 | true"])
def test_a_run_is_done_whatever_becomes_of_its_streams(bench, streams):
    done = shell(bench, f"set -o pipefail; $RUN {streams}")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len([record for record in bench.records().values() if record["kind"] == "cell"]) == 1


@pytest.mark.parametrize("command", ["run --dry-run", "list methods", "--help", "table --help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_ends_quietly_and_a_full_device_gets_a_sentence(bench, command, unbuffered):
    python = f"PYTHONUNBUFFERED={unbuffered}; export PYTHONUNBUFFERED; set -o pipefail;"
    unread = shell(bench, f"{python} $BENCH {command} | true")
    assert (unread.returncode, unread.stderr) == (0, "")
    full = shell(bench, f"{python} $BENCH {command} > /dev/full")
    assert full.returncode == 3
    assert full.stderr == "mmc-bench: the output cannot be written (No space left on device)\n"


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_workers_leave_when_their_run_is_killed(bench):
    process = bench.start("run", "--suite", "tiny.yaml", "--methods", "tiny-sleep", "--workers", 2)
    pretrained = bench.folder / "results" / "pretrained"
    wait_for(lambda: pretrained.is_dir() and any(pretrained.glob("*.json")))
    workers = descendants(process.pid)
    assert workers
    process.kill()
    process.communicate()
    wait_for(lambda: all(map(gone, workers)), 10)


STARTS_PROCESSES = """
import os, subprocess, sys, time
from mmc_bench import MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name="parent", target=":Parent", summary="starts processes and waits"))

class Parent:
    def fine_tune(self, task):
        import multiprocessing
        nap = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        nap.start()
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("started.part", "w") as file:
            file.write(f"{os.getpid()} {nap.pid} {sleeper.pid}")
        os.rename("started.part", "started")
        time.sleep(600)
"""


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_processes_that_a_method_started_end_with_the_run(bench, ending):
    (bench.folder / "parent.py").write_text(STARTS_PROCESSES)
    words = ["--seeds", "0", "--methods", "parent", "--workers", 1, "--plugins-dir", "parent.py"]
    process = bench.start("run", "--suite", "tiny.yaml", *words)
    wait_for((bench.folder / "started").exists, 60)
    started = [int(pid) for pid in (bench.folder / "started").read_text().split()]
    assert len(started) == 3
    process.send_signal(ending)
    process.communicate(timeout=30)
    wait_for(lambda: all(map(gone, started)), 10)
