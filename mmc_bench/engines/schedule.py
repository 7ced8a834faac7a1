"""The order of jobs: pretrainings first, what needs them once the pretrained models are there."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from mmc_bench.results.jobs import Job, Pretraining, models_of
from mmc_bench.results.records import Failure


class Schedule:
    """Keeps the jobs that are still to start, and says which can.

    A cell or pair is ready when no pretraining that it needs is among the jobs still to do. A worker is offered
    those of the pretrained model it worked on last, whose data it has at hand. Of several workers, each is offered
    pretrainings first while there are any: they are the longest jobs. One alone does what a pretraining makes
    possible before the next pretraining, so that wherever it is stopped, few models were trained in vain.
    """

    def __init__(self, jobs: Sequence[Job], workers: int = 1) -> None:
        self._pretrainings_first = workers > 1
        self._pretrainings = {job.key: job for job in jobs if isinstance(job, Pretraining)}
        self._unfinished = set(self._pretrainings)
        self._waiting: dict[str, dict[str, Job]] = {}  # by each pretraining that is missing
        self._ready: dict[str, dict[str, Job]] = {}  # by the model that they are of
        self._left = 0
        for job in jobs:
            if not isinstance(job, Pretraining):
                self.add(job)

    def add(self, job: Job) -> None:
        """Take a job in, or back."""
        if isinstance(job, Pretraining):
            self._pretrainings[job.key] = job
            return
        self._left += 1
        missing = self._unfinished & {model.key for model in models_of(job)}
        for key in missing:
            self._waiting.setdefault(key, {})[job.key] = job
        if not missing:
            self._ready.setdefault(pretraining_of(job), {})[job.key] = job

    def candidates(self, last_pretraining: str | None = None) -> Iterator[Job]:
        """Yield the jobs that can start now, the best one for a worker first; see `remove`."""
        pretrainings = list(self._pretrainings.values())
        if self._pretrainings_first:
            yield from pretrainings
        first = self._ready.get(last_pretraining or "")
        yield from list((first or {}).values())
        for group in list(self._ready.values()):
            if group is not first:
                yield from list(group.values())
        if not self._pretrainings_first:
            yield from pretrainings

    def remove(self, job: Job) -> None:
        """Take out a candidate, because a worker does it."""
        if isinstance(job, Pretraining):
            del self._pretrainings[job.key]
            return
        model = pretraining_of(job)
        del self._ready[model][job.key]
        if not self._ready[model]:
            del self._ready[model]
        self._left -= 1

    def finished(self, job: Job, succeeded: bool) -> list[Job]:
        """Note that a job ended; return those that can now never run, because their pretraining failed."""
        if not isinstance(job, Pretraining):
            return []
        self._unfinished.discard(job.key)
        waiting = self._waiting.pop(job.key, {})
        self._left -= len(waiting)
        if succeeded:
            for other in waiting.values():
                self._drop_waiting(other)
                self.add(other)
            return []
        for other in waiting.values():
            self._drop_waiting(other)
        return list(waiting.values())

    def again(self, models: Sequence[Pretraining]) -> None:
        """Do pretrainings again that were done, before the jobs that need them."""
        for model in models:
            if model.key not in self._unfinished:
                self._unfinished.add(model.key)
                self._pretrainings[model.key] = model
        ready = [job for group in self._ready.values() for job in group.values()]
        for job in ready:
            if any(model.key in self._unfinished for model in models_of(job)):
                self.remove(job)
                self.add(job)

    def _drop_waiting(self, job: Job) -> None:
        for model in models_of(job):
            self._waiting.get(model.key, {}).pop(job.key, None)

    def __bool__(self) -> bool:
        return bool(self._pretrainings or self._left)


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
