"""What people see of a run on stderr: live bars on a terminal, one line a cell elsewhere."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mmc_bench.cells import Cell
from mmc_bench.engines import Job, Outcome
from mmc_bench.runner import Summary

STAGE_WIDTH = 9


def make_console() -> "LineConsole":
    """Return the console that suits stderr."""
    return LiveConsole() if sys.stderr.isatty() else LineConsole()


class LineConsole:
    """Prints one line for every job that ends."""

    def __init__(self) -> None:
        self._total = self._done = 0

    def __enter__(self) -> "LineConsole":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def started(self, jobs: list[Job]) -> None:
        """Note how many jobs there are."""
        self._total = len(jobs)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Say nothing of what a job is doing."""

    def finished(self, outcome: Outcome) -> None:
        """Print the job's line."""
        self._done += 1
        width = len(str(self._total))
        self._print(f"[{self._done:{width}}/{self._total}] {describe(outcome)}")

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._print(f"mmc-bench: {message}")

    def _print(self, line: str) -> None:
        click.echo(line, err=True)


class LiveConsole(LineConsole):
    """Adds live bars below those lines: all jobs, and each running one with its stage, epoch and speed."""

    def __init__(self) -> None:
        super().__init__()
        self._console = RichConsole(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
        )
        self._all: TaskID | None = None
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> "LiveConsole":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def started(self, jobs: list[Job]) -> None:
        """Draw the bar of all jobs."""
        super().started(jobs)
        self._all = self._progress.add_task("all cells", total=len(jobs), note="")

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Draw or move the bar of a running job."""
        if job.key not in self._running:
            self._running[job.key] = self._progress.add_task(job.label, total=None, note="")
        task = self._running[job.key]
        if "stage" in event:
            self._progress.reset(task, total=None, note=f"{event['stage']:{STAGE_WIDTH}}")
        else:
            note = f"loss {event['loss']:.3f} · {event['images_per_second']:,.0f} images/s"
            self._progress.update(task, completed=event["epoch"], total=event["epochs"], note=note)

    def finished(self, outcome: Outcome) -> None:
        """Print the job's line and take its bar away."""
        if task := self._running.pop(outcome.job.key, None):
            self._progress.remove_task(task)
        super().finished(outcome)
        if self._all is not None:
            self._progress.advance(self._all)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def describe(outcome: Outcome) -> str:
    """Return a job's result as one line."""
    if outcome.record is None:
        assert outcome.failure is not None
        return f"{outcome.job.label}: FAILED: {outcome.failure.error}"
    splits = ("NC", "C", "RC", "RI")
    scores = "  ".join(f"{name} {100 * getattr(outcome.record.metrics, name).accuracy:5.1f}" for name in splits)
    seconds = sum(outcome.record.timing.seconds.values())
    name = outcome.job.label if isinstance(outcome.job, Cell) else f"{outcome.job.label} · pretraining"
    return f"{name}:  {scores}  ({seconds:.0f} s)"


def closing_line(summary: Summary, results: Path) -> None:
    """Print how the run went, and each failure once more."""
    parts = [f"{summary.computed} computed", f"{summary.cached} cached"]
    if summary.failed:
        parts.append(f"{summary.failed} failed")
    left = summary.cells - summary.computed - summary.cached - summary.failed
    if left > 0:
        parts.append(f"{left} not run")
    click.echo(
        f"{'interrupted: ' if summary.interrupted else ''}{summary.cells} cells: {', '.join(parts)} "
        f"in {summary.seconds:.0f} s; records in {results}/",
        err=True,
    )
    for failure in summary.failures:
        click.echo(f"  failed: {failure.label}: {failure.error}", err=True)
