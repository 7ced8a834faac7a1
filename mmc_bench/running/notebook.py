"""A run in a notebook: one bar that is drawn anew as jobs end, with what runs at the moment below it."""

import time
import warnings
from html import escape
from pathlib import Path
from typing import Any, Self

from IPython.display import HTML, display  # there wherever this module is used

from mmc_bench.engines import Outcome
from mmc_bench.results.jobs import Job
from mmc_bench.running.lines import LineDisplay, closing_lines
from mmc_bench.running.summary import Summary

#: Seconds between two drawings, at least.
PAUSE = 0.3

warnings.filterwarnings("ignore", message="IProgress not found")  # of a library that draws no bar here


class NotebookDisplay(LineDisplay):
    """Shows a bar for the suite, a line for each running job and each that failed, and the last one that ended."""

    def __init__(self, suite: str) -> None:
        super().__init__(self._keep)
        self._suite = suite
        self._last = ""
        self._head: list[str] = []
        self._warnings: list[str] = []
        self._running: dict[str, str] = {}
        self._drawn = 0.0
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._running.clear()
        self._draw(at_once=True)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Show the stage or epoch of a running job."""
        super().event(job, event)
        if "stage" in event:
            self._running[job.key] = f"{self.label_of(job)}: {event['stage']}"
        elif "epoch" in event:
            epoch = f"epoch {event['epoch']} of {event['epochs']}, loss {event['loss']:.3f}"
            self._running[job.key] = f"{self.label_of(job)}: {epoch}"
        self._draw()

    def finished(self, outcome: Outcome) -> None:
        """Move the bar on."""
        self._running.pop(outcome.job.key, None)
        super().finished(outcome)
        if outcome.failure is not None:
            self._warnings.append(f"failed: {outcome.job.label}: {outcome.failure.error}")
        self._draw()

    def announce(self, line: str) -> None:
        """Show what the run is going to do above what runs."""
        self._head.append(line)
        self._open()
        self._draw(at_once=True)

    def warn(self, message: str) -> None:
        """Show a warning for good."""
        self._warnings.append(message)
        self._draw()

    def close(self, summary: Summary, results: Path) -> None:
        """Show how the run went in the place of the bar."""
        if self._handle is None:  # nothing was to run
            display(HTML(_lines(closing_lines(summary, results))))
            return
        failures = {f"failed: {failure.label}: {failure.error}" for failure in summary.failures}
        warnings = [warning for warning in self._warnings if warning not in failures]
        self._handle.update(HTML(_lines([*warnings, *closing_lines(summary, results)])))

    def _open(self) -> None:
        self._handle = self._handle or display(HTML(self._content()), display_id=True)

    def _keep(self, line: str) -> None:
        self._last = line

    def _draw(self, at_once: bool = False) -> None:
        if self._handle is not None and (at_once or time.monotonic() - self._drawn > PAUSE):
            self._drawn = time.monotonic()
            self._handle.update(HTML(self._content()))

    def _content(self) -> str:
        bar = f'<progress value="{self._done}" max="{max(1, self._total)}"></progress>'
        head = f"suite {escape(self._suite)} {bar} {self._done} of {self._total}"
        return f"<div>{head}</div>" + _lines([*self._head, *self._warnings, *self._running.values(), self._last])


def _lines(lines: list[str]) -> str:
    shown = "".join(f"<div>{escape(line)}</div>" for line in lines if line)
    return f'<div style="font-family: monospace; white-space: pre-wrap">{shown}</div>'
