"""The event log: what happens in a run, as JSON objects, one a line, in the file as soon as it happens.

Every line has

    time      when, in UTC, ISO 8601
    seconds   since the log was opened, by a clock that is never set back
    event     what happened

and, by what happened,

    run_started         log_version (1), mmc_bench (its version), suite, host, pid, results; how many pretrainings,
                        cells and pairs the plan has, and how many of all these are jobs still to do
    job_started         key, label, kind (pretraining, cell or pair)
    stage               key, stage that the job has reached
    epoch               key, epoch (from 1), epochs, loss (mean over the epoch; null where there is none),
                        images_per_second
    job_finished        key, label, kind, seconds_taken, metrics as `mmc_bench.running.tracking.figures_of` names them
    job_failed          key, label, kind, error
    job_done_elsewhere  key, label, kind, error (null where the other run left a record)
    run_finished        cells, cached, computed, failed, not_run, pretrained, interrupted, seconds_taken

A reader should pass over events and fields that it does not know, and over a line that is no JSON: the last one of a
run whose disk was full, or whose machine lost its power. A run that was killed has no ``run_finished``.
"""

import json
import math
import os
import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pydantic import Field

import mmc_bench
from mmc_bench import BaseConfig, UserError
from mmc_bench.running.tracking import figures_of, kind_of

LOG_VERSION = 1


class EventLog:
    """Appends what happens to a file."""

    class Config(BaseConfig):
        """Where the file is."""

        path: str | None = Field(
            None, min_length=1, description="file to append to; when null, a new one for every run in RESULTS/events/"
        )

    config: Config

    _file: IO[str]
    _opened: float

    def run_started(self, plan: Any, jobs: list[Any], results: Path) -> None:
        """Open the file.

        Raises
        ------
        UserError
            When it cannot be written.
        """
        host = socket.gethostname()
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{re.sub(r'[^0-9A-Za-z.-]', '_', host)}-{os.getpid()}.jsonl"
        path = Path(self.config.path) if self.config.path else results / "events" / name
        try:
            self._file = _opened_to_append(path)
        except OSError as error:
            raise UserError(f"event log {path} cannot be written: {error.strerror or error}") from None
        self._opened = time.monotonic()
        about = {
            "log_version": LOG_VERSION,
            "mmc_bench": mmc_bench.__version__,
            "suite": plan.suite.name,
            "host": host,
            "pid": os.getpid(),
            "results": str(results.resolve()),
            "pretrainings": len(plan.pretrainings),
            "cells": len(plan.cells),
            "pairs": len(plan.pairs),
            "jobs": len(jobs),
        }
        self._write("run_started", about)

    def job_started(self, job: Any) -> None:
        """Write who begins."""
        self._write("job_started", _named(job))

    def job_event(self, job: Any, event: dict[str, Any]) -> None:
        """Write an epoch, or a stage or whatever else a job tells, by the name of what it tells first."""
        what = "epoch" if "epoch" in event else next(iter(event), "nothing")
        self._write(what, {"key": job.key, **event})

    def job_finished(self, job: Any, record: dict[str, Any]) -> None:
        """Write the figures of a record."""
        figures = figures_of(record)
        self._write("job_finished", {**_named(job), "seconds_taken": figures.pop("seconds"), "metrics": figures})

    def job_failed(self, job: Any, failure: dict[str, Any]) -> None:
        """Write why."""
        self._write("job_failed", {**_named(job), "error": failure["error"]})

    def job_done_elsewhere(self, job: Any, failure: dict[str, Any] | None) -> None:
        """Write that another run was faster."""
        self._write("job_done_elsewhere", {**_named(job), "error": failure and failure["error"]})

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Write the counts, and close the file."""
        counts = {name: value for name, value in summary.items() if name not in ("seconds", "failures")}
        self._write("run_finished", {**counts, "seconds_taken": summary["seconds"]})
        self._file.close()

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        line = {"time": now, "seconds": round(time.monotonic() - self._opened, 6), "event": event, **_finite(fields)}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()  # the system has it now, and keeps it when this process is killed


def _opened_to_append(path: Path) -> IO[str]:
    """Open a file, in a folder made when need be; a torn last line of it is ended first, and stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
    return path.open("a", encoding="utf-8", newline="\n")


def _named(job: Any) -> dict[str, str]:
    return {"key": job.key, "label": job.label, "kind": kind_of(job)}


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with null for NaN and infinity, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }
