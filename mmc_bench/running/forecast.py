"""How long a run will still take: from the records at hand, then from the epochs and jobs that it has measured itself.

A job takes as long as the mean of its kind in this run. Before a pretraining has ended, its epochs say how long it
takes. A method that no cell was measured of takes as long as the mean of the others' means, moved half-way towards
`UNMEASURED_CELL` of a pretraining, which alone counts before any cell has ended; its trials take as long as the others'
do. Where only trials of the method were measured, and models were at hand before the run, a cell takes what a trial
does, and its scores and paths besides, or what its epochs say if that is more. Jobs are dealt out to the workers as a
run does it, so that a long one at the end counts in full.
"""

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mmc_bench.results.jobs import Job, Pretraining, models_of
from mmc_bench.running.profile import TRIAL, kind_of_work

PRETRAINING = "pretraining"

#: What a cell takes of a pretraining's time while no cell has been measured.
UNMEASURED_CELL = 0.5

#: How far, as a factor, that still moves what is expected of a method from what others were measured to take.
FARTHEST = 1.5

#: Jobs above which they are not dealt out one by one: by then the last ones hardly count.
MOST_DEALT = 2000


class Forecast:
    """Follows a run, and says how many seconds it will still take.

    Parameters
    ----------
    jobs
        What is to run.
    workers
        How many jobs run at a time; where it is not known, as many as were seen to.
    expected
        Jobs like those that will follow, once what decides them is known; `add` says that some have.
    evaluation
        What scores and paths of a cell take by records of other runs, in seconds, if that is known.
    known
        Seconds by kind of job, from records of other runs, for what this run has not measured, at its pace.
    now
        Returns seconds.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        workers: int | None = None,
        known: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.monotonic,
        expected: Mapping[str, Sequence[Job]] | None = None,
        evaluation: float | None = None,
    ) -> None:
        self._waiting = {job.key: job for job in jobs}
        self._expected = {reason: list(own) for reason, own in (expected or {}).items()}
        for reason, own in self._expected.items():
            self._waiting |= {f"{reason} {place}": job for place, job in enumerate(own)}
        self._kinds = Counter(kind_of_work(job) for job in self._waiting.values())
        self._workers, self._known, self._now, self._evaluation = workers, dict(known or {}), now, evaluation
        self._running: dict[str, _Running] = {}
        self._most = 1
        self._measured: dict[str, list[float]] = defaultdict(list)

    def add(self, jobs: Iterable[Job], reason: str) -> None:
        """Note which jobs follow, in the place of those that were expected for this reason."""
        for place, job in enumerate(self._expected.pop(reason, ())):
            self._kinds[kind_of_work(job)] -= 1
            del self._waiting[f"{reason} {place}"]
        for job in jobs:
            self._waiting[job.key] = job
            self._kinds[kind_of_work(job)] += 1

    def event(self, job: Job, event: Mapping[str, Any]) -> None:
        """Note what a job is doing; its first event starts it."""
        now = self._now()
        if job.key not in self._running:
            self._leave(job)
            self._running[job.key] = _Running(job, now, now)
            self._most = max(self._most, len(self._running))
        running = self._running[job.key]
        epoch = event.get("epoch", 0)
        if epoch == 1:  # loading data and the first steps are no measure of the others
            running.first_epoch_ended = now
        elif epoch > 1:
            of_epoch = (now - running.first_epoch_ended) / (epoch - 1)
            running.epoch_ended, running.left = now, of_epoch * (event["epochs"] - epoch)

    def finished(self, job: Job, measured: bool = True) -> None:
        """Note that a job ended; `measured` says that it was done, and by this run."""
        self._leave(job)
        running = self._running.pop(job.key, None)
        if running and measured:
            self._measured[kind_of_work(job)].append(self._now() - running.began)

    def _leave(self, job: Job) -> None:
        if self._waiting.pop(job.key, None):
            self._kinds[kind_of_work(job)] -= 1

    @property
    def basis(self) -> str:
        """What `seconds` rests on, in words."""
        if any(kind != PRETRAINING for kind in self._measured):
            return "the jobs that ended"
        if any(kind != PRETRAINING for kind in self._known):
            return "the records at hand"
        if PRETRAINING in self._known and PRETRAINING not in {*self._measured, *self._begun()}:
            return "the records at hand; a guess until a cell has ended"
        return "the first epochs; a guess until a cell has ended"

    def seconds(self) -> float | None:
        """Return the seconds that are left, or None while nothing is known."""
        now, usual = self._now(), self._usual()
        waiting = {kind: usual(kind) for kind, number in self._kinds.items() if number}
        running = {key: one.seconds_left(usual(kind_of_work(one.job)), now) for key, one in self._running.items()}
        if None in waiting.values() or None in running.values():
            return None
        of_kind = {kind: seconds or 0.0 for kind, seconds in waiting.items()}
        left = {key: seconds or 0.0 for key, seconds in running.items()}
        workers = max(self._workers or self._most, 1)
        if len(self._waiting) > MOST_DEALT:
            return (sum(self._kinds[kind] * of_kind[kind] for kind in of_kind) + sum(left.values())) / workers
        return _until_all_end([(job, of_kind[kind_of_work(job)]) for job in self._waiting.values()], left, workers)

    def seconds_of(self, job: Job) -> float | None:
        """Return the seconds that a running job will still take, or None while nothing is known of it."""
        if running := self._running.get(job.key):
            return running.seconds_left(self._usual()(kind_of_work(job)), self._now())
        return None

    def _usual(self) -> Callable[[str], float | None]:
        """Return a function that says how long a job of a kind takes, as far as anything is known."""
        begun = self._begun()
        measured = {kind: mean(values) for kind, values in self._measured.items()}
        if PRETRAINING in begun:
            measured.setdefault(PRETRAINING, begun.pop(PRETRAINING))
        both = [kind for kind in measured if self._known.get(kind)]
        pace = sum(measured[kind] for kind in both) / sum(self._known[kind] for kind in both) if both else 1.0
        means = {**{kind: pace * seconds for kind, seconds in self._known.items()}, **measured}
        pretraining = means.pop(PRETRAINING, None)
        guess = None if pretraining is None else UNMEASURED_CELL * pretraining
        seen = mean(means.values()) if means else guess
        cells = cells_after_trials(means, self._evaluation and pace * self._evaluation)
        least = {kind: max(seconds, cells.get(kind, seen or 0.0)) for kind, seconds in begun.items()}
        means = {**cells, **least, **means}

        def unmeasured(trial: bool) -> float | None:
            usual = mean_of_alike(means, trial) if means else guess
            if guess is None or usual is None:
                return usual
            # The methods that are left may be unlike those that ended.
            return (usual + min(max(guess, usual / FARTHEST), usual * FARTHEST)) / 2

        others = {trial: unmeasured(trial) for trial in (False, True)}
        return lambda kind: pretraining if kind == PRETRAINING else means.get(kind, others[kind.endswith(TRIAL)])

    def _begun(self) -> dict[str, float]:
        """Return the seconds of kinds of jobs that run, by their epochs; of a cell they say the least that it takes."""
        found: dict[str, list[float]] = defaultdict(list)
        for one in self._running.values():
            if one.whole is not None:
                found[kind_of_work(one.job)].append(one.whole)
        return {kind: mean(seconds) for kind, seconds in found.items()}


@dataclass
class _Running:
    """A job that runs: when it began, when its first and last epoch ended, and what its epochs still needed then."""

    job: Job
    began: float
    first_epoch_ended: float
    epoch_ended: float = 0.0
    left: float | None = None

    @property
    def whole(self) -> float | None:
        """Seconds of the whole job, by its epochs so far."""
        return None if self.left is None else self.epoch_ended - self.began + self.left

    def seconds_left(self, usual: float | None, now: float) -> float | None:
        """Return the seconds that are left of it: of what its kind takes, and no less than its epochs say."""
        known = [usual - (now - self.began)] if usual is not None else []
        if self.left is not None:
            known.append(self.left - (now - self.epoch_ended))
        return max(0.0, *known) if known else None


def cells_after_trials(means: Mapping[str, float], evaluation: float | None) -> dict[str, float]:
    """Return the seconds of cells of which only trials are known, by kind: trials have no scores and paths."""
    if evaluation is None:
        return {}
    cells = {kind.removesuffix(TRIAL): seconds + evaluation for kind, seconds in means.items() if kind.endswith(TRIAL)}
    return {kind: seconds for kind, seconds in cells.items() if kind not in means}


def mean_of_alike(means: Mapping[str, float], trial: bool) -> float:
    """Return the mean over kinds of trials, or over those of cells; where there are none, over all."""
    alike = [seconds for kind, seconds in means.items() if kind.endswith(TRIAL) == trial]
    return mean(alike or means.values())


def _until_all_end(waiting: list[tuple[Job, float]], running: Mapping[str, float], workers: int) -> float:
    """Return the seconds until all jobs end: each worker takes the next one when it is free, pretrainings first."""
    ends = dict(running)
    free = sorted(running.values()) + [0.0] * (workers - len(running))
    heapq.heapify(free)
    for job, seconds in sorted(waiting, key=lambda one: not isinstance(one[0], Pretraining)):
        ready = max((ends.get(model.key, 0.0) for model in models_of(job)), default=0.0)
        ends[job.key] = max(heapq.heappop(free), ready) + seconds
        heapq.heappush(free, ends[job.key])
    return max(ends.values(), default=0.0)


def in_words(seconds: float) -> str:
    """Return seconds as people say them: ``"40 s"``, ``"12 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
