"""Cells on a Ray cluster: workers on the nodes that have room for them, each held by an actor.

An actor keeps a worker process just as the local engine does, so that cells are computed, limited and reported in the
same way. The actor itself loads no torch: it holds the share of its node that the worker uses, and outlives it. The
loss of an actor is thus no failure of a cell: the job is done again elsewhere, and another actor is requested.
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
import ray._private.worker
from ray.exceptions import OutOfMemoryError, RayError

from mmc_bench.engines import FollowUp, OnEvent, Outcome, Settings, StoppedError, nothing_more, store_of
from mmc_bench.engines.dispatch import PAUSE, Dispatcher
from mmc_bench.engines.local import TICK, Limits, Process
from mmc_bench.engines.schedule import pretraining_of
from mmc_bench.errors import UserError, message_of
from mmc_bench.results.jobs import Job
from mmc_bench.results.records import Failure
from mmc_bench.results.versions import core_digest
from mmc_bench.system.processes import available_cores

#: Seconds between two checks of how many workers the cluster has room for.
LOOK = 5.0

#: Seconds without any worker until the run reports that it waits for one.
SILENCE = 20.0

#: Seconds that a cluster with no node of the wanted size is given to get one.
LONGEST_WAIT = 120.0

#: As often, a job may be lost with its worker, and workers may fail to start in succession.
MOST_LOSSES = 3

#: Bytes of the object store of a cluster that a run starts for itself: only events and records pass through it.
OBJECT_STORE = 100 << 20


@dataclass(frozen=True)
class Share:
    """What one worker takes of its node: CPUs, and a GPU or less."""

    cpus: float = 1.0
    gpus: float = 0.0

    def room(self, node: dict[str, float]) -> int:
        """Return how many workers a node with these resources has room for when nothing else is on it."""
        count = math.floor(node.get("CPU", 0) / self.cpus + 1e-9)
        if self.gpus:
            count = min(count, int(node.get("GPU", 0)) * math.floor(1 / self.gpus + 1e-9))
        return count

    def __str__(self) -> str:
        cpus = f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"
        return f"{cpus} and {self.gpus:g} GPU{'' if self.gpus == 1 else 's'}" if self.gpus else cpus


class RayEngine:
    """Does jobs on a Ray cluster, or on one that is started on this machine for the run.

    Parameters
    ----------
    workers
        How many jobs are done at a time; as many as the cluster has room for unless given.
    share
        What a worker takes of its node.
    address
        Of a cluster that is there: ``"host:port"``, or ``"auto"`` for that of this machine; else one is started.
    limits
        What a job may take.
    """

    def __init__(
        self,
        workers: int | None = None,
        share: Share = Share(),
        address: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if address:
            _check_reachable(address)
        self.workers = workers
        self.share = share
        self.address = address
        self.limits = limits or Limits()

    def run(
        self, jobs: Sequence[Job], settings: Settings, on_event: OnEvent, follow_up: FollowUp = nothing_more
    ) -> Iterator[Outcome]:
        """Yield the outcome of every job as it ends; closing the iterator kills the workers.

        Raises
        ------
        UserError
            When there is no cluster at the address, or this machine alone is too small for a worker.
        StoppedError
            When no node offers what a worker takes, or workers cannot start.
        """
        with _connected(self.address):
            room = _room(self.share)
            if not room and not self.address:
                raise UserError(
                    f"this machine does not offer {self.share} for a worker: lower --cpus-per-cell or --gpus-per-cell, "
                    "or give the --address of a cluster"
                )
            dispatcher = Dispatcher(jobs, store_of(settings), on_event, self.workers or room, follow_up)
            team = _Team(self, jobs, settings, dispatcher, on_event)
            with closing(dispatcher), closing(team):
                while dispatcher:
                    team.fill()
                    for member in team.idle:
                        if job := dispatcher.take(member.last_pretraining):
                            member.give(job)
                    yield from dispatcher.outcomes()
                    for member in team.with_messages():
                        team.receive_from(member)
                    team.stop(dispatcher.lost())  # this run was suspended, and another one went on with them
                    yield from dispatcher.outcomes()


class _Team:
    """The workers of a run: as many as fit, those that are lost replaced."""

    def __init__(
        self,
        engine: RayEngine,
        jobs: Sequence[Job],
        settings: Settings,
        dispatcher: Dispatcher,
        on_event: OnEvent,
    ) -> None:
        self._engine, self._jobs, self._settings = engine, jobs, settings
        self._dispatcher, self._on_event = dispatcher, on_event
        self._members: list[_Member] = []
        self._room = 0
        self._next_look = self._last_seen = time.monotonic()
        self._has_said_that_it_waits = False
        self._false_starts = 0
        self._losses: Counter[str] = Counter()

    @property
    def idle(self) -> list["_Member"]:
        """The workers that are there and have nothing to do."""
        return [member for member in self._members if member.host and not member.job]

    def fill(self) -> None:
        """Ask for the workers that are missing; Ray places each as soon as some node has room for it.

        Raises
        ------
        StoppedError
            When none is there, and no node could ever take one.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK
            self._room = _room(self._engine.share)
            wanted = min(self._engine.workers or self._room or 1, self._dispatcher.open_jobs)
            for _ in range(wanted - len(self._members)):
                self._members.append(_Member(self._engine, self._settings))
        if any(member.host for member in self._members):
            self._last_seen, self._has_said_that_it_waits = now, False
        elif now - self._last_seen > LONGEST_WAIT and not self._room:
            raise StoppedError(
                f"no node of the Ray cluster offers {self._engine.share} for a worker: lower what a cell takes"
            )
        elif now - self._last_seen > SILENCE and not self._has_said_that_it_waits:
            self._has_said_that_it_waits = True
            self._on_event(
                self._jobs[0], {"note": f"waits for a node of the Ray cluster with {self._engine.share} free"}
            )

    def with_messages(self) -> list["_Member"]:
        """Wait for a message of a worker, or until it is time to look for room."""
        awaited = {member.awaited: member for member in self._members if member.awaited is not None}
        if not awaited:
            time.sleep(PAUSE)  # other runs do what is left
            return []
        ready, _ = ray.wait(list(awaited), timeout=PAUSE if self.idle else TICK)
        return [awaited[reference] for reference in ready]

    def receive_from(self, member: "_Member") -> None:
        """Take one message; the loss of the worker is one too.

        Raises
        ------
        StoppedError
            When workers cannot start.
        """
        try:
            outcome = member.receive(self._on_event)
        except RayError as error:
            self._lose(member, error)
            return
        self._false_starts = 0
        if outcome:
            self._dispatcher.settle(outcome)

    def _lose(self, member: "_Member", error: RayError) -> None:
        job = member.job
        self._dismiss(member)
        if member.host is None:
            self._false_starts += 1
            if self._false_starts == MOST_LOSSES:
                raise StoppedError(f"workers cannot start on the Ray cluster: {_last_line(error)}")
        if job is None:
            return
        self._losses[job.key] += 1
        short = isinstance(error, OutOfMemoryError)
        how = f"its worker on {member.host} was {'stopped by Ray, for want of memory' if short else 'lost'}"
        if self._losses[job.key] < MOST_LOSSES:
            self._on_event(job, {"note": f"{how}; it is done again elsewhere"})
            self._dispatcher.give_back(job)
        else:
            how = f"{how}, the last of {MOST_LOSSES}: {_last_line(error)}"
            self._dispatcher.settle(Outcome(job, failure=Failure.of(job, how, member.started)))

    def stop(self, jobs: Sequence[Job]) -> None:
        """Do jobs no longer."""
        for member in list(self._members):
            if member.job and member.job in jobs:
                self._dispatcher.give_back(member.job)
                self._dismiss(member)

    def _dismiss(self, member: "_Member") -> None:
        self._members.remove(member)
        member.kill()
        self._next_look = time.monotonic()

    def close(self) -> None:
        """Kill every worker."""
        for member in self._members:
            member.kill()


class _Member:
    """A worker somewhere on the cluster, as the run uses it: requested, then started, with a job or without."""

    def __init__(self, engine: RayEngine, settings: Settings) -> None:
        passed_on = {name: text for name, text in os.environ.items() if name.startswith("MMC_BENCH_")}
        options = {"num_cpus": engine.share.cpus, "num_gpus": engine.share.gpus, "scheduling_strategy": "SPREAD"}
        host: Any = ray.remote(_Host)
        self._host = host.options(**options, max_restarts=0, max_task_retries=0).remote(
            settings, engine.limits, {**passed_on, "OMP_NUM_THREADS": str(settings.threads)}
        )
        self.awaited: Any = self._host.greet.remote()
        self.host: str | None = None
        self.job: Job | None = None
        self.last_pretraining: str | None = None
        self.started = datetime.now(UTC)

    def give(self, job: Job) -> None:
        """Send a job to the worker."""
        self.job, self.last_pretraining, self.started = job, pretraining_of(job), datetime.now(UTC)
        self.awaited = self._host.attempt.options(num_returns="streaming").remote(job)

    def receive(self, on_event: OnEvent) -> Outcome | None:
        """Take the message that is there: pass events to `on_event`, or return an outcome.

        Raises
        ------
        ray.exceptions.RayError
            When the worker is lost.
        StoppedError
            When its node would compute something else under the same keys.
        """
        if self.host is None:
            host, version = ray.get(self.awaited)
            if version != core_digest():
                raise StoppedError(
                    f"node {host} has mmc-bench {version}, this machine {core_digest()}: install the same everywhere"
                )
            self.host, self.awaited = host, None
            return None
        message = ray.get(next(self.awaited))
        if isinstance(message, Outcome):
            self.job = self.awaited = None
            return message
        assert self.job is not None
        for event in message:
            on_event(self.job, event)
        return None

    def kill(self) -> None:
        """End the worker at once, or no longer ask for it."""
        ray.kill(self._host)


class _Host:
    """The actor: keeps a worker process on its node, and passes on its messages."""

    def __init__(self, settings: Settings, limits: Limits, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self._settings, self._limits = settings, limits
        self._process = Process(settings)

    def greet(self) -> tuple[str, str]:
        """Return the node's name, and the version of the core that it computes with."""
        return socket.gethostname(), core_digest()

    def attempt(self, job: Job) -> Iterator[list[dict[str, Any]] | Outcome]:
        """Do a job; yield its events as they come, and its outcome at last."""
        if not self._process.fit_for_more:
            self._process.kill()
            self._process = Process(self._settings)
        self._process.give(job)
        outcome = None
        while outcome is None:
            events: list[dict[str, Any]] = []
            if self._process.connection.poll(TICK):
                outcome = self._process.receive(lambda job, event: events.append(event))  # noqa: B023
            self._process.enforce(self._limits)
            if events:
                yield events
        yield outcome


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at an address, or to one of this machine alone, with Ray's log silenced.

    Raises
    ------
    UserError
        When there is none, or it cannot be started.
    """
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.CRITICAL}
    if not address:
        options |= {"num_cpus": available_cores(), "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run sends no usage statistics
    # Errors of a cluster would be printed on standard output, a hundred lines each, whatever `log_to_driver` says.
    ray._private.worker._worker_logs_enabled = False
    on_terminate = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler there
    try:
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            place = f"at {address} " if address else ""
            # Only with "auto" does Ray find out by itself that a cluster asks for a token.
            hint = "" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token"
            raise UserError(f"no Ray cluster {place}can be used ({message_of(error)[:500]}){hint}") from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Check that something listens at the address: Ray itself takes a minute, and fills the screen."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdecimal() or "/" in host:
        raise UserError(f"--address {address}: write host:port, as `ray start --head` prints it, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: nothing answers there ({message_of(error)})") from None


def _room(share: Share) -> int:
    """Return how many workers the nodes of the cluster have room for when nothing else is on them."""
    nodes: list[dict[str, Any]] = ray.nodes()
    return sum(share.room(node["Resources"]) for node in nodes if node["Alive"])


def _last_line(error: RayError) -> str:
    """Return the last line of a Ray error, which has the message of its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
