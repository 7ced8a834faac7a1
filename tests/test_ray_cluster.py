"""The engine `ray` on real clusters: two nodes on this machine, one of which is killed, and one for a run alone."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc"),
]

SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster():
    """Return a cluster with one node, of one CPU."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def gate(bench, monkeypatch):
    """Return the folder where the method `tiny-gate` says where it runs, and looks for `open`."""
    folder = bench.folder / "gate"
    folder.mkdir()
    monkeypatch.setenv("MMC_BENCH_TEST_GATE", str(folder))
    return folder


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def processes():
    """Return the parent of every running process that is no zombie."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            parents[int(entry)] = int(parent)
    return parents


def descendants(ancestor):
    parents = processes()
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def waiting(gate, n):
    """Return the processes that wait at the gate, once there are `n`."""
    return wait_for(lambda: len(pids := {int(path.name) for path in gate.iterdir()}) >= n and pids)


def leases(bench):
    return list((bench.folder / "results" / "locks").glob("*.lease"))


def test_a_suite_is_finished_although_a_node_is_killed_half_way(bench, gate, cluster):
    node = cluster.add_node(**SMALL)
    raylet = node.all_processes["raylet"][0].process.pid
    done = {}

    def kill_the_node():
        try:
            done["waiting"] = waiting(gate, 2)
            done["killed"] = descendants(raylet)
            for pid in done["killed"]:
                with contextlib.suppress(ProcessLookupError):  # Ray's helpers come and go
                    os.kill(pid, signal.SIGKILL)
        finally:
            (gate / "open").touch()  # whatever happened, or the run would wait for ever

    killer = threading.Thread(target=kill_the_node)
    killer.start()
    words = ["run", "--suite", "tiny.yaml", "--methods", "tiny-gate,tiny-ft,tiny-still", "--json", "--keep-predictions"]
    result = bench(*words, "--engine", "ray", "--address", cluster.address)
    killer.join()
    assert result.code == 0, result.err
    assert json.loads(result.out)["computed"] == 6
    assert len(done["waiting"] & done["killed"]) == 1
    assert "tiny-gate: its worker on " in result.err and " was lost; it is done again elsewhere" in result.err
    # What will run, where, how long; every job, the loss, and the end; nothing of Ray's.
    assert len(result.err.splitlines()) == 3 + 8 + 1 + 1, result.err
    assert bench(*words, "--workers", 0, "--results", "alone").code == 0
    assert bench.records() == bench.records("alone")
    assert bench.predictions() == bench.predictions("alone")
    assert not leases(bench)


def test_cells_end_on_a_cluster_as_they_do_on_this_machine(bench, cluster):
    result = bench(
        *["run", "--suite", "tiny.yaml", "--seeds", "0", "--json"],
        *["--methods", "tiny-exit,tiny-raise,tiny-talk"],
        *["--engine", "ray", "--address", cluster.address, "--workers", 1],
    )
    assert result.code == 1, result.err
    content = json.loads(result.out)
    assert (content["computed"], content["failed"]) == (1, 2)
    errors = {failure["cell"].rpartition("tiny-")[2]: failure["error"] for failure in content["failures"]}
    assert errors["exit"] == "its worker process exited with code 7"
    assert "ZeroDivisionError: planted in two lines (tiny.py, line" in errors["raise"]
    assert "noise" not in result.err


def test_a_limit_holds_on_a_cluster(bench, cluster):
    words = ["--engine", "ray", "--address", cluster.address, "--cell-memory", 0.001]
    result = bench("run", "--suite", "tiny.yaml", "--seeds", "0", *words)
    assert result.code == 1
    assert "seed 0: FAILED: it took more memory than --cell-memory (0.001 GB)" in result.err


def test_a_killed_run_leaves_no_worker_on_the_cluster(bench, gate, cluster):
    process = bench.start(
        *["run", "--suite", "tiny.yaml", "--methods", "tiny-gate", "--engine", "ray", "--address", cluster.address]
    )
    (worker,) = waiting(gate, 1)
    assert "libtorch" in Path(f"/proc/{worker}/maps").read_text()
    assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.kill()
    process.communicate()
    wait_for(lambda: worker not in processes(), 20)


def test_a_cell_that_no_node_has_room_for_stops_the_run_with_a_sentence(bench, cluster, monkeypatch):
    monkeypatch.setattr("mmc_bench.engines.ray.LONGEST_WAIT", 0.0)
    result = bench("run", "--suite", "tiny.yaml", "--engine", "ray", "--address", cluster.address, "--cpus-per-cell", 9)
    assert result.code == 1
    assert "stopped: no node of the Ray cluster offers 9 CPUs for a worker" in result.err
    assert "Traceback" not in result.err


def test_workers_with_another_core_stop_the_run_with_a_sentence(bench, cluster, monkeypatch):
    monkeypatch.setattr("mmc_bench.engines.ray.core_digest", lambda: "0123456789ab")
    result = bench("run", "--suite", "tiny.yaml", "--engine", "ray", "--address", cluster.address)
    assert result.code == 1
    assert "this machine 0123456789ab: install the same everywhere" in result.err
    assert not leases(bench)


def test_ctrl_c_ends_a_run_with_a_cluster_of_its_own_and_nothing_is_left(bench, gate):
    process = bench.start(
        *["run", "--suite", "tiny.yaml", "--seeds", "0", "--methods", "tiny-still,tiny-gate"],
        *["--engine", "ray", "--cpus-per-cell", 0.5, "--workers", 1],
        start_new_session=True,
    )
    waiting(gate, 1)
    family = descendants(process.pid)
    assert len(family) > 5
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "interrupted: 2 cells: 1 computed, 0 cached, 1 not run" in err
    assert "Traceback" not in err
    assert not leases(bench)
    wait_for(lambda: not family & set(processes()), 30)
