"""Jobs for the workers of a run that shares its results folder with others: each is leased, done, released."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mmc_bench.engines import FollowUp, OnEvent, Outcome, nothing_more
from mmc_bench.engines.schedule import Schedule
from mmc_bench.results.jobs import Job, Pretraining, models_of
from mmc_bench.results.leases import Leases
from mmc_bench.results.outages import LONGEST_OUTAGE, PASSING
from mmc_bench.results.records import Failure
from mmc_bench.results.store import Store, UnwritableError
from mmc_bench.system.streams import notice

#: Seconds between two checks of a job that another run is doing.
PAUSE = 0.5


class Dispatcher:
    """The jobs of a run, each leased before it is done, and the outcomes of those that other runs did meanwhile.

    An engine calls `take` whenever it can do a job, returns each through `settle` (or `give_back`), yields what
    `outcomes` yields, and continues while the dispatcher is true.

    Parameters
    ----------
    jobs
        What is missing.
    store
        The results folder.
    on_event
        Called with a note when a job is tried again, with the reason.
    workers
        How many jobs the engine does at a time.
    follow_up
        Called with every outcome; returns the jobs that it makes possible, which are done as well.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        store: Store,
        on_event: OnEvent,
        workers: int = 1,
        follow_up: FollowUp = nothing_more,
    ) -> None:
        self._on_event, self._follow_up = on_event, follow_up
        self._schedule = Schedule(jobs, workers)
        self._store = store
        self._leases = Leases(self._store.locks)
        failed = self._store.listing().failures
        self._failed_before = {job.key: self._store.find_failure(job) for job in jobs if job.key in failed}
        self._not_before: dict[str, float] = {}
        self._in_hand: dict[str, Job] = {}
        self._again: set[tuple[str, str]] = set()
        self._trouble_since: float | None = None
        self._outcomes: deque[Outcome] = deque()
        self._failed: dict[str, str] = {}  # pretrainings, with the reason

    def __bool__(self) -> bool:
        return bool(self._schedule or self._in_hand or self._outcomes)

    def take(self, last_pretraining: str | None = None) -> Job | None:
        """Lease and return a job, or None while other runs do all that could start.

        Parameters
        ----------
        last_pretraining
            Key of the pretrained model that the worker used last.

        Raises
        ------
        DiskError
            When no lease can be written, or what other runs did cannot be read.
        """
        while True:
            for job in self._schedule.candidates(last_pretraining):
                if not self._lease(job):
                    continue
                self._schedule.remove(job)
                self._in_hand[job.key] = job
                outcome = self._done_elsewhere(job)
                if outcome is None:
                    return job
                self.settle(outcome)
                if isinstance(job, Pretraining):  # what waited for it may be ready now
                    break
            else:
                return None

    def settle(self, outcome: Outcome) -> None:
        """Take back a job that ended; its outcome, and those of jobs that can now never run, are yielded by `outcomes`.

        A job is done once more when its worker was killed from outside, or when its pretrained weights were damaged or
        gone; these are made again first.
        """
        job = outcome.job
        if outcome.failure is not None and self._to_try_again(outcome):
            self._on_event(job, {"note": f"{outcome.failure.error}; it is tried again"})
            self.give_back(job)
            return
        if outcome.failure is not None and not outcome.elsewhere:
            outcome = self._written(outcome)
        del self._in_hand[job.key]
        self._leases.release(job.key)
        self._outcomes.append(outcome)
        if outcome.failure is not None and isinstance(job, Pretraining):
            self._failed[job.key] = outcome.failure.error
        for further in self._follow_up(outcome):
            self._take_in(further)
        for blocked in self._schedule.finished(job, succeeded=outcome.failure is None):
            assert outcome.failure is not None
            failure = Failure.of(blocked, f"its pretraining failed: {outcome.failure.error}")
            self._outcomes.append(Outcome(blocked, failure=failure))

    def _take_in(self, job: Job) -> None:
        """Take in a job that follows; one whose model failed in this run can never run."""
        if earlier := self._store.find_failure(job):
            self._failed_before[job.key] = earlier
        failed = next((self._failed[model.key] for model in models_of(job) if model.key in self._failed), None)
        if failed is None:
            self._schedule.add(job)
        else:
            self._outcomes.append(Outcome(job, failure=Failure.of(job, f"its pretraining failed: {failed}")))

    def _to_try_again(self, outcome: Outcome) -> bool:
        """Return whether a failed job is to be tried again, and have the models that it lacked made again."""
        causes = {model.key for model in outcome.lost_models} or ({"killed"} if outcome.killed else set())
        tries = {(outcome.job.key, cause) for cause in causes}
        if not tries or tries <= self._again:
            return False
        self._again |= tries
        self._schedule.again(outcome.lost_models)
        return True

    def _written(self, outcome: Outcome) -> Outcome:
        """Write a failure beside the place of the job's record, if the disk allows."""
        assert outcome.failure is not None
        if outcome.stops:  # often the disk's failure
            return outcome
        try:
            self._store.save_failure(outcome.job, outcome.failure)
        except UnwritableError as error:  # a full disk may be the very failure
            return replace(outcome, stops=str(error))
        return outcome

    def give_back(self, job: Job) -> None:
        """Take back a job that was not done, because its machine is lost: it is done again."""
        del self._in_hand[job.key]
        self._schedule.add(job)
        self._leases.release(job.key)

    @property
    def open_jobs(self) -> int:
        """How many jobs are in hand or to do, as far as is known."""
        return len(self._schedule) + len(self._in_hand)

    @property
    def has_outcomes(self) -> bool:
        """Whether `outcomes` has something to yield."""
        return bool(self._outcomes)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield every outcome once: of this run's jobs, and of those that others did."""
        while self._outcomes:
            yield self._outcomes.popleft()

    def lost(self) -> list[Job]:
        """Return the jobs in hand that another run took over, because this one was suspended for too long."""
        return [self._in_hand[key] for key in self._leases.lost() if key in self._in_hand]

    def close(self) -> None:
        """Release every lease."""
        self._leases.close()

    def _lease(self, job: Job) -> bool:
        now = time.monotonic()
        if self._not_before.get(job.key, now) > now:
            return False
        try:
            leased = self._leases.claim(job.key, job.label)
            self._trouble_since = None
        except OSError as error:
            if error.errno in PASSING and self._trouble_since is None:
                notice(f"results folder {self._store.root} cannot be used ({error.strerror}): waiting for it")
            self._trouble_since = self._trouble_since or now
            if error.errno not in PASSING or now - self._trouble_since > LONGEST_OUTAGE:
                with self._store.writing():
                    raise
            leased = False
        if not leased:
            self._not_before[job.key] = now + PAUSE
        return leased

    def _done_elsewhere(self, job: Job) -> Outcome | None:
        """Return how a job ended in another run since this run began, or None when it is still to do."""
        record = self._store.done(job)
        if record is not None:
            return Outcome(job, record=record, elsewhere=True)
        failure = self._store.find_failure(job)
        if failure is not None and failure != self._failed_before.get(job.key):
            return Outcome(job, failure=failure, elsewhere=True)
        return None
