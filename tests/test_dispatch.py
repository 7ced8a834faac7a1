"""Handing out jobs: each to one run, those that others did are learnt of, and what must be is tried again."""

import errno
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from helpers.records import cell_record, pretrain_record

from mmc_bench.engines import Outcome
from mmc_bench.engines import dispatch as module
from mmc_bench.engines.dispatch import Dispatcher
from mmc_bench.results.codec import DiskError
from mmc_bench.results.records import Failure
from mmc_bench.results.store import Store, UnwritableError

MODEL = pretrain_record()
CELLS = [cell_record(method=name) for name in ("a", "b")]
JOBS = [MODEL.pretraining, *(record.cell for record in CELLS)]


class Team:
    """Several runs on one folder, each with a dispatcher."""

    def __init__(self, root):
        self.store = Store(root)
        self.store.check_writable()
        self.notes = []

    def run(self, jobs=JOBS, workers=1):
        return Dispatcher(jobs, self.store, lambda job, event: self.notes.append((job.label, event["note"])), workers)

    def done(self, dispatcher, record):
        """Let a run save a record and take back its job."""
        job = record.pretraining if record is MODEL else record.cell
        self.store.save(record)
        if record is MODEL:
            self.store.weights_file(job).touch()
        dispatcher.settle(Outcome(job, record=record))


@pytest.fixture
def team(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)  # what others do is looked at again at once
    return Team(tmp_path / "results")


def refusing(error):
    """Return a function that raises."""

    def refuse(*arguments):
        raise error

    return refuse


def failure_of(job, error="broken"):
    return Failure(key=job.key, label=job.label, error=error, traceback="", started=datetime.now(UTC))


def test_two_runs_share_the_jobs_and_each_learns_of_the_others(team):
    first, second = team.run(), team.run()
    assert first.take() == JOBS[0]
    assert second.take() is None and second  # nothing can start, and there is something to wait for
    team.done(first, MODEL)
    assert first.take() == JOBS[1]
    assert second.take() == JOBS[2]
    assert [outcome.elsewhere for outcome in second.outcomes()] == [True]
    team.done(second, CELLS[1])
    assert first.take() is None
    team.done(first, CELLS[0])
    assert second.take() is None
    assert [(outcome.job, outcome.elsewhere) for outcome in second.outcomes()] == [(JOBS[2], False), (JOBS[1], True)]
    assert [(outcome.job, outcome.elsewhere) for outcome in first.outcomes()][:2] == [(JOBS[0], False), (JOBS[2], True)]
    assert not first and not second
    first.close(), second.close()
    assert list(team.store.locks.iterdir()) == []


def test_a_failure_of_another_run_counts_and_one_from_before_is_tried_again(team):
    team.store.save_failure(JOBS[1], failure_of(JOBS[1], "yesterday"))
    first, second = team.run(JOBS[1:2]), team.run(JOBS[1:2])
    assert first.take() == JOBS[1]
    first.settle(Outcome(JOBS[1], failure=failure_of(JOBS[1], "today")))
    assert second.take() is None
    (outcome,) = second.outcomes()
    assert (outcome.failure.error, outcome.elsewhere) == ("today", True)
    assert team.run(JOBS[1:2]).take() == JOBS[1]  # a run that starts now tries once more


def test_a_job_whose_worker_was_killed_is_tried_once_more(team):
    run = team.run(JOBS[1:2])
    for attempt in range(2):
        assert run.take() == JOBS[1]
        assert team.store.find_failure(JOBS[1]) is None
        run.settle(Outcome(JOBS[1], failure=failure_of(JOBS[1], "was killed"), killed=True))
        assert len(team.notes) == 1 and "was killed; it is tried again" in team.notes[0][1]
        assert run.has_outcomes == (attempt == 1)
    assert team.store.find_failure(JOBS[1]).error == "was killed"


def test_a_model_that_was_lost_is_made_again_before_the_cells_that_need_it(team):
    run = team.run(JOBS[1:])
    for record in (MODEL,):
        team.store.save(record)
    assert run.take() == JOBS[1]
    lost = Outcome(JOBS[1], failure=failure_of(JOBS[1], "weights are gone"), lost_models=(JOBS[0],))
    run.settle(lost)
    assert run.take() == JOBS[0]
    assert run.take() is None
    team.done(run, MODEL)
    assert {run.take().key, run.take().key} == {JOBS[1].key, JOBS[2].key}
    run.settle(lost)  # once more: now it is a failure
    assert [outcome.failure is not None for outcome in run.outcomes()] == [False, True]


def test_a_second_cell_that_misses_the_same_model_waits_for_it_too(team):
    run = team.run(JOBS[1:], workers=2)
    team.store.save(MODEL)
    assert {run.take().key, run.take().key} == {JOBS[1].key, JOBS[2].key}
    for job in JOBS[1:]:
        run.settle(Outcome(job, failure=failure_of(job, "weights are gone"), lost_models=(JOBS[0],)))
    assert run.take() == JOBS[0] and run.take() is None
    team.done(run, MODEL)
    for record in CELLS:
        assert run.take() is not None
        team.done(run, record)
    assert [outcome.failure for outcome in run.outcomes()] == [None] * 3


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_a_disk_that_is_away_for_a_moment_is_waited_for(team, monkeypatch, code):
    run = team.run(JOBS[1:2])
    link, trouble = os.link, [code]

    def away(source, target):
        if trouble:
            raise OSError(trouble.pop(), "away")
        link(source, target)

    monkeypatch.setattr(os, "link", away)
    assert run.take() is None
    assert run.take() == JOBS[1]


def test_a_disk_that_stays_away_ends_the_run(team, monkeypatch):
    run = team.run(JOBS[1:2])
    monkeypatch.setattr(
        os, "link", lambda source, target: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
    )
    assert run.take() is None
    monkeypatch.setattr(module, "LONGEST_OUTAGE", 0.0)
    with pytest.raises(UnwritableError, match="Input/output error"):
        run.take()


def test_a_run_whose_disk_stays_away_ends_with_its_summary(bench, monkeypatch):
    def take(self, last=None):
        raise DiskError("results/cells/1.json cannot be read: Input/output error", errno.EIO)

    monkeypatch.setattr(Dispatcher, "take", take)
    result = bench("run", "--suite", "tiny.yaml", "--workers", 0, "--seeds", 0, "--methods", "tiny-still")
    assert result.code == 1
    assert "stopped: results/cells/1.json cannot be read: Input/output error" in result.err


def test_cells_of_a_failed_pretraining_fail_with_it(team):
    run = team.run()
    assert run.take() == JOBS[0]
    run.settle(Outcome(JOBS[0], failure=failure_of(JOBS[0])))
    errors = [outcome.failure.error for outcome in run.outcomes()]
    assert errors == ["broken", *["its pretraining failed: broken"] * 2]
    assert not run


def test_a_job_of_a_lost_machine_is_anybodys(team):
    first, second = team.run(JOBS[1:2]), team.run(JOBS[1:2])
    assert first.take() == JOBS[1]
    first.give_back(JOBS[1])
    assert second.take() == JOBS[1]
    assert first.take() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_turned_read_only_is_told_before_any_work(team):
    run = team.run()
    team.store.locks.mkdir(exist_ok=True)
    team.store.locks.chmod(0o500)
    with pytest.raises(UnwritableError, match="cannot be written"):
        run.take()


@pytest.mark.slow
def test_jobs_are_handed_out_without_looking_at_all_of_them_each_time(team):
    """Each `take` of n jobs must not cost n steps: counted, not timed."""
    jobs = [replace(JOBS[1], pretraining=replace(JOBS[0], seed=n)) for n in range(300)]
    run = team.run(jobs)
    looked = 0
    lease = run._lease

    def counted(job):
        nonlocal looked
        looked += 1
        return lease(job)

    run._lease = counted
    while job := run.take():
        run.settle(Outcome(job, failure=failure_of(job)))
    assert looked == len(jobs)
