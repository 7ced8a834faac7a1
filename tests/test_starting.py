"""How workers are started: forked from one process that has imported torch, or each anew."""

import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import closing

import pytest
from helpers import started

from mmc_bench.engines import local, starting
from mmc_bench.engines.starting import ForkServer, spawn, starter
from mmc_bench.system.processes import descendants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked under Linux alone")

MODULE = "mmc_bench.results.weights"  # stands for torch, which takes seconds


@pytest.fixture
def server():
    with closing(ForkServer(1, (MODULE,))) as server:
        yield server


def start(begin, target, *arguments):
    ours, theirs = multiprocessing.Pipe()
    process = begin(target, theirs, *arguments)
    theirs.close()
    return process, ours


def told(begin, name=MODULE):
    process, connection = start(begin, started.tell, name)
    answer = connection.recv()
    process.join()
    assert process.exitcode == 0
    return answer


@pytest.mark.slow
def test_what_a_fork_server_imports_all_its_processes_have(server):
    first, second = told(server.start), told(server.start)
    assert first == second
    parent, has_module, _, _ = first
    assert has_module and parent == server._process.pid != os.getpid()


def test_a_spawned_process_has_nothing_and_is_the_caller_s_own():
    parent, has_module, _, _ = told(spawn)
    assert (parent, has_module) == (os.getpid(), False)


@pytest.mark.slow
def test_every_server_has_the_environment_and_folder_of_its_own_start(monkeypatch, tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("MMC_BENCH_TRIED", name)
        with closing(ForkServer(1, ())) as server:
            found.append(told(server.start)[2:])
    assert found == [(name, str(tmp_path / name)) for name in ("one", "two")]


@pytest.mark.slow
def test_exit_codes_are_those_of_multiprocessing(server):
    for begin in (server.start, spawn):
        process, _ = start(begin, started.leave, 7)
        process.join()
        assert (process.exitcode, process.is_alive()) == (7, False)
        process, _ = start(begin, started.sleep)
        assert (process.exitcode, process.is_alive()) == (None, True)
        process.kill()
        process.join()
        process.kill()  # harmless
        assert (process.exitcode, process.is_alive()) == (-signal.SIGKILL, False)


def test_the_end_of_one_process_reaches_its_owner_while_others_live(server):
    _, other = start(server.start, started.sleep)
    process, connection = start(server.start, started.sleep)
    _, third = start(server.start, started.sleep)
    os.kill(process.pid, signal.SIGTERM)
    assert connection.poll(20) and not other.poll(0) and not third.poll(0)
    with pytest.raises(EOFError):
        connection.recv()
    process.join()
    assert process.exitcode == -signal.SIGTERM


@pytest.mark.slow
def test_without_its_server_a_process_counts_as_killed_and_the_next_is_spawned(server):
    process, _ = start(server.start, started.sleep)
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.join()
    process.join()
    assert (process.exitcode, process.is_alive()) == (-signal.SIGKILL, False)
    os.kill(process.pid, signal.SIGKILL)  # a worker would have noticed by itself
    assert told(server.start)[0] == os.getpid()


def test_what_cannot_be_imported_is_left_to_the_processes():
    with closing(ForkServer(1, ("mmc_bench.no_such_module", MODULE))) as server:
        assert told(server.start)[0] == server._process.pid


@pytest.mark.parametrize(
    ("platform", "devices"),
    [("darwin", ["cpu"]), ("win32", ["cpu"]), ("linux", ["cuda:0", "cuda:1"]), ("linux", ["mps"])],
)
def test_elsewhere_and_for_gpus_workers_are_spawned(monkeypatch, platform, devices):
    monkeypatch.setattr(sys, "platform", platform)
    with starter(devices, 1) as begin:
        assert begin is spawn


@pytest.mark.slow
def test_spawned_workers_compute_what_forked_ones_do(bench, monkeypatch):
    words = ["run", "--suite", "tiny.yaml", "--workers", 1]
    forked = bench(*words, "--results", "forked")
    monkeypatch.setattr(local, "starter", lambda devices, threads: starting.starter(["cuda:0"], threads))
    spawned = bench(*words, "--results", "spawned")
    assert (forked.code, spawned.code) == (0, 0), (forked.err, spawned.err)
    records = bench.records("forked")
    assert len(records) == 6 and records == bench.records("spawned")


@pytest.mark.slow
def test_a_run_goes_on_when_the_process_that_forks_its_workers_is_killed(bench):
    words = ["run", "--suite", "tiny.yaml", "--seeds", "0,1,2", "--methods", "tiny-nap", "--workers", 2, "--json"]
    process = bench.start(*words, env={"TINY_NAP": "1"})
    pretrained, end = bench.folder / "results" / "pretrained", time.monotonic() + 120
    while not (pretrained.is_dir() and any(pretrained.glob("*.json"))) and time.monotonic() < end:
        time.sleep(0.02)
    parents = {pid for pid in descendants(process.pid) if len(descendants(pid)) == 2}
    assert len(parents) == 1
    os.kill(*parents, signal.SIGKILL)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, json.loads(out)["computed"], "Traceback" in err) == (0, 3, False), err
