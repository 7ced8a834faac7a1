"""A run on a terminal: bars for the suite and for each running job, below the lines of those that ended."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from mmc_bench.engines import Outcome
from mmc_bench.results.jobs import Job
from mmc_bench.running.forecast import Forecast, in_words
from mmc_bench.running.lines import LineDisplay

STAGE_WIDTH = 9


class TimeLeft(ProgressColumn):
    """How long a task will still take, counted down from its field ``ends``, a time of `time.monotonic`, if any."""

    def render(self, task: Task) -> Text:
        """Return it in words."""
        ends = task.fields.get("ends")
        return Text("" if ends is None else f"{in_words(max(0.0, ends - time.monotonic()))} left")


class TerminalDisplay(LineDisplay):
    """Adds live bars below those lines: all jobs, and each running one with its stage, epoch and speed."""

    def __init__(self, suite: str) -> None:
        super().__init__()
        self._suite = suite
        self._console = RichConsole(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeLeft(Column(no_wrap=True)),
            console=self._console,
            transient=True,
        )
        self._all: TaskID | None = None
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError):  # here and below: a terminal that is gone stops no run
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._progress.stop()

    def started(self, jobs: list[Job], forecast: Forecast | None = None) -> None:
        """Draw the bar of the whole suite."""
        super().started(jobs, forecast)
        with contextlib.suppress(OSError, ValueError):
            self._all = self._progress.add_task(f"suite {self._suite}", total=len(jobs), note="")
            self._show_time(self._all, self._forecast.seconds())

    def added(self, jobs: Sequence[Job], reason: str) -> None:
        """Make the bar of the whole suite longer."""
        super().added(jobs, reason)
        if self._all is not None:
            with contextlib.suppress(OSError, ValueError):
                self._progress.update(self._all, total=self._total)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Draw or move the bar of a running job; every stage starts a new one."""
        super().event(job, event)
        with contextlib.suppress(OSError, ValueError):
            self._draw(job, event)
            self._show_time(self._running.get(job.key), self._forecast.seconds_of(job))
            self._show_time(self._all, self._forecast.seconds())

    def _draw(self, job: Job, event: dict[str, Any]) -> None:
        if "stage" in event:
            if task := self._running.pop(job.key, None):
                self._progress.remove_task(task)
            note = f"{event['stage']:{STAGE_WIDTH}}"
            self._running[job.key] = self._progress.add_task(self.label_of(job), total=None, note=note)
        elif "epoch" in event and (task := self._running.get(job.key)):
            note = f"loss {event['loss']:.3f} · {event['images_per_second']:,.0f} images/s"
            self._progress.update(task, completed=event["epoch"], total=event["epochs"], note=note)

    def finished(self, outcome: Outcome) -> None:
        """Print the job's line and take its bar away."""
        if task := self._running.pop(outcome.job.key, None):
            self._progress.remove_task(task)
        super().finished(outcome)
        if self._all is not None:
            with contextlib.suppress(OSError, ValueError):
                self._progress.advance(self._all)
                self._show_time(self._all, self._forecast.seconds())

    def _show_time(self, task: TaskID | None, seconds: float | None) -> None:
        if task is not None and seconds is not None:
            self._progress.update(task, ends=time.monotonic() + seconds)

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._console.print(line, markup=False, soft_wrap=True)
