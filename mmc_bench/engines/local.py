"""Cells on this machine: persistent worker processes, or none and everything in this one."""

import contextlib
import gc
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.engines import GIGABYTE, FollowUp, OnEvent, Outcome, Settings, StoppedError, nothing_more, store_of
from mmc_bench.engines.dispatch import PAUSE, Dispatcher
from mmc_bench.engines.gpu_memory import shares
from mmc_bench.engines.schedule import pretraining_of
from mmc_bench.engines.starting import START_UP, Start, spawn, starter
from mmc_bench.engines.worker import Worker
from mmc_bench.results.jobs import Job
from mmc_bench.results.outages import ON_WAIT
from mmc_bench.results.records import Failure
from mmc_bench.system.allocator import keep_freed_memory, return_freed_memory
from mmc_bench.system.process_state import as_if_fresh
from mmc_bench.system.processes import descendants, kill_all

if TYPE_CHECKING:
    from mmc_bench.plugin.registry import Registry

#: Seconds between two checks of workers that send nothing.
TICK = 1.0

#: Exit codes of processes that were ended from outside, by the kernel, a cluster, a person, or may have been.
OUTER_ENDS = (-signal.SIGKILL, -signal.SIGTERM, None)


class InProcessEngine:
    """Does every job in this process, one after the other: for debuggers, and for one small cell.

    Parameters
    ----------
    registry
        As for `Worker`.
    """

    def __init__(self, registry: "Registry | None" = None) -> None:
        self._registry = registry

    def run(
        self, jobs: Sequence[Job], settings: Settings, on_event: OnEvent, follow_up: FollowUp = nothing_more
    ) -> Iterator[Outcome]:
        """Yield the outcome of every job as it ends."""
        worker, last = Worker(settings, self._registry), None
        jobs_of = Dispatcher(jobs, store_of(settings), on_event, follow_up=follow_up)
        with as_if_fresh(), closing(jobs_of) as dispatcher:
            while dispatcher:
                job = dispatcher.take(last)
                if job is not None:
                    last = pretraining_of(job)
                    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results alone
                        outcome = worker.attempt(job, on_event)
                        dispatcher.settle(outcome)
                    if outcome.lost_device:
                        yield from dispatcher.outcomes()
                        raise StoppedError(
                            f"the GPU answers this process no longer after {job.label} failed: "
                            "run the same command again, or with --workers 1, which goes on in a new process"
                        )
                elif dispatcher and not dispatcher.has_outcomes:
                    time.sleep(PAUSE)  # other runs do what is left
                yield from dispatcher.outcomes()


@dataclass(frozen=True)
class Limits:
    """What a job may take before its worker is stopped: seconds, and bytes of memory."""

    seconds: float | None = None
    memory: int | None = None


class LocalEngine:
    """Does jobs in `workers` processes that live as long as the run.

    A process that dies takes only its own job with it, and is replaced; so is one that hangs, or grows without end.

    Parameters
    ----------
    limits
        What a job may take.
    devices
        What the workers are spread over evenly; by default the device of their settings.
    """

    def __init__(self, workers: int, limits: Limits = Limits(), devices: Sequence[str] = ()) -> None:
        self.workers = workers
        self.limits = limits
        self.devices = devices

    def run(
        self, jobs: Sequence[Job], settings: Settings, on_event: OnEvent, follow_up: FollowUp = nothing_more
    ) -> Iterator[Outcome]:
        """Yield the outcome of every job as it ends; closing the iterator kills the workers."""
        if not jobs:
            return
        team: list[Process] = []
        with (
            closing(Dispatcher(jobs, store_of(settings), on_event, self.workers, follow_up)) as dispatcher,
            starter(self.devices or (settings.device,), settings.threads) as start,
        ):
            try:
                yield from self._work_off(dispatcher, team, settings, start, on_event)
            finally:
                for process in team:
                    process.kill()

    def _work_off(
        self, dispatcher: Dispatcher, team: list["Process"], settings: Settings, start: Start, on_event: OnEvent
    ) -> Iterator[Outcome]:
        """Let a team, which grows with the jobs that are open, do all of them."""
        while dispatcher:
            while len(team) < min(self.workers, dispatcher.open_jobs):
                team.append(Process(self._placed(settings, team), start))
            for place, process in enumerate(team):
                if process.job or not (job := dispatcher.take(process.last_pretraining)):
                    continue
                if not process.fit_for_more:
                    process.kill()
                    others = [*team[:place], *team[place + 1 :]]
                    team[place] = process = Process(self._placed(settings, others), start)
                process.give(job)
            yield from dispatcher.outcomes()
            for process in self._with_messages(team):
                if outcome := process.receive(on_event):
                    dispatcher.settle(outcome)
            lost = dispatcher.lost()
            for process in team:
                if process.job in lost:  # this run was suspended, and another one went on with it
                    dispatcher.give_back(process.job)
                    process.kill()
                else:
                    process.enforce(self.limits)
            yield from dispatcher.outcomes()

    def _placed(self, settings: Settings, team: Sequence["Process"]) -> Settings:
        """Return the settings of the next worker: on the device with the fewest, with its share of that."""
        devices = self.devices or (settings.device,)
        on_each = Counter(process.device for process in team)
        device = min(devices, key=lambda name: on_each[name])
        return replace(settings, device=device, gpu_share=shares(devices, self.workers)[device])

    def _with_messages(self, team: Sequence["Process"]) -> list["Process"]:
        """Wait for messages of workers, or until it is time to check their limits."""
        busy = {process.connection: process for process in team if process.job}
        ready = wait(list(busy), timeout=TICK if len(busy) == len(team) else PAUSE)
        return [busy[connection] for connection in ready if isinstance(connection, Connection)]


class Process:
    """A worker process, as the process that started it uses it."""

    def __init__(self, settings: Settings, start: Start = spawn) -> None:
        self._settings = settings
        self.connection, theirs = multiprocessing.Pipe()
        self._process = start(_work, theirs, settings)
        theirs.close()
        self.job: Job | None = None
        self.last_pretraining: str | None = None
        self._started, self._began = datetime.now(UTC), time.monotonic()
        self._waits_since: float | None = None  # for its disk
        self._first_size: int | None = None
        self._spoilt = False
        self._stopped_because: str | None = None

    @property
    def device(self) -> str:
        """The device that it computes on."""
        return self._settings.device

    def give(self, job: Job) -> None:
        """Send a job to the process."""
        self.job, self.last_pretraining = job, pretraining_of(job)
        # Until its first event, it may be importing torch and the plugins, which is not part of the job.
        self._started, self._began = datetime.now(UTC), time.monotonic() + START_UP
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile: `receive` reports that
            self.connection.send(job)

    def receive(self, on_event: OnEvent) -> Outcome | None:
        """Take one message: pass an event to `on_event`, or return an outcome; a process that died has one too."""
        job = self.job
        assert job is not None
        try:
            message: _Event | _Waits | Outcome = self.connection.recv()
        except (EOFError, OSError):  # OSError: it was killed in the middle of a message
            return self._died(job)
        if isinstance(message, _Waits):
            self._began += message.at - (self._waits_since or message.at)  # which is not part of the job
            self._waits_since = message.at if message.begins else None
            return None
        if isinstance(message, _Event):
            self._began = min(self._began, time.monotonic())
            on_event(job, message.event)
            return None
        self.job, self._spoilt = None, message.spoilt or message.lost_device
        if self._first_size is None:
            self._first_size = self._size
        return message

    @property
    def fit_for_more(self) -> bool:
        """Whether the process lives, is what it was, and has not grown far beyond what it had after its first job."""
        if self._spoilt or not self._process.is_alive():
            return False
        return self._first_size is None or self._size < 2 * self._first_size + GIGABYTE

    def enforce(self, limits: Limits) -> None:
        """Stop the process when its job takes more than it may; `receive` reports that."""
        if self.job is None or self._stopped_because or self.connection.poll():  # what it says is read first
            return
        now = self._waits_since or time.monotonic()
        if limits.seconds is not None and now - self._began > limits.seconds:
            self._stopped_because = f"it took longer than --cell-timeout ({limits.seconds / 60:g} minutes)"
        elif limits.memory is not None and self._size > limits.memory:
            self._stopped_because = f"it took more memory than --cell-memory ({limits.memory / GIGABYTE:g} GB)"
        if self._stopped_because:
            self._kill()

    @property
    def _size(self) -> int:
        """Bytes of memory that the process has for itself, mapped files aside; 0 where the system does not say."""
        try:
            resident, shared = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1:3]
        except (OSError, ValueError):
            return 0
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")

    def _died(self, job: Job) -> Outcome:
        self._process.join()
        self.job, self._spoilt = None, True
        code = self._process.exitcode
        if code is None:
            how = "ended, and its exit code is lost"
        else:
            how = f"was killed by signal {_name_of_signal(-code)}" if code < 0 else f"exited with code {code}"
            how += " (out of memory?)" if code == -signal.SIGKILL else ""
        failure = Failure.of(job, self._stopped_because or f"its worker process {how}", self._started)
        return Outcome(job, failure=failure, killed=self._stopped_because is None and code in OUTER_ENDS)

    def kill(self) -> None:
        """End the process at once; what it was writing never appears under its name."""
        self.job = None
        self.connection.close()
        self._kill()
        self._process.join()

    def _kill(self) -> None:
        """Kill the process and those that its plugins started, such as the workers of a DataLoader."""
        # Once it has ended, another process may have its number.
        started = descendants(self._process.pid or 0) if self._process.is_alive() else []
        self._process.kill()
        kill_all(started)


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those that programs give a meaning
        return str(number)


@dataclass(frozen=True)
class _Event:
    event: dict[str, Any]


@dataclass(frozen=True)
class _Waits:
    """The worker begins to wait for its disk, or ends, by the clock that all processes of a machine share."""

    begins: bool
    at: float


class _Output(io.TextIOWrapper):
    """What plugins print; errors are ignored, since the reader may be gone, as with `| head`."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _work(connection: Connection, settings: Settings) -> None:
    """Run in the worker process: do jobs until the owner closes the connection."""
    gc.set_threshold(100_000)  # what torch and plugins define when they are imported holds few cycles to look for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the owner stops its workers
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # of other libraries, and of what plugins start
    os.dup2(2, 1)  # standard output is for results alone, whatever a plugin prints
    sys.stdout = sys.stderr = _Output(os.fdopen(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)
    multiprocessing.current_process().daemon = False  # so that plugins may start processes, as a DataLoader does
    if hasattr(os, "register_at_fork"):  # they do not hold the connection open when this one dies
        os.register_at_fork(after_in_child=connection.close)
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    keep_freed_memory()  # from one step to the next; between jobs, the owner looks at what this process holds
    ON_WAIT.set(lambda begins: connection.send(_Waits(begins, time.monotonic())))
    worker = Worker(settings)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            outcome = worker.attempt(job, lambda job, event: connection.send(_Event(event)))
            return_freed_memory()
            connection.send(outcome)
    kill_all(descendants(os.getpid()))  # this may notice the owner's end before `_exit_with_owner` does


def _exit_with_owner() -> None:
    """Leave at once when the owner dies, so that a killed run leaves no process behind."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        wait([owner.sentinel])
        kill_all(descendants(os.getpid()))
        os._exit(1)
