"""A results folder waits while its disk is away for a short time, and tells what stays."""

import contextlib
import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import safetensors.torch
from helpers.records import cell_record, pretrain_record

from mmc_bench.engines import Outcome, Settings, local, store_of
from mmc_bench.engines.dispatch import Dispatcher
from mmc_bench.results import codec, outages
from mmc_bench.results import store as module_of_store
from mmc_bench.results.codec import DiskError
from mmc_bench.results.records import Failure
from mmc_bench.results.store import LostWeightsError, UnwritableError

MODEL = pretrain_record()
CELLS = [cell_record(method=name) for name in ("a", "b")]
JOBS = [MODEL.pretraining, *(record.cell for record in CELLS)]


def failure_of(job, error="broken"):
    return Failure(key=job.key, label=job.label, error=error, traceback="", started=datetime.now(UTC))


class Outage:
    """Functions that read or write, of which so many calls meet a disk that is away."""

    def __init__(self, monkeypatch, calls, code=errno.EIO):
        self.left, self.code = calls, code
        monkeypatch.setattr(outages, "PAUSE", 0.0)
        monkeypatch.setattr("mmc_bench.results.codec.read_whole", self.around(codec.read_whole))
        monkeypatch.setattr("mmc_bench.results.store.write_whole", self.around(module_of_store.write_whole))

    def around(self, use):
        def used(*arguments):
            if self.left:
                self.left -= 1
                raise OSError(self.code, os.strerror(self.code))
            return use(*arguments)

        return used


@pytest.fixture
def patient(tmp_path):
    store = store_of(Settings(results=str(tmp_path / "results")))
    store.check_writable()
    return store


@pytest.mark.parametrize("use", ["save", "save_failure", "find", "done", "find_failure"])
def test_a_record_is_read_and_written_once_the_disk_is_back(patient, monkeypatch, use):
    record = CELLS[0]
    patient.save(record)
    given = {"save": (record,), "save_failure": (record.cell, failure_of(record.cell))}.get(use, (record.cell,))
    outage = Outage(monkeypatch, 3, errno.ESTALE)
    found = getattr(patient, use)(*given)
    assert outage.left == 0
    assert use not in ("find", "done") or found == record


def test_an_outage_is_told_once(patient, monkeypatch, capsys):
    Outage(monkeypatch, 3)
    patient.save(CELLS[0])
    (line,) = capsys.readouterr().err.splitlines()
    assert "Input/output error" in line and line.endswith(": waiting for it, at most 5 minutes")


def test_weights_whose_disk_is_away_are_asked_for_again(patient, monkeypatch):
    exists = Path.exists
    trouble = [errno.ESTALE, errno.EIO]

    def away(path, **options):
        if trouble and path.suffix != "":
            raise OSError(trouble.pop(), "away")
        return exists(path, **options)

    patient.save(MODEL)
    monkeypatch.setattr(outages, "PAUSE", 0.0)
    monkeypatch.setattr(Path, "exists", away)
    assert patient.done(MODEL.pretraining) is None  # it has no weights
    assert not trouble


def test_a_failure_that_stops_the_run_is_not_written_to_the_disk_that_may_be_its_cause(patient, monkeypatch):
    run = Dispatcher(JOBS[1:2], patient, lambda job, event: None)
    job = run.take()
    Outage(monkeypatch, 10**6)
    run.settle(Outcome(job, failure=failure_of(job), stops="the disk is away"))
    assert next(run.outcomes()).stops == "the disk is away"


def test_a_disk_that_is_away_right_after_a_lease_does_not_end_the_run(patient, monkeypatch):
    run = Dispatcher(JOBS[1:2], patient, lambda job, event: None)
    Outage(monkeypatch, 2)
    assert run.take() == JOBS[1]


@pytest.mark.parametrize("use", ["find", "load_weights", "save"])
def test_a_folder_that_is_gone_for_a_moment_is_waited_for(patient, monkeypatch, capsys, use):
    patient.save(MODEL)
    safetensors.torch.save_file({}, patient.weights_file(MODEL.pretraining))
    away = patient.root.rename(patient.root.with_name("away"))
    monkeypatch.setattr(outages.time, "sleep", lambda seconds: away.rename(patient.root))
    given = MODEL.pretraining if use == "find" else MODEL
    with contextlib.suppress(LostWeightsError):  # they are others than the record names
        assert getattr(patient, use)(given) in (MODEL, None)
    said = capsys.readouterr().err
    assert said.count(f"results folder {patient.root} is gone: waiting for it") == said.count("waiting") == 1


@pytest.mark.parametrize("use", ["find", "done", "has_weights"])
def test_a_disk_that_stays_away_is_waited_for_once(patient, monkeypatch, use):
    patient.save(MODEL)
    waits = []
    monkeypatch.setattr(outages, "LONGEST_OUTAGE", 0.0)
    monkeypatch.setattr(outages.time, "sleep", waits.append)
    shutil.rmtree(patient.root)
    with pytest.raises(DiskError, match="is gone"):
        getattr(patient, use)(MODEL.pretraining)
    assert len(waits) == 1


@pytest.mark.parametrize(("code", "patience"), [(errno.EIO, 1), (errno.EROFS, 0)])
def test_weights_that_cannot_be_set_aside_are_told(patient, monkeypatch, code, patience):
    patient.save(MODEL)
    patient.weights_file(MODEL.pretraining).write_bytes(b"damaged")
    waits = []
    monkeypatch.setattr(outages, "LONGEST_OUTAGE", 0.0)
    monkeypatch.setattr(outages.time, "sleep", waits.append)
    monkeypatch.setattr(Path, "replace", MagicMock(side_effect=OSError(code, os.strerror(code))))
    with pytest.raises(DiskError, match=f"cannot be renamed: {os.strerror(code)}"):
        patient.load_weights(MODEL)
    assert len(waits) == patience


@pytest.mark.parametrize("code", ["EFBIG", "EMFILE", "ENOMEM", "EBADF", "ENOSYS", "ENOSPC"])
def test_errors_that_stay_are_not_waited_out(patient, monkeypatch, code):
    Outage(monkeypatch, 10**6, getattr(errno, code))
    monkeypatch.setattr(outages.time, "sleep", MagicMock(side_effect=AssertionError))
    with pytest.raises(UnwritableError, match=os.strerror(getattr(errno, code))):
        patient.save(CELLS[0])


def test_the_time_limit_of_a_job_leaves_out_its_waits_for_the_disk(monkeypatch):
    """As `Process` reckons it from what its worker sends."""
    now = [0.0]
    monkeypatch.setattr(local.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(local.Process, "_kill", lambda process: None)
    process = object.__new__(local.Process)
    process.job, process._began, process._waits_since, process._stopped_because = JOBS[1], 1.0, None, None
    process.connection = MagicMock(poll=lambda: False)
    for second, message, stops in [
        (11.0, local._Waits(True, 10.0), False),
        (90.0, None, False),
        (105.0, local._Waits(False, 100.0), False),
        (110.0, None, False),
        (121.0, None, True),
    ]:
        now[0] = second
        if message is not None:
            process.connection.recv.return_value = message
            assert process.receive(None) is None
        process.enforce(local.Limits(seconds=20.0))
        assert (process._stopped_because is not None) == stops


def test_a_wait_is_told_when_it_begins_and_ends(patient, monkeypatch):
    told = []
    token = outages.ON_WAIT.set(told.append)
    Outage(monkeypatch, 3)
    patient.save(CELLS[0])
    outages.ON_WAIT.reset(token)
    assert told == [True, False]


@pytest.mark.parametrize(("code", "longest"), [(errno.ENOSPC, 300.0), (errno.EIO, 0.0)])
def test_a_full_disk_and_a_long_outage_are_told(patient, monkeypatch, code, longest):
    monkeypatch.setattr(outages, "LONGEST_OUTAGE", longest)
    outage = Outage(monkeypatch, 10**6, code)
    with pytest.raises(UnwritableError, match=os.strerror(code)):
        patient.save(CELLS[0])
    assert outage.left > 10**6 - 10


def test_a_run_that_begins_while_its_folder_is_away_waits_for_it(patient, monkeypatch):
    away = patient.root.rename(patient.root.with_name("away"))
    monkeypatch.setattr(outages.time, "sleep", lambda seconds: away.rename(patient.root))
    assert Dispatcher(JOBS[1:2], patient, lambda job, event: None).take() == JOBS[1]
