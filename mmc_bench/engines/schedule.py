"""The order of jobs: pretrainings first, each cell once its pretrained model is there."""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from mmc_bench.cells import Cell, Pretraining
from mmc_bench.engines import Job
from mmc_bench.records import Failure


class Schedule:
    """Hands out jobs that can start.

    A cell is ready when its pretraining is not among the jobs still to do. A worker is given cells of the
    pretrained model it worked on last, whose data it has at hand. Of several workers, each takes a pretraining
    first while there are any: they are the longest jobs. One alone does a pretraining's cells before the next
    pretraining, so that wherever it is stopped, few models were trained whose cells are still to do.
    """

    def __init__(self, jobs: Sequence[Job], workers: int = 1) -> None:
        self._pretrainings_first = workers > 1
        self._pretrainings = deque(job for job in jobs if isinstance(job, Pretraining))
        self._unfinished = {job.key for job in self._pretrainings}
        self._cells = [job for job in jobs if isinstance(job, Cell)]

    def take(self, last_pretraining: str | None = None) -> Job | None:
        """Return a job that can start now, or None."""
        ready = [cell for cell in self._cells if cell.pretraining.key not in self._unfinished]
        same = [cell for cell in ready if cell.pretraining.key == last_pretraining]
        if self._pretrainings and (self._pretrainings_first or not ready):
            return self._pretrainings.popleft()
        if not ready:
            return None
        cell = (same or ready)[0]
        self._cells.remove(cell)
        return cell

    def finished(self, job: Job, succeeded: bool) -> list[Cell]:
        """Note that a job ended; return the cells that can now never run, because their pretraining failed."""
        if not isinstance(job, Pretraining):
            return []
        if succeeded:
            self._unfinished.discard(job.key)
            return []
        blocked = [cell for cell in self._cells if cell.pretraining.key == job.key]
        self._cells = [cell for cell in self._cells if cell.pretraining.key != job.key]
        return blocked

    def __bool__(self) -> bool:
        return bool(self._pretrainings or self._cells)


def pretraining_of(job: Job) -> str:
    """Return the key of the pretraining that a job makes or needs."""
    return job.key if isinstance(job, Pretraining) else job.pretraining.key


def blocked_failure(cell: Cell, cause: Failure) -> Failure:
    """Return the failure of a cell whose pretraining failed."""
    return Failure(
        key=cell.key,
        label=cell.label,
        error=f"its pretraining failed: {cause.error}",
        traceback="",
        started=datetime.now(UTC),
    )
