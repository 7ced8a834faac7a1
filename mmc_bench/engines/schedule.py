"""The order of jobs: pretrainings first, then what needs them."""

from collections.abc import Iterator, Sequence

from mmc_bench.results.jobs import Job, Pretraining, models_of


class Schedule:
    """The jobs that are still to start, in the order in which a worker should do them.

    A cell or pair is ready once every pretraining that it needs is done. Those of the model that a worker used last
    come first, since its data is loaded. With several workers, pretrainings, the longest jobs, come before all
    others. One worker alone does what a pretraining makes possible before the next pretraining, so that few models are
    trained in vain when it is stopped.
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
        for other in waiting.values():
            for model in models_of(other):
                self._waiting.get(model.key, {}).pop(other.key, None)
            if succeeded:
                self.add(other)
        return [] if succeeded else list(waiting.values())

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

    def __len__(self) -> int:
        return len(self._pretrainings) + self._left


def pretraining_of(job: Job) -> str:
    """Return the key of the pretraining that a job makes, or needs first."""
    return job.key if isinstance(job, Pretraining) else models_of(job)[0].key
