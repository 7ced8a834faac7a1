"""Cells on this machine: persistent, spawned worker processes, or none and everything in this one."""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from mmc_bench.cells import Job
from mmc_bench.engines import Listener, Outcome, Settings
from mmc_bench.engines.schedule import Schedule, blocked_failure, pretraining_of
from mmc_bench.engines.worker import Worker, fail
from mmc_bench.records import Failure


class InProcessEngine:
    """Does every job in this process, one after the other: for debuggers, and for one small cell."""

    def run(self, jobs: Sequence[Job], settings: Settings, listener: Listener) -> Iterator[Outcome]:
        """Yield the outcome of every job as it ends."""
        schedule, worker, last = Schedule(jobs), Worker(settings), None
        while job := schedule.take(last):
            last = pretraining_of(job)
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results alone
                outcome = worker.attempt(job, listener)
            yield outcome
            yield from _blocked(schedule, outcome)


class LocalEngine:
    """Does jobs in `workers` processes that live as long as the run, so that torch is imported once in each.

    A process that dies takes only its own job with it, and is replaced.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, jobs: Sequence[Job], settings: Settings, listener: Listener) -> Iterator[Outcome]:
        """Yield the outcome of every job as it ends; closing the iterator kills the workers."""
        schedule = Schedule(jobs, self.workers)
        team: list[_Process] = []
        try:
            for _ in range(min(self.workers, len(jobs))):
                team.append(_Process(settings))
            while schedule or any(process.job for process in team):
                for process in team:
                    if process.job is None and (job := schedule.take(process.last_pretraining)):
                        process.give(job)
                busy = {process.connection: process for process in team if process.job}
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    process = busy[connection]
                    outcome = process.receive(listener)
                    if outcome is None:
                        continue
                    if not process.alive:
                        team[team.index(process)] = _Process(settings)
                    yield outcome
                    yield from _blocked(schedule, outcome)
        finally:
            for process in team:
                process.kill()


def _blocked(schedule: Schedule, outcome: Outcome) -> Iterator[Outcome]:
    for job in schedule.finished(outcome.job, succeeded=outcome.failure is None):
        assert outcome.failure is not None
        yield Outcome(job, failure=blocked_failure(job, outcome.failure))


class _Process:
    """A worker process, as its owner sees it."""

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._settings = settings
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, settings), daemon=True)
        with _interrupts_held_back():
            self._process.start()
        theirs.close()
        self.job: Job | None = None
        self.last_pretraining: str | None = None
        self.alive = True
        self._started = datetime.now(UTC)

    def give(self, job: Job) -> None:
        """Send a job to the process."""
        self.job, self.last_pretraining = job, pretraining_of(job)
        self._started = datetime.now(UTC)
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile: `receive` will find out
            self.connection.send(job)

    def receive(self, listener: Listener) -> Outcome | None:
        """Take one message: news goes to the listener; an outcome, or the process's death, is returned."""
        job = self.job
        assert job is not None
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._died(job)
        if isinstance(message, _News):
            listener(job, message.event)
            return None
        self.job = None
        return Outcome(job, record=message.record, failure=message.failure)

    def _died(self, job: Job) -> Outcome:
        self._process.join()
        self.job, self.alive = None, False
        code = self._process.exitcode or 0
        how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        failure = Failure(
            key=job.key,
            label=job.label,
            error=f"its worker process {how}" + (" (out of memory?)" if code == -signal.SIGKILL else ""),
            traceback="",
            started=self._started,
        )
        return fail(job, failure, self._settings)

    def kill(self) -> None:
        """End the process at once; what it was writing never appears under its name."""
        self.connection.close()
        self._process.kill()
        self._process.join()


@dataclass(frozen=True)
class _News:
    event: dict[str, Any]


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Put off Ctrl-C meanwhile; it never reaches a process started here, whose Python would print a traceback."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it lets interrupts through again
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda signum, frame: held.append(signum))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits this
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


class _Talk(io.TextIOWrapper):
    """What plugins print, written where somebody reads it: nobody may be left, as with `| head`."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _work(connection: Connection, settings: Settings) -> None:
    """Run in the worker process: do jobs until the owner hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the owner decides
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    os.dup2(2, 1)  # standard output is for results alone, whatever a plugin prints
    sys.stdout = sys.stderr = _Talk(os.fdopen(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    worker = Worker(settings)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            outcome = worker.attempt(job, lambda job, event: connection.send(_News(event)))
            connection.send(outcome)


def _exit_with_owner() -> None:
    """Leave at once when the owner dies, so that a killed run leaves no process behind."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        wait([owner.sentinel])
        os._exit(1)
