"""Where the time of a run went: seconds by part, of its pretrainings and of each method's cells."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmc_bench.results.jobs import Cell, Job, Trial, kind_of
from mmc_bench.system.parts import PARTS

if TYPE_CHECKING:
    from mmc_bench.results.making import Timing

#: The row that sums up all others.
ALL = "all"

#: What a method's trials are called after its name.
TRIAL = " (trial)"


class Profile:
    """The timings of jobs, gathered by kind: pretrainings, pairs, and the cells of each method."""

    def __init__(self) -> None:
        self._timings: dict[str, list[Timing]] = defaultdict(list)

    def add(self, job: Job, timing: Timing) -> None:
        """Take in the timing of a job that was done."""
        self._timings[kind_of_work(job)].append(timing)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return a row for each kind of job and one for all.

        Each has the ``kind``, the number of ``jobs``, their total ``seconds``, of which in ``parts``, and the means of
        ``images_per_second`` and ``share_of_peak`` over those that measured it, or None.
        """
        rows = [_row(kind, timings) for kind, timings in self._timings.items()]
        every = [timing for timings in self._timings.values() for timing in timings]
        return [*rows, {**_row(ALL, every), "images_per_second": None, "share_of_peak": None}] if rows else []

    def __str__(self) -> str:
        """The rows as a Markdown table; parts that took no time have no column."""
        from tabulate import tabulate

        rows = self.as_dicts()
        if not rows:
            return "nothing ran: there is no time to show"
        parts = [part for part in rows[-1]["parts"] if rows[-1]["parts"][part] >= 0.05]
        headers = ["seconds of", "jobs", *parts, "sum", "images/s", "of the peak"]
        cells = [_cells(row, parts) for row in rows]
        sides = ("left", *["right"] * (len(headers) - 1))
        return tabulate(cells, headers, tablefmt="pipe", disable_numparse=True, colalign=sides)


def kind_of_work(job: Job) -> str:
    """Return what jobs that take about as long have in common: the method of a cell or trial, or ``pretraining``."""
    if isinstance(job, Trial):
        return job.method.name + TRIAL
    return job.method.name if isinstance(job, Cell) else kind_of(job)


def _row(kind: str, timings: Sequence[Timing]) -> dict[str, Any]:
    seconds: Counter[str] = Counter()
    for timing in timings:
        seconds.update(timing.parts)
    return {
        "kind": kind,
        "jobs": len(timings),
        "seconds": sum(seconds.values()),
        "parts": {part: seconds[part] for part in (*PARTS, *sorted({*seconds} - {*PARTS})) if part in seconds},
        "images_per_second": _mean([timing.images_per_second for timing in timings]),
        "share_of_peak": _mean([timing.share_of_peak for timing in timings]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _cells(row: dict[str, Any], parts: Sequence[str]) -> list[str]:
    rate, share = row["images_per_second"], row["share_of_peak"]
    return [
        row["kind"],
        str(row["jobs"]),
        *(f"{row['parts'].get(part, 0.0):.1f}" for part in parts),
        f"{row['seconds']:.1f}",
        "" if rate is None else f"{rate:,.0f}",
        "" if share is None else f"{share:.0%}",
    ]
