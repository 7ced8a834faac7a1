"""``mmc-bench status``."""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from mmc_bench.cli.list import aligned
from mmc_bench.cli.options import session_options, shard_option
from mmc_bench.cli.workers import AT_WORK, AtWork, at_work, lines
from mmc_bench.results.jobs import Job, models_of
from mmc_bench.results.store import Store
from mmc_bench.running.preview import size_of
from mmc_bench.running.runner import find_missing
from mmc_bench.running.session import DEFAULT_SUITE, Session
from mmc_bench.suites.plan import Plan

if TYPE_CHECKING:
    from mmc_bench.results.records import Failure

STATES = ("done", "missing", "failed")

#: Seconds between two looks, at least; a look that takes long is followed by a rest of so many times its length.
PAUSE, REST = 2.0, 3.0


@dataclass
class State:
    """How far a plan is: counts of states by place, for results and for pretrainings, and who is at work."""

    groups: dict[tuple[str, ...], Counter[str]] = field(default_factory=dict)
    results: Counter[str] = field(default_factory=Counter)
    pretrainings: Counter[str] = field(default_factory=Counter)
    failures: "list[Failure]" = field(default_factory=list)
    at_work: list[AtWork] = field(default_factory=list)

    def works_on(self, plan: Plan) -> bool:
        """Whether a run works on a job of this plan."""
        keys = {job.key for job in (*plan.results, *plan.pretrainings)}
        return any(entry.state == AT_WORK and entry.key in keys for entry in self.at_work)


@click.command("status", short_help="Tell what of a suite is done, missing or failed, and who is at work.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Look again every few seconds until all is done; with --json, a line each.")
@shard_option
@session_options(DEFAULT_SUITE)
def command(session: Session, as_json: bool, watch: bool) -> None:
    """Tell what of a suite is done, missing or failed in the results folder, and which runs are at work on it."""
    store = session.store
    before = None
    while True:
        start = time.monotonic()
        plan = session.current_plan  # trials may have led to more cells
        state = look(plan, store)
        text = (
            json.dumps(_content(plan, store, state), indent=None if watch else 1)
            if as_json
            else "\n".join(_text(plan, store, state))
        )
        if text != before:
            if before is not None and not as_json:
                click.clear()  # on a terminal alone
            click.echo(text)
        to_come = state.results["missing"] or state.pretrainings["missing"] or state.works_on(plan)
        if not watch or not (to_come or len(session.current_plan.cells) > len(plan.cells)):
            return
        before = text
        time.sleep(max(PAUSE, REST * (time.monotonic() - start)))


def look(plan: Plan, store: Store) -> State:
    """Return how far a plan is."""
    state = State(at_work=at_work(store))
    missing = find_missing(plan, store)
    to_run = {job.key for job in missing.jobs}

    def state_of(job: Job) -> str:
        if job.key not in to_run:
            return "done"
        tried = {job.key, *(model.key for model in models_of(job))}  # without its models, a job has failed with them
        return "missing" if missing.failed_before.isdisjoint(tried) else "failed"

    for tuning in plan.tunings:
        place = (*tuning.place, f"{tuning.selection.method.name}{plan.note_of(tuning.jobs[0])}: trials")
        state.groups.setdefault(place, Counter()).update(state_of(job) for job in tuning.jobs)
    for cell in plan.cells:
        place = (*cell.pretraining.place, cell.method.name + plan.note_of(cell))
        state.groups.setdefault(place, Counter())[state_of(cell)] += 1
    if not plan.results:
        for model in plan.pretrainings:
            place = (*model.place, "pretraining" + plan.note_of(model))
            state.groups.setdefault(place, Counter())[state_of(model)] += 1
    for pair in plan.pairs:
        state.groups.setdefault(("pair", pair.label + plan.note_of(pair), "", ""), Counter())[state_of(pair)] += 1
    if plan.results:
        state.results = sum(state.groups.values(), Counter())
    state.pretrainings.update(state_of(job) for job in plan.pretrainings)
    tried = [job for job in missing.jobs if job.key in missing.failed_before]
    state.failures = [
        failure.model_copy(update={"label": failure.label + plan.note_of(job)})
        for job in tried
        if (failure := store.find_failure(job))
    ]
    notes = {job.key: plan.note_of(job) for job in (*plan.pretrainings, *plan.results)}
    state.at_work = [replace(entry, job=entry.job + notes.get(entry.key, "")) for entry in state.at_work]
    return state


def _content(plan: Plan, store: Store, state: State) -> dict[str, Any]:
    return {
        "suite": plan.suite.name,
        "results": str(store.root),
        "cells": {name: state.results[name] for name in STATES},
        "pretrainings": {name: state.pretrainings[name] for name in STATES},
        "failures": [failure.model_dump(mode="json") for failure in state.failures],
        "at_work": [asdict(entry) for entry in state.at_work],
    }


def _text(plan: Plan, store: Store, state: State) -> list[str]:
    total = state.results if plan.results else state.pretrainings
    rows = [
        [*place, " ".join(f"{counts[name]} {name}" for name in STATES if counts[name])]
        for place, counts in state.groups.items()
    ]
    return [
        f"suite {plan.suite.name} in {store.root}: {size_of(plan)}, {total['done']:,} done, "
        f"{total['missing']:,} missing, {total['failed']:,} failed",
        *("  " + line for line in aligned(rows)),
        *(f"  failed: {failure.label}: {failure.error}" for failure in state.failures),
        *("  " + line for line in lines(state.at_work)),
    ]
