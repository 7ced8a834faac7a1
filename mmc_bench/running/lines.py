"""What is shown of a run while it goes on: one line a job, and closing lines."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mmc_bench.engines import Outcome
from mmc_bench.results.jobs import Cell, Job
from mmc_bench.results.metrics import SPLITS, GroupMetrics, Metrics
from mmc_bench.results.records import TRIAL_GROUPS, PairRecord, TrialRecord
from mmc_bench.running.forecast import Forecast, in_words
from mmc_bench.running.summary import Summary
from mmc_bench.system.streams import tell


class LineDisplay:
    """Shows a run, as a context manager around it: prints one line for every job that ends.

    Parameters
    ----------
    write
        Takes a line; on stderr unless given.
    """

    def __init__(self, write: Callable[[str], object] = tell) -> None:
        self._write = write
        self._total = self._done = 0
        self._forecast = Forecast(())
        self._told = False
        self._said: set[str] = set()
        self._note_of: Callable[[Job], str] = lambda job: ""
        self._scored_again: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def announce(self, line: str) -> None:
        """Say what the run is going to do."""
        self._print(f"mmc-bench: {line}")

    def add_notes(self, note_of: Callable[[Job], str], scored_again: frozenset[str] = frozenset()) -> None:
        """Add to the labels of jobs what tells them apart, and say which keep their records but for predictions."""
        self._note_of, self._scored_again = note_of, scored_again

    def started(self, jobs: list[Job], forecast: Forecast | None = None) -> None:
        """Note how many jobs there are, and what says how long they take."""
        self._total = len(jobs)
        self._forecast = forecast or Forecast(jobs)
        self._tell_time()

    def added(self, jobs: Sequence[Job], reason: str) -> None:
        """Note further jobs, in the place of those that were expected for a reason."""
        self._total += len(jobs)
        self._forecast.add(jobs, reason)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Print what is out of the ordinary, and how long the run will take once something was measured."""
        self._forecast.event(job, event)
        self._tell_time()
        if "note" in event and not (event.get("once") and event["note"] in self._said):
            self._said.add(event["note"])
            self.warn(f"{self.label_of(job)}: {event['note']}")

    def label_of(self, job: Job) -> str:
        """Return a job in one line for people."""
        return job.label + self._note_of(job)

    def finished(self, outcome: Outcome) -> None:
        """Print the job's line."""
        self._done += 1
        self._total = max(self._total, self._done)  # a model whose weights were lost is one more
        self._forecast.finished(outcome.job, outcome.record is not None and not outcome.elsewhere)
        width = len(str(self._total))
        left = self._forecast.seconds() if self._done < self._total else None
        left_in_words = "" if left is None else f"; about {in_words(left)} left"
        line = describe(outcome, self.label_of(outcome.job), outcome.job.key in self._scored_again)
        self._print(f"[{self._done:{width}}/{self._total}] {line}{left_in_words}")

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._print(f"mmc-bench: {message}")

    def close(self, summary: Summary, results: Path) -> None:
        """Print how the run went, and each failure once more."""
        for line in closing_lines(summary, results):
            self._write(line)

    def _tell_time(self) -> None:
        """Say once, as soon as anything is known, how long the run will take."""
        if self._told or (seconds := self._forecast.seconds()) is None:
            return
        self._told = True
        self.announce(f"about {in_words(seconds)} to go, by {self._forecast.basis}")

    def _print(self, line: str) -> None:
        self._write(line)


def describe(outcome: Outcome, label: str, scored_again: bool = False) -> str:
    """Return a job's result as one line; what is scored again has the seconds of its first run, which are left out."""
    if outcome.record is None:
        assert outcome.failure is not None
        return f"{label}: FAILED: {outcome.failure.error}"
    took = "scored again" if scored_again else f"{sum(outcome.record.timing.seconds.values()):.0f} s"
    if (parts := outcome.record.provenance.micro_batches) > 1:
        took += f", for want of memory in {parts} micro-batches"
    if outcome.elsewhere:
        took += ", by another run"
    if isinstance(outcome.record, PairRecord):
        return f"{label}:  {_of_pair(outcome.record)}  ({took})"
    if isinstance(outcome.record, TrialRecord):
        return f"{label}:  {_of_trial(outcome.record)}  ({took})"
    scores = _in_per_cent(_accuracies(outcome.record.metrics))
    name = label if isinstance(outcome.job, Cell) else f"{label} · pretraining"
    return f"{name}:  {scores}  ({took})"


def _of_trial(record: TrialRecord) -> str:
    if record.diverged:
        return f"diverged: {record.diverged}"
    found = record.validation
    accuracies = {name.replace("_", " "): found[name].accuracy for name in (*SPLITS, *TRIAL_GROUPS) if name in found}
    return f"{_in_per_cent(accuracies)} (validation)"


def _accuracies(metrics: Metrics | GroupMetrics) -> dict[str, float]:
    """Return the accuracies that a line shows, by what it calls them."""
    if isinstance(metrics, GroupMetrics):
        return {name.replace("_", " "): accuracy for name, accuracy in metrics.accuracies.items()}
    return {name: metrics.splits[name].accuracy for name in SPLITS}


def _in_per_cent(accuracies: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {100 * accuracy:5.1f}" for name, accuracy in accuracies.items())


def _of_pair(record: PairRecord) -> str:
    heights = {name: path.test.largest_barrier for name, path in record.comparison.paths.items()}
    barriers = ", ".join(f"{name} {height:.2f}" for name, height in heights.items() if height is not None)
    mechanisms = f"mechanistically {'similar' if record.comparison.similar else 'dissimilar'}"
    return f"largest loss barrier {barriers}; {mechanisms}" if barriers else mechanisms


def closing_lines(summary: Summary, results: Path) -> list[str]:
    """Return how the run went, and each failure once more."""
    lines = []
    if summary.stopped:
        lines.append(
            f"mmc-bench: stopped: {summary.stopped}; nothing that is done is lost: the same command goes on from here"
        )
    lines.append(f"{summary} in {summary.seconds:.0f} s; records in {results}/")
    return lines + [f"  failed: {failure.label}: {failure.error}" for failure in summary.failures]
