"""Driving a plan: what is missing is done, failures are counted, observers are told."""

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from mmc_bench.cells import Cell, Job
from mmc_bench.engines import Engine, Outcome, Settings
from mmc_bench.parameters import check_parameters
from mmc_bench.plan import Plan
from mmc_bench.records import CellRecord, Failure, PretrainRecord
from mmc_bench.registry import Observers
from mmc_bench.store import Store


class Console(Protocol):
    """Shows a run to whoever waits for it."""

    def started(self, jobs: list[Job]) -> None:
        """Tell that these jobs are about to run."""

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Tell what a job is doing."""

    def finished(self, outcome: Outcome) -> None:
        """Tell how a job ended."""

    def warn(self, message: str) -> None:
        """Tell what went wrong beside the run itself."""


@dataclass
class Summary:
    """How a run went, in cells."""

    cells: int
    cached: int
    computed: int = 0
    failed: int = 0
    pretrained: int = 0
    interrupted: bool = False
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def before(cls, plan: Plan, missing: "Missing") -> "Summary":
        """Return the summary of a run that has done nothing yet."""
        return cls(cells=len(plan.cells), cached=sum(cell.key in missing.found for cell in plan.cells))

    @property
    def not_run(self) -> int:
        """Cells that have no record and did not fail: left out, or not reached."""
        return self.cells - self.cached - self.computed - self.failed

    @property
    def exit_code(self) -> int:
        """Pytest's convention: 0 all done, 1 some failed, 2 interrupted."""
        return 2 if self.interrupted else int(bool(self.failures))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json`` and for observers."""
        counts = {
            name: getattr(self, name)
            for name in ("cells", "cached", "computed", "failed", "not_run", "pretrained", "interrupted", "seconds")
        }
        failures = [{"key": item.key, "cell": item.label, "error": item.error} for item in self.failures]
        return {**counts, "failures": failures}


@dataclass(frozen=True)
class Missing:
    """The jobs of a plan that are to run, and the keys of those that failed before or have a record."""

    jobs: tuple[Job, ...]
    failed_before: frozenset[str]
    found: frozenset[str]

    @property
    def cells(self) -> list[Cell]:
        """The cells among them."""
        return [job for job in self.jobs if isinstance(job, Cell)]


def find_missing(plan: Plan, store: Store, only_failed: bool = False) -> Missing:
    """Return what a plan still needs.

    Parameters
    ----------
    only_failed
        Leave out cells that were never tried; pretrainings that the others need stay.
    """
    cells = [cell for cell in plan.cells if store.find(cell) is None]
    needed = {cell.pretraining.key for cell in cells}
    pretrainings = [
        job
        for job in plan.pretrainings
        # Weights alone are no result: they are made again only for a cell that needs them.
        if store.find(job) is None or (job.key in needed and not store.has_weights(job))
    ]
    jobs: list[Job] = [*cells, *pretrainings]
    everything: list[Job] = [*plan.cells, *plan.pretrainings]
    failed = {job.key for job in jobs if store.find_failure(job)}
    found = {job.key for job in everything} - {job.key for job in jobs}
    if only_failed:
        cells = [cell for cell in cells if cell.key in failed or cell.pretraining.key in failed]
        wanted = failed | {cell.pretraining.key for cell in cells}
        pretrainings = [job for job in pretrainings if job.key in wanted]
    return Missing((*pretrainings, *cells), frozenset(failed), frozenset(found))


def found_records(plan: Plan, store: Store) -> tuple[list[CellRecord], list[PretrainRecord]]:
    """Return the records of a plan that are there, in the plan's order."""
    cells = [record for job in plan.cells if isinstance(record := store.find(job), CellRecord)]
    pretrained = [record for job in plan.pretrainings if isinstance(record := store.find(job), PretrainRecord)]
    return cells, pretrained


def check_plugins(plan: Plan, patterns: Iterable[str] = ("*",)) -> None:
    """Check the parameters that were given to plugins, and the members of families, before anything runs.

    Only such plugins are imported: importing all would keep the run waiting, and one that does not load fails
    its own cells.

    Parameters
    ----------
    patterns
        Check those alone whose names match one of these globs.

    Raises
    ------
    UserError
        When a family has no such member, a target does not load, or a parameter is unknown or not allowed.
    """
    for offer, reference in plan.offers:
        names = (offer.spec.name, offer.qualified_name)
        if not any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
            continue
        offer.check_member()
        if reference.parameters != dict(offer.spec.defaults):
            check_parameters(f"{offer.spec.kind} {offer.spec.name}", offer.load(), reference.parameters)


def run_plan(
    plan: Plan,
    missing: Missing,
    engine: Engine,
    settings: Settings,
    observers: Observers,
    console: Console,
    fail_fast: bool = False,
) -> Summary:
    """Run what is missing of a plan. Ctrl-C ends the run with everything finished kept.

    Parameters
    ----------
    fail_fast
        Stop at the first failure.
    """
    start = time.perf_counter()
    summary = Summary.before(plan, missing)
    observers.call("run_started", console.warn, plan=plan)
    console.started(list(missing.jobs))
    try:
        # Closing stops the workers, however this block is left.
        with closing(_outcomes(engine, missing, settings, console)) as outcomes:
            for outcome in outcomes:
                _count(outcome, summary)
                console.finished(outcome)
                if outcome.record is not None:
                    record = outcome.record.model_dump(mode="json")
                    observers.call("cell_finished", console.warn, cell=outcome.job, record=record)
                elif fail_fast:
                    break
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.seconds = time.perf_counter() - start
    observers.call("run_finished", console.warn, summary=summary.as_dict())
    return summary


def _outcomes(engine: Engine, missing: Missing, settings: Settings, console: Console) -> Generator[Outcome]:
    yield from engine.run(missing.jobs, settings, console.event)


def _count(outcome: Outcome, summary: Summary) -> None:
    is_cell = isinstance(outcome.job, Cell)
    if outcome.failure is not None:
        summary.failed += is_cell
        summary.failures.append(outcome.failure)
    elif is_cell:
        summary.computed += 1
    else:
        summary.pretrained += 1
