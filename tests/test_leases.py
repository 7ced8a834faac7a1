"""Leases: of several runs one has a job, and what a run leaves behind when it ends badly is taken over."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmc_bench.results import leases as module
from mmc_bench.results.leases import Leases, find_claims, leased
from mmc_bench.system import processes
from mmc_bench.system.processes import ProcessId, tagged, this_process


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "locks"
    path.mkdir()
    return path


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still until it is moved; looks may then be any time apart."""
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1e9)
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def refusing(error):
    """Return a function that raises."""

    def refuse(*arguments):
        raise error

    return refuse


def left_by(folder, key, owner, number=0):
    """Write a claim as another process would have left it."""
    content = {"token": f"{key}{number}", "label": "a job", "since": "2026-01-01T00:00:00+00:00", "owner": vars(owner)}
    path = folder / f"{key}.{number}.lease"
    path.write_text(json.dumps(content))
    return path


ELSEWHERE = ProcessId(host="node7", machine="feed4026", pid=17, born="5")


def ended_process():
    """Return a process of this machine that has ended."""
    return ProcessId(this_process().host, this_process().machine, this_process().pid, born="1")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_run_has_a_job_until_it_gives_it_back(folder):
    with Leases(folder) as first, Leases(folder) as second:
        assert first.claim("a", "job a")
        assert not second.claim("a", "job a")
        assert second.claim("b", "job b")
        (claim,) = [claim for claim in find_claims(folder) if claim.key == "a"]
        assert (claim.label, claim.owner.pid, claim.owner.host) == ("job a", os.getpid(), this_process().host)
        first.release("a")
        assert second.claim("a", "job a")
    assert files(folder) == []


def test_a_claim_of_another_machine_is_taken_over_when_nobody_has_touched_it_for_long(folder, clock):
    path = left_by(folder, "a", ELSEWHERE)
    with Leases(folder) as leases:
        assert not leases.claim("a", "mine")
        clock(module.STALE_AFTER - 1)
        assert not leases.claim("a", "mine")
        os.utime(path)  # it lives
        assert not leases.claim("a", "mine")
        clock(module.STALE_AFTER - 1)
        assert not leases.claim("a", "mine")
        clock(1)
        assert leases.claim("a", "mine")
        assert files(folder) == ["a.0.lease", "a.1.lease"]
    assert files(folder) == []


@pytest.mark.parametrize("moment", [1, 4e9])
def test_clocks_that_jump_matter_to_nobody(folder, clock, moment):
    """An owner whose clock is decades off is alive as long as its touches change something."""
    path = left_by(folder, "a", ELSEWHERE)
    with Leases(folder) as leases:
        for beat in range(5):
            os.utime(path, (moment - beat, moment - beat))  # even backwards
            assert not leases.claim("a", "mine")
            clock(module.STALE_AFTER * 0.9)


@pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live")
def test_a_claim_of_a_process_that_has_ended_is_taken_over_at_once(folder, clock):
    left_by(folder, "a", ended_process())
    with Leases(folder) as leases:
        assert not leases.claim("a", "mine")
        clock(module.STALE_WHEN_ENDED)
        assert leases.claim("a", "mine")


@pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live")
def test_a_claim_that_was_not_looked_at_for_a_while_is_watched_anew(folder, clock, monkeypatch):
    """Between two looks, a server may have been away from owner and watcher alike."""
    left_by(folder, "a", ELSEWHERE)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 30.0)
    with Leases(folder) as leases:
        for _ in range(5):
            assert not leases.claim("a", "mine")
            clock(module.STALE_AFTER)
        for _ in range(int(module.STALE_AFTER / 30.0)):
            assert not leases.claim("a", "mine")
            clock(30.0)
        assert leases.claim("a", "mine")


def test_the_heart_goes_on_when_a_disk_is_away_for_a_moment(folder, monkeypatch):
    with Leases(folder) as leases:
        leases.claim("a", "mine")
        (before,) = find_claims(folder)
        for name in ("scandir", "utime"):
            with monkeypatch.context() as away:
                away.setattr(module.os, name, refusing(OSError(116, "Stale file handle")))
                leases.touch()
        leases.touch()
        assert find_claims(folder)[0].touched > before.touched
        assert not leases.lost()


def test_a_folder_that_is_gone_for_a_moment_takes_no_job_away(folder, tmp_path):
    here = Leases(folder)
    assert here.claim("job", "")
    folder.rename(tmp_path / "away")
    here.touch()
    (tmp_path / "away").rename(folder)
    here.touch()
    assert here.lost() == set()
    here.release("job")
    assert find_claims(folder) == []


def test_a_job_whose_claim_was_removed_is_lost(folder):
    here = Leases(folder)
    assert here.claim("job", "")
    (folder / "job.0.lease").unlink()
    here.touch()
    assert here.lost() == {"job"}


def test_another_user_s_process_lives_though_nothing_is_shown_of_it(monkeypatch):
    mine = this_process()
    monkeypatch.setattr(processes, "_born", lambda pid: None)  # as in /proc mounted with hidepid
    assert not mine.is_gone
    monkeypatch.setattr(os, "kill", refusing(PermissionError()))
    assert not mine.is_gone
    monkeypatch.setattr(os, "kill", refusing(ProcessLookupError()))
    assert mine.is_gone == bool(mine.machine)


def test_no_claim_is_made_below_one_that_lives(folder, clock):
    """The first owner slept, the second's machine was lost, a third took over; then the first gives its claim back."""
    left_by(folder, "a", ELSEWHERE, number=1)
    left_by(folder, "a", ELSEWHERE, number=2)
    with Leases(folder) as leases:
        assert not leases.claim("a", "mine")
        clock(module.STALE_AFTER)
        os.utime(folder / "a.2.lease")
        assert not leases.claim("a", "mine")
        assert files(folder) == ["a.1.lease", "a.2.lease"]


def test_a_file_system_without_links_has_leases_too(folder, monkeypatch):
    monkeypatch.setattr(module.os, "link", refusing(PermissionError(1, "No links")))
    with Leases(folder) as first, Leases(folder) as second:
        assert first.claim("a", "first")
        assert not second.claim("a", "second")
        assert [claim.label for claim in find_claims(folder)] == ["first"]
        first.release("a")
        assert second.claim("a", "second")


def test_what_killed_runs_left_is_swept(folder):
    left_by(folder, "dead", ended_process())
    left_by(folder, "alive", ELSEWHERE)
    with Leases(folder) as leases:
        leases.sweep()
        assert files(folder) == ["alive.0.lease"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"token": 1, "owner": {}}', b"[" * 100_000, None])
def test_a_damaged_claim_holds_until_it_is_stale(folder, clock, content):
    path = folder / "a.0.lease"
    path.mkdir() if content is None else path.write_bytes(content)
    with Leases(folder) as leases:
        assert not leases.claim("a", "mine")
        clock(module.STALE_AFTER)
        assert leases.claim("a", "mine")


def test_a_pipe_in_place_of_a_claim_keeps_nobody_waiting(folder, clock):
    os.mkfifo(folder / "a.0.lease")
    with Leases(folder) as leases:
        assert not leases.claim("a", "mine")


def test_of_two_that_find_a_stale_claim_one_takes_it_over(folder, clock):
    left_by(folder, "a", ELSEWHERE)
    with Leases(folder) as first, Leases(folder) as second:
        assert not first.claim("a", "1") and not second.claim("a", "2")
        clock(module.STALE_AFTER)
        assert first.claim("a", "1")
        assert not second.claim("a", "2")


def test_a_late_claim_never_counts_on_from_one_that_is_no_more(folder, clock, monkeypatch):
    """Between seeing a stale claim and making its own, a run may sleep through the whole life of another's."""
    left_by(folder, "a", ELSEWHERE)
    with Leases(folder) as late, Leases(folder) as other, Leases(folder) as third:
        assert not late.claim("a", "late") and not other.claim("a", "other")
        clock(module.STALE_AFTER)
        make = Leases._make

        def slow(self, key, number, label):
            if self is late and number == 1:
                assert other.claim(key, "other")
                other.release(key)
                assert third.claim(key, "third")  # counts from 0 again
            return make(self, key, number, label)

        monkeypatch.setattr(Leases, "_make", slow)
        assert not late.claim("a", "late")
        assert files(folder) == ["a.0.lease"]
        assert [claim.label for claim in find_claims(folder)] == ["third"]


def test_what_an_owner_left_when_it_was_killed_while_releasing_is_cleared_away(folder, clock):
    left_by(folder, "a", ELSEWHERE, number=1)  # its claim 0 is gone already
    with Leases(folder) as leases:
        assert not leases.claim("a", "mine")
        clock(module.STALE_AFTER)
        assert leases.claim("a", "mine")
        leases.touch()
        assert not leases.lost()
        assert files(folder) == ["a.0.lease"]


def test_a_run_that_slept_too_long_learns_that_its_job_was_taken_over(folder, clock):
    with Leases(folder) as slept, Leases(folder) as other:
        assert slept.claim("a", "slept") and slept.claim("b", "slept")
        assert not other.claim("a", "other")
        clock(module.STALE_AFTER)
        assert other.claim("a", "other")
        slept.touch()
        assert slept.lost() == {"a"}
        slept.release("a")
        assert [claim.label for claim in find_claims(folder)] in (["slept", "other"], ["other", "slept"])


def test_other_files_beside_the_claims_take_no_job_away(folder):
    with Leases(folder) as leases:
        assert leases.claim("a", "mine")
        (folder / "a.7").touch()
        leases.touch()
        assert leases.lost() == set()


def test_a_touch_is_seen(folder, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    with Leases(folder) as leases:
        leases.claim("a", "mine")
        (before,) = find_claims(folder)
        deadline = time.monotonic() + 30
        while find_claims(folder)[0].touched == before.touched:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_link_whose_answer_was_lost_counts(folder, monkeypatch):
    """As on a network file system: the link is there, and the call says that it failed."""
    link = os.link

    def lossy(source, target):
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(module.os, "link", lossy)
    with Leases(folder) as leases:
        assert leases.claim("a", "mine")


def test_leased_waits_for_its_turn(folder):
    with Leases(folder) as first, Leases(folder) as second:
        first.claim("a", "first")
        threading.Timer(0.3, first.release, ["a"]).start()
        with leased(second, "a", "second", pause=0.01):
            assert [claim.label for claim in find_claims(folder)] == ["second"]


CONTENDER = """
import os, random, sys, time
from pathlib import Path
from mmc_bench.results import leases as module
module.STALE_WHEN_ENDED = .02
chance, leases, folder = random.Random(int(sys.argv[1])), module.Leases(Path(sys.argv[2])), Path(sys.argv[3])
print("ready", flush=True)
while True:
    key = f"job{chance.randrange(3)}"
    if leases.claim(key, sys.argv[1]):
        inside = folder / f"{key}.inside"
        descriptor = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails when two are inside
        time.sleep(chance.random() * .002)
        os.close(descriptor)
        inside.unlink()
        leases.release(key)
        print(key, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live")
def test_contenders_that_are_killed_at_any_instant_never_meet_inside(folder, tmp_path):
    chance = random.Random(0)

    def start(number):
        command = [sys.executable, "-c", CONTENDER, str(number), str(folder), str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    team = [start(number) for number in range(3)]
    done = 0
    for number in range(3, 12):
        time.sleep(chance.uniform(0.05, 0.2))
        process = team.pop(0)
        # What it was inside of must be cleared before its lease is stale: it is stopped first, and killed then.
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        for claim in find_claims(folder):
            if claim.label == str(number - 3):
                (tmp_path / f"{claim.key}.inside").unlink(missing_ok=True)
        process.kill()
        out, err = process.communicate()
        assert "Error" not in err, err
        done += len(out.splitlines())
        team.append(start(number))
    for stop in (signal.SIGSTOP, signal.SIGKILL):  # all at once, so that none takes over from another
        for process in team:
            process.send_signal(stop)
    for process in team:
        out, err = process.communicate()
        assert "Error" not in err, err
        done += len(out.splitlines())
    assert done > 20
    with Leases(folder) as leases:
        leases.sweep()
    assert [name for name in files(folder) if name.endswith(".lease")] == []


def test_processes_are_told_apart():
    mine = this_process()
    assert not mine.is_gone
    assert tagged(mine.tag) == ProcessId("", mine.machine, mine.pid, mine.born)
    assert tagged("12-ab") is None
    if mine.machine:
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        child.wait()
        assert ProcessId(mine.host, mine.machine, child.pid, "17").is_gone
        assert not ProcessId(mine.host, "another", child.pid, "17").is_gone
