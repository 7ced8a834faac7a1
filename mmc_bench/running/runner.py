"""Driving a plan: missing jobs run, failures are counted, observers receive the run's events."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.engines import Engine, FollowUp, Outcome, Settings, StoppedError, store_of
from mmc_bench.results.codec import DiskError, StoredKeys
from mmc_bench.results.jobs import Job, Pretraining, models_of
from mmc_bench.results.store import Store
from mmc_bench.running.observers import Observers
from mmc_bench.running.summary import Summary
from mmc_bench.running.tuning import Chosen, Tuner
from mmc_bench.suites.plan import Plan
from mmc_bench.system.process_state import kept
from mmc_bench.system.streams import tell

if TYPE_CHECKING:
    from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord
    from mmc_bench.results.scores import CellScores, ModelScores
    from mmc_bench.running.forecast import Forecast
    from mmc_bench.running.lines import LineDisplay


@dataclass(frozen=True)
class Missing:
    """The jobs of a plan that are to run, and the keys of those that failed before or have a record.

    `unpredicted` are the keys of jobs that have a record, and are to run because their predictions are to be kept.
    """

    jobs: tuple[Job, ...]
    failed_before: frozenset[str]
    found: frozenset[str]
    only_failed: bool = False
    unpredicted: frozenset[str] = frozenset()

    @property
    def results(self) -> list[Job]:
        """The cells and pairs among them."""
        return [job for job in self.jobs if not isinstance(job, Pretraining)]


def find_missing(plan: Plan, store: Store, only_failed: bool = False, keep_predictions: bool = False) -> Missing:
    """Return what a plan still needs.

    Parameters
    ----------
    only_failed
        Leave out what was never tried; pretrainings that the others need stay.
    keep_predictions
        What lacks its predictions is made again: from its weights, where these are there.
    """
    there = store.listing()
    trained = {job.key: _weights(job, there, store) for job in plan.pretrainings}
    wanting = {job.key for job in plan.results if not _is_made(job, _weights(job, there, store), trained)}
    unpredicted = set()
    if keep_predictions:
        made = {key for key, weights in trained.items() if weights} | {job.key for job in plan.results} - wanting
        jobs = (*plan.pretrainings, *plan.results)
        unpredicted = {job.key for job in jobs if job.key in made and store.lacks_predictions(job)}
        wanting |= unpredicted
    needed = {end.key for job in plan.results if job.key in wanting for end in models_of(job)}
    pretrainings = [
        job
        for job in plan.pretrainings
        # Weights alone are no result: they are made again only for what needs them.
        if trained[job.key] is None
        or job.key in unpredicted
        or (job.key in needed and job.weights_key not in there.weights)
    ]
    # On a GPU other weights come out, and what was made from the ones before is no longer theirs. Where the same
    # ones come back, as on a CPU, those jobs find their records when their turn comes.
    again = {job.key for job in pretrainings if not trained[job.key] or job.weights_key not in there.weights}
    results = [job for job in plan.results if job.key in wanting or any(end.key in again for end in models_of(job))]
    to_run = {job.key for job in (*pretrainings, *results)}
    failed = to_run & there.failures
    found = {job.key for job in (*plan.results, *plan.pretrainings)} - to_run
    if only_failed:
        results = [job for job in results if failed & {job.key, *(end.key for end in models_of(job))}]
        wanted = failed | {end.key for job in results for end in models_of(job)}
        pretrainings = [job for job in pretrainings if job.key in wanted]
    unpredicted &= {job.key for job in (*pretrainings, *results)}
    return Missing((*pretrainings, *results), frozenset(failed), frozenset(found), only_failed, frozenset(unpredicted))


def _weights(job: Job, there: StoredKeys, store: Store) -> tuple[str, ...] | None:
    return store.weights_behind(job) if job.key in there.records else None


def _is_made(job: Job, made_from: tuple[str, ...] | None, trained: Mapping[str, tuple[str, ...] | None]) -> bool:
    """Return whether a record is there, made from the weights that its pretrainings' records name, where they exist."""
    if made_from is None:
        return False
    ends = zip(models_of(job), made_from, strict=True)
    return all(trained.get(end.key) in (None, (weights,)) for end, weights in ends)


def found_records(plan: Plan, store: Store) -> tuple[list[CellRecord], list[PretrainRecord]]:
    """Return the records of a plan that are there, in the plan's order, but those of trials and their models."""
    from mmc_bench.results.records import CellRecord, PretrainRecord

    cells = [record for job in plan.cells if isinstance(record := store.find(job), CellRecord)]
    pretrained = [record for job in plan.ranked_pretrainings if isinstance(record := store.find(job), PretrainRecord)]
    return cells, pretrained


def found_scores(plan: Plan, store: Store) -> tuple[list[CellScores | CellRecord], list[ModelScores | PretrainRecord]]:
    """Return what tables need of the records of a plan that are there, in the plan's order."""
    from mmc_bench.results.scores import ScoreReader

    reader = ScoreReader()
    models = [model for job in plan.ranked_pretrainings if (model := store.find_model_scores(job, reader))]
    weights = {model.key: model.weights_sha256 for model in models}
    found = ((job, store.find_scores(job, reader)) for job in plan.cells)
    cells = [
        cell
        for job, cell in found
        if cell and cell.pretrained_sha256 == weights.get(job.pretraining.key, cell.pretrained_sha256)
    ]
    return cells, models


def found_pairs(plan: Plan, store: Store) -> list[PairRecord]:
    """Return the records of a plan's pairs that are there, in the plan's order."""
    from mmc_bench.results.records import PairRecord

    return [record for job in plan.pairs if isinstance(record := store.find(job), PairRecord)]


def check_plugins(plan: Plan, patterns: Iterable[str] = ("*",), trusted: str | None = None) -> None:
    """Check the parameters that were given to plugins, and the members of families, before anything runs.

    Only such plugins are imported: importing all would keep the run waiting, and one that does not load fails
    its own cells.

    Parameters
    ----------
    patterns
        Check those alone whose names match one of these globs.
    trusted
        A distribution whose methods' parameters in this plan are known to be right.

    Raises
    ------
    UserError
        When a family has no such member, a target does not load, or a parameter is unknown or not allowed.
    """
    for offer, reference in plan.offers:
        if not any(fnmatchcase(name, pattern) for name in offer.names for pattern in patterns):
            continue
        known = offer.spec.kind == "method" and offer.plugin.distribution == trusted
        given = not known and reference.parameters != dict(offer.spec.defaults)
        if not given and not offer.spec.check_member:  # nothing of the plugin is run
            continue
        with kept(f"{offer.spec.kind} {offer.spec.name}", tell):
            offer.check_member()
            if given:
                offer.configure(reference.parameters)


def run_plan(
    plan: Plan,
    missing: Missing,
    engine: Engine,
    settings: Settings,
    observers: Observers,
    display: LineDisplay,
    fail_fast: bool = False,
    forecast: Forecast | None = None,
) -> Summary:
    """Run what is missing of a plan. Ctrl-C ends the run with everything finished kept.

    Parameters
    ----------
    fail_fast
        Stop at the first failure.
    forecast
        Says how long the run will still take.

    Raises
    ------
    UserError
        When an observer refuses the run, before anything runs.
    """
    start = time.perf_counter()
    summary = Summary.before(plan, missing.found)
    tuner = Tuner(plan, store_of(settings), missing.jobs, missing.only_failed)
    choices: list[Chosen] = []  # still to be told, after the trial that led to them

    def follow_up(outcome: Outcome) -> list[Job]:
        further = tuner.follow_up(outcome)
        for choice in further:
            display.added(choice.cells, choice.key)
            summary.cells += len(choice.cells)
        choices.extend(further)
        return [cell for choice in further for cell in choice.cells]

    observers.start(display.warn, plan, list(missing.jobs), Path(settings.results))
    display.add_notes(plan.note_of, missing.unpredicted)
    display.started(list(missing.jobs), forecast)
    try:
        # Closing stops the workers, however this block is left.
        with closing(_outcomes(engine, missing, settings, display, observers, follow_up)) as outcomes:
            for outcome in outcomes:
                _count(outcome, summary, missing)
                display.finished(outcome)
                while choices:
                    display.announce(str(choices.pop(0)))
                observers.ended(outcome.job, outcome.record, outcome.failure, outcome.elsewhere)
                if outcome.stops:
                    summary.stopped = outcome.stops
                    break
                if outcome.failure is not None and fail_fast:
                    break
        Store(settings.results).sweep()
    except (DiskError, StoppedError) as error:
        summary.stopped = str(error)
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.seconds = time.perf_counter() - start
    observers.finish(summary.as_dict())
    return summary


def _outcomes(
    engine: Engine,
    missing: Missing,
    settings: Settings,
    display: LineDisplay,
    observers: Observers,
    follow_up: FollowUp,
) -> Generator[Outcome]:
    def forward(job: Job, event: dict[str, Any]) -> None:
        display.event(job, event)
        observers.event(job, event)

    yield from engine.run(missing.jobs, settings, forward, follow_up)


def _count(outcome: Outcome, summary: Summary, missing: Missing) -> None:
    is_result = not isinstance(outcome.job, Pretraining)
    if outcome.record is not None and not outcome.elsewhere:
        summary.profile.add(outcome.job, outcome.record.timing)
    if outcome.failure is not None:
        summary.failed += is_result
        summary.failures.append(outcome.failure)
    elif is_result and outcome.elsewhere:
        summary.cached += 1
    elif is_result:
        summary.computed += 1
        summary.scored_again += outcome.job.key in missing.unpredicted
    elif not outcome.elsewhere:
        summary.pretrained += 1
