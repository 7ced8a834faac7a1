"""The order of jobs: pretrainings first, what needs them once the pretrained models are there."""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from mmc_bench.cells import Job, Pretraining, models_of
from mmc_bench.records import Failure


class Schedule:
    """Hands out jobs that can start.

    A cell or pair is ready when no pretraining that it needs is among the jobs still to do. A worker is given
    those of the pretrained model it worked on last, whose data it has at hand. Of several workers, each takes a
    pretraining first while there are any: they are the longest jobs. One alone does what a pretraining makes
    possible before the next pretraining, so that wherever it is stopped, few models were trained in vain.
    """

    def __init__(self, jobs: Sequence[Job], workers: int = 1) -> None:
        self._pretrainings_first = workers > 1
        self._pretrainings = deque(job for job in jobs if isinstance(job, Pretraining))
        self._unfinished = {job.key for job in self._pretrainings}
        self._others = [job for job in jobs if not isinstance(job, Pretraining)]

    def take(self, last_pretraining: str | None = None) -> Job | None:
        """Return a job that can start now, or None."""
        ready = [job for job in self._others if not self._unfinished & _needed(job)]
        same = [job for job in ready if pretraining_of(job) == last_pretraining]
        if self._pretrainings and (self._pretrainings_first or not ready):
            return self._pretrainings.popleft()
        if not ready:
            return None
        job = (same or ready)[0]
        self._others.remove(job)
        return job

    def finished(self, job: Job, succeeded: bool) -> list[Job]:
        """Note that a job ended; return those that can now never run, because their pretraining failed."""
        if not isinstance(job, Pretraining):
            return []
        if succeeded:
            self._unfinished.discard(job.key)
            return []
        blocked: list[Job] = [other for other in self._others if job.key in _needed(other)]
        self._others = [other for other in self._others if job.key not in _needed(other)]
        return blocked

    def __bool__(self) -> bool:
        return bool(self._pretrainings or self._others)


def pretraining_of(job: Job) -> str:
    """Return the key of the pretraining that a job makes, or needs first."""
    return job.key if isinstance(job, Pretraining) else models_of(job)[0].key


def blocked_failure(job: Job, cause: Failure) -> Failure:
    """Return the failure of a job whose pretraining failed."""
    return Failure(
        key=job.key,
        label=job.label,
        error=f"its pretraining failed: {cause.error}",
        traceback="",
        started=datetime.now(UTC),
    )


def _needed(job: Job) -> set[str]:
    return {pretraining.key for pretraining in models_of(job)}
