"""What ``mmc-bench run --dry-run`` prints."""

import json
from collections import defaultdict

import click

from mmc_bench.results.jobs import Cell, Job, Pretraining
from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord
from mmc_bench.results.store import Store, job_of
from mmc_bench.running.runner import Missing
from mmc_bench.suites.plan import Plan

MOST_LINES = 60
MOST_RECORDS_READ = 200


def print_dry_run(plan: Plan, store: Store, missing: Missing, as_json: bool) -> None:
    """Say what would run, what is cached, and the estimated work."""
    to_run = {job.key for job in missing.jobs}
    pretrainings = [job for job in plan.pretrainings if job.key in to_run]
    estimate = estimate_seconds(plan, store, missing)
    if as_json:
        content = {
            "suite": plan.suite.name,
            "results": str(store.root),
            "estimated_seconds": estimate,
            "pretrainings": [_entry(job.key, job.label, to_run, missing) for job in plan.pretrainings],
            "cells": [_entry(cell.key, cell.label, to_run, missing) for cell in plan.cells],
            "pairs": [_entry(pair.key, pair.label, to_run, missing) for pair in plan.pairs],
        }
        click.echo(json.dumps(content, indent=1))
        return
    cached = sum(job.key in missing.found for job in plan.results)
    left_out = len(plan.results) - cached - len(missing.results)
    results = f"{counted(plan)}, {cached} cached, {len(missing.results)} to run"
    click.echo(
        f"suite {plan.suite.name}: {results if plan.results else 'pretraining alone'}"
        f"{f', {left_out} left out' if left_out else ''}; {len(pretrainings)} of {len(plan.pretrainings)} "
        f"pretrainings to run ({plan.suite.pretrain.epochs} epochs each)"
    )
    lines = _lines(plan, to_run, missing)
    for line in lines[:MOST_LINES]:
        click.echo(line)
    if len(lines) > MOST_LINES:
        click.echo(f"… and {len(lines) - MOST_LINES} lines more; --json has them all")
    if missing.jobs:
        if estimate is None:
            click.echo("estimated work: unknown until a first pretraining and cell of this suite have run")
        else:
            click.echo(f"estimated work: {estimate:,.0f} s of one worker, by the records at hand")


def estimate_seconds(plan: Plan, store: Store, missing: Missing) -> float | None:
    """Return the seconds of one worker that the missing jobs should take, by the records of the others.

    None when nothing is known of a pretraining or of any cell. A method without a record counts as the mean
    of the others.
    """
    found = [job for job in plan.pretrainings if job.key in missing.found][:MOST_RECORDS_READ]
    pretrainings = [store.find(job) for job in found]
    cached = [job for job in plan.results if job.key in missing.found][:MOST_RECORDS_READ]
    by_method: dict[str, list[float]] = defaultdict(list)
    for record in map(store.find, cached):
        if isinstance(record, (CellRecord, PairRecord)):
            by_method[_method_of(job_of(record))].append(sum(record.timing.seconds.values()))
    pretrain_seconds = [
        sum(record.timing.seconds.values()) for record in pretrainings if isinstance(record, PretrainRecord)
    ]
    of_cell = _mean([seconds for values in by_method.values() for seconds in values])
    of_method = {method: _mean(values) for method, values in by_method.items()}
    of_pretraining = _mean(pretrain_seconds)
    total = 0.0
    for job in missing.jobs:
        known = of_pretraining if isinstance(job, Pretraining) else of_method.get(_method_of(job), of_cell)
        if known is None:
            return None
        total += known
    return total


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def counted(plan: Plan) -> str:
    """Return how many cells and pairs a plan has, or pretrainings where it has no other aim, in words."""
    if not plan.results:
        return f"{len(plan.pretrainings)} pretrainings"
    pairs = f"{len(plan.pairs)} pairs"
    if not plan.cells and plan.pairs:
        return pairs
    return f"{len(plan.cells)} cells" + (f" and {pairs}" if plan.pairs else "")


def _method_of(job: Job) -> str:
    """Return the kind of work that a job is: its method, or comparing a pair."""
    return job.method.name if isinstance(job, Cell) else "pair"


def _entry(key: str, label: str, to_run: set[str], missing: Missing) -> dict[str, str]:
    state = _state(key, to_run, missing)
    if state == "to run" and key in missing.failed_before:
        state = "failed before"
    return {"key": key, "label": label, "state": state}


def _state(key: str, to_run: set[str], missing: Missing) -> str:
    return "to run" if key in to_run else "cached" if key in missing.found else "left out"


def _lines(plan: Plan, to_run: set[str], missing: Missing) -> list[str]:
    """Return one line for each method and setting, with its seeds."""
    seeds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in plan.cells:
        p = cell.pretraining
        place = f"{p.dataset.name} {p.backbone.name} cue rate {p.cue_rate:g} · {cell.method.name}"
        seeds[_state(cell.key, to_run, missing), place].append(str(p.seed))
    for pair in plan.pairs:
        seeds[_state(pair.key, to_run, missing), f"pair {pair.label}"] = []
    width = max((len(state) for state, _ in seeds), default=0)
    return [
        f"  {state:{width}}  {place}{f' · seeds {chr(32).join(which)}' if which else ''}"
        for (state, place), which in seeds.items()
    ]
