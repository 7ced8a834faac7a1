"""How workers are started: forked from one process that has imported torch, or each anew."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import started

from mmc_bench.engines import Settings, local, starting
from mmc_bench.engines.starting import ForkServer, spawn, starter
from mmc_bench.system.processes import descendants

pytestmark = pytest.mark.skipif(not starting._has_pidfds(), reason="processes are forked under Linux alone")

MODULE = "mmc_bench.results.weights"  # stands for torch, which takes seconds


@pytest.fixture
def server():
    with closing(ForkServer(1, (MODULE,))) as server:
        yield server


@pytest.fixture
def start():
    """Return what starts a process, with our end of its connection; it is killed at the end."""
    team = []

    def start(begin, target, *arguments):
        ours, theirs = multiprocessing.Pipe()
        process = begin(target, theirs, *arguments)
        theirs.close()
        team.append(process)
        return process, ours

    yield start
    for process in team:
        process.kill()


@pytest.fixture
def told(start):
    """Return what a process that is started tells of itself."""

    def told(begin, name=MODULE):
        process, connection = start(begin, started.tell, name)
        answer = connection.recv()
        process.join()
        assert process.exitcode == 0
        return answer

    return told


def test_what_a_fork_server_imports_all_its_processes_have(server, told):
    first, second = told(server.start), told(server.start)
    assert first == second
    assert first["has"] and first["parent"] == server._process.pid


def test_a_spawned_process_has_nothing_that_its_owner_imported(told):
    found = told(spawn)
    assert (found["parent"], found["has"]) == (os.getpid(), False)


def test_both_see_their_owner_and_start_processes_in_the_same_way(server, told):
    for begin in (server.start, spawn):
        found = told(begin)
        assert (found["owner"], found["starts"]) == (os.getpid(), "spawn")


def test_every_server_has_the_environment_and_folder_of_its_own_start(monkeypatch, tmp_path, told):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("MMC_BENCH_TRIED", name)
        with closing(ForkServer(1, ())) as server:
            found.append(told(server.start))
    assert [one["tried"] for one in found] == ["one", "two"]
    assert [one["folder"] for one in found] == [str(tmp_path / "one"), str(tmp_path / "two")]


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_exit_codes_are_those_of_multiprocessing(way, start, capfd):
    with closing(ForkServer(1, ())) as server:
        begin = server.start if way == "fork" else spawn
        for code, exits in ((7, 7), (None, 0), ("a sentence", 1)):
            process, _ = start(begin, started.leave, code)
            process.join()
            assert (process.exitcode, process.is_alive()) == (exits, False)
        process, _ = start(begin, started.fail)
        process.join()
        assert process.exitcode == 1
        assert "ValueError: planted" in capfd.readouterr().err
        process, _ = start(begin, started.sleep)
        assert (process.exitcode, process.is_alive()) == (None, True)
        process.kill()
        process.join()
        process.kill()  # harmless
        assert (process.exitcode, process.is_alive()) == (-signal.SIGKILL, False)


def test_the_end_of_one_process_reaches_its_owner_while_others_live(server, start):
    _, other = start(server.start, started.sleep)
    process, connection = start(server.start, started.sleep)
    _, third = start(server.start, started.sleep)
    os.kill(process.pid, signal.SIGTERM)
    assert connection.poll(20) and not other.poll(0) and not third.poll(0)
    with pytest.raises(EOFError):
        connection.recv()
    process.join()
    assert process.exitcode == -signal.SIGTERM


def test_without_its_server_a_process_lives_on_and_the_next_is_spawned(server, start, told):
    process, connection = start(server.start, started.sleep, "begun")
    assert connection.recv() == "begun"
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.join()
    assert process.is_alive() and process.exitcode is None
    assert told(server.start)["parent"] == os.getpid()
    process.kill()
    process.join()
    assert (process.exitcode, process.is_alive()) == (None, False)  # nobody was told


@pytest.mark.parametrize("imported", ["mmc_bench.no_such_module", "json.no_such_module"])
def test_where_something_cannot_be_imported_processes_are_spawned(imported, told):
    with closing(ForkServer(1, (imported, MODULE))) as server:
        assert told(server.start)["parent"] == os.getpid()


def test_what_the_server_does_not_understand_ends_it(server, told):
    told(server.start)
    server._connection.send(0.5)
    assert told(server.start)["parent"] == os.getpid()
    server._process.join(20)
    assert server._process.exitcode is not None


def test_an_interrupt_between_question_and_answer_ends_the_server(server, start, told, monkeypatch):
    process, _ = start(server.start, started.sleep)

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(server._connection, "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(server.start, started.sleep)
    assert process.is_alive() and told(server.start)["parent"] == os.getpid()


def test_a_server_that_may_not_fork_says_so_and_a_process_is_spawned(monkeypatch, told, server):
    def refused():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    ours, theirs = multiprocessing.Pipe()
    with socket.socket(fileno=os.dup(ours.fileno())) as channel:
        socket.send_fds(channel, [b"1"], [ours.fileno()])
    starting._fork(theirs, started.tell, (MODULE,))
    assert ours.recv() is None
    answers = iter([True, None])
    answering = SimpleNamespace(
        poll=lambda seconds: True, recv=lambda: next(answers), send=lambda asked: None, fileno=ours.fileno
    )
    with monkeypatch.context() as patched:
        patched.setattr(server, "_connection", answering)
        assert told(server.start)["parent"] == os.getpid()
    server._is_ready = False
    assert told(server.start)["parent"] == server._process.pid


def test_neither_side_keeps_files_of_what_has_ended(server):
    def open_files():
        return len(os.listdir(f"/proc/{server._process.pid}/fd")), len(os.listdir("/proc/self/fd"))

    found = []
    for _ in range(3):
        ours, theirs = multiprocessing.Pipe()
        process = server.start(started.leave, theirs, 0)
        theirs.close()
        process.join()
        ours.close()
        del process
        found.append(open_files())
    assert found[0] == found[-1]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in descendants(server._process.pid))


def test_what_is_printed_during_imports_is_printed_once_and_is_no_output(capfd, told, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with closing(ForkServer(1, ("this",))) as server:
        told(server.start), told(server.start)
    out, err = capfd.readouterr()
    assert (out, err.count("Beautiful is better than ugly")) == ("", 1)


def test_a_process_that_cannot_be_watched_does_nothing_and_another_is_spawned(server, told, monkeypatch):
    def refused(pid):
        found.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    told(server.start)
    found = []
    monkeypatch.setattr(os, "pidfd_open", refused)
    assert told(server.start)["parent"] == os.getpid() and len(found) == 1
    end = time.monotonic() + 20
    while not Path(f"/proc/{found[0]}/stat").read_text().rpartition(")")[2].startswith(" Z"):
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.01)


def test_exit_codes_are_known_although_the_caller_ignores_them(start):
    usual = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with closing(ForkServer(1, ())) as server:
            process, _ = start(server.start, started.leave, 7)
            process.join()
            assert process.exitcode == 7
    finally:
        signal.signal(signal.SIGCHLD, usual)


def test_processes_are_forked_from_any_thread(server, told):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(told, server.start).result()["parent"] == server._process.pid


@pytest.mark.parametrize("devices", [["cuda:0", "cuda:1"], ["cpu", "cuda:0"], ["mps"]])
def test_workers_of_gpus_are_spawned(devices):
    with starter(devices, 1) as begin:
        assert begin is spawn


def test_where_the_system_cannot_watch_what_is_no_child_workers_are_spawned(monkeypatch):
    def refused(pid):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with starter(["cpu"], 1) as begin:
        assert begin is not spawn
    monkeypatch.setattr(os, "pidfd_open", refused)
    with starter(["cpu"], 1) as begin:
        assert begin is spawn
    monkeypatch.delattr(os, "pidfd_open")
    with starter(["cpu"], 1) as begin:
        assert begin is spawn


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (-signal.SIGSEGV, "was killed by signal SIGSEGV"),
        (-40, "was killed by signal 40"),
        (None, "its exit code is lost"),
    ],
)
def test_a_worker_that_died_is_replaced_whatever_is_known_of_its_end(cell, monkeypatch, code, says):
    ours, theirs = multiprocessing.Pipe()
    ended = SimpleNamespace(pid=os.getpid(), exitcode=code, join=lambda: None, kill=lambda: None)
    ended.is_alive = lambda: code is None  # as multiprocessing says where the caller ignores exit codes
    process = local.Process(Settings(results=""), start=lambda *given: ended)
    process.give(cell)
    process.connection.close()
    process.connection = ours
    theirs.close()
    outcome = process.receive(lambda job, event: None)
    assert says in outcome.failure.error and outcome.killed == (code is None)
    assert not process.fit_for_more
    listed = []
    monkeypatch.setattr(local, "descendants", lambda pid: listed.append(pid) or [])
    process.kill()
    assert listed == ([os.getpid()] if code is None else [])


@pytest.mark.slow
def test_spawned_workers_compute_what_this_process_does(bench, monkeypatch):
    monkeypatch.setattr(local, "starter", lambda devices, threads: starting.starter(["cuda:0"], threads))
    here, spawned = bench.tiny("--results", "here"), bench.tiny("--workers", 1, "--results", "spawned")
    assert (here.code, spawned.code) == (0, 0), (here.err, spawned.err)
    records = bench.records("here")
    assert len(records) == 6 and records == bench.records("spawned")


@pytest.mark.slow
def test_a_run_goes_on_when_the_process_that_forks_its_workers_is_killed(bench):
    words = ["run", "--suite", "tiny.yaml", "--seeds", "0", "--methods", "tiny-nap", "--workers", 1, "--json"]
    process = bench.start(*words, env={"TINY_NAP": "1"})
    pretrained, end = bench.folder / "results" / "pretrained", time.monotonic() + 120
    while not (pretrained.is_dir() and any(pretrained.glob("*.json"))) and time.monotonic() < end:
        time.sleep(0.02)
    servers = [pid for pid in descendants(process.pid) if descendants(pid)]
    assert len(servers) == 1
    os.kill(*servers, signal.SIGKILL)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, json.loads(out)["computed"], "Traceback" in err) == (0, 1, False), err
    assert "tried again" not in err
