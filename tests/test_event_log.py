"""The event log: a line for all that happens, there as soon as it happens."""

import json
import os
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmc_bench.plugin.registry import Registry

PLAN = SimpleNamespace(suite=SimpleNamespace(name="a suite"), pretrainings=(), cells=(), pairs=())


@pytest.fixture
def log(tmp_path):
    """Return an event log that is not open yet, and its file."""
    offer = Registry.discover().get("observer", "event-log")
    path = tmp_path / "folder" / "log.jsonl"
    return offer.make(offer.configure({"path": str(path)})), path


@pytest.mark.slow
def test_a_run_with_a_failing_cell_that_is_interrupted_can_be_followed(bench, monkeypatch):
    def interrupted(seconds, sleep=time.sleep):
        if seconds == 60:  # the method's
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", interrupted)
    methods = "tiny-ft,tiny-raise,tiny-sleep,tiny-still"
    result = bench.tiny("--seeds", 0, "--methods", methods, "--observe", "event-log")
    assert result.code == 2
    (file,) = (bench.folder / "results" / "events").iterdir()
    assert file.suffix == ".jsonl" and f"-{os.getpid()}" in file.name
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    records = {record["kind"]: record for record in bench.records().values() if "kind" in record}
    assert set(records) == {"pretraining", "cell"}

    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert all(datetime.fromisoformat(line["time"]).tzinfo is not None for line in lines)
    start, end = lines[0], lines[-1]
    assert (start["event"], start["suite"], start["pid"]) == ("run_started", "tiny", os.getpid())
    assert (start["pretrainings"], start["cells"], start["jobs"]) == (1, 4, 5)
    assert (end["event"], end["interrupted"]) == ("run_finished", True)
    assert (end["computed"], end["failed"], end["not_run"], end["pretrained"]) == (1, 1, 2, 1)

    def events(name, **fields):
        return [line for line in lines if line["event"] == name and fields.items() <= line.items()]

    assert len(events("job_started", kind="pretraining")) == 1 and len(events("job_started", kind="cell")) == 3
    for record in records.values():
        epochs = events("epoch", key=record["key"])
        assert [(line["epoch"], line["epochs"]) for line in epochs] == [(1, 2), (2, 2)]
        assert all(line["loss"] > 0 and line["images_per_second"] > 0 for line in epochs)
        (finished,) = events("job_finished", key=record["key"])
        assert finished["metrics"]["accuracy/RI"] == record["metrics"]["RI"]["accuracy"]
        assert finished["seconds_taken"] > 0
    done = records["cell"]["key"]
    barriers = records["cell"]["paths"]["linear"]["test"]["barriers"]
    assert events("job_finished", key=done)[0]["metrics"]["barrier/linear/C"] == barriers["C"]["loss"]
    (failed,) = events("job_failed")
    assert failed["label"].endswith("tiny-raise") and "planted in two lines" in failed["error"]
    assert [line["stage"] for line in events("stage", key=done)][-2:] == ["score", "connect"]


def test_every_line_is_in_the_file_before_the_next_thing_happens(log, cell):
    """So that it is there when the process is killed."""
    log, path = log
    happenings = [
        lambda: log.run_started(PLAN, [cell], Path("results")),
        lambda: log.job_started(cell),
        lambda: log.job_event(cell, {"stage": "fine-tune"}),
        lambda: log.job_event(cell, {"epoch": 1, "epochs": 1, "loss": float("nan"), "images_per_second": 0.0}),
        lambda: log.job_event(cell, {"note": "something new"}),
        lambda: log.job_failed(cell, {"error": "planted"}),
        lambda: log.job_done_elsewhere(cell, None),
        lambda: log.run_finished({"cells": 1, "seconds": 2.0, "failures": []}),
    ]
    for number, happen in enumerate(happenings, start=1):
        happen()
        content = path.read_text()
        assert content.count("\n") == number and content.endswith("\n")
    lines = [json.loads(line) for line in content.splitlines()]
    names = ["run_started", "job_started", "stage", "epoch", "note", "job_failed", "job_done_elsewhere", "run_finished"]
    assert [line["event"] for line in lines] == names
    assert lines[3]["loss"] is None
    assert lines[6]["error"] is None
    assert (lines[7]["cells"], lines[7]["seconds_taken"]) == (1, 2.0)


def test_a_log_is_appended_to_and_a_torn_line_spoils_no_other(log):
    log, path = log
    path.parent.mkdir()
    path.write_text('{"event": "old"}\n{"event": "to')
    log.run_started(PLAN, [], Path("results"))
    log.run_finished({"seconds": 0.0})
    log.run_started(PLAN, [], Path("results"))
    old, torn, *lines = path.read_text().splitlines()
    assert (json.loads(old), torn) == ({"event": "old"}, '{"event": "to')
    assert [json.loads(line)["event"] for line in lines] == ["run_started", "run_finished", "run_started"]
