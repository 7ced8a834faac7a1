"""What ``mmc-bench run --dry-run`` prints."""

import json
from collections import defaultdict

import click

from mmc_bench.cells import Cell
from mmc_bench.plan import Plan
from mmc_bench.records import CellRecord, PretrainRecord
from mmc_bench.runner import Missing
from mmc_bench.store import Store

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
        }
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(
        f"suite {plan.suite.name}: {len(plan.cells)} cells, {len(plan.cells) - len(missing.cells)} cached, "
        f"{len(missing.cells)} to run; {len(pretrainings)} of {len(plan.pretrainings)} pretrainings to run "
        f"({plan.suite.pretrain.epochs} epochs each)"
    )
    lines = _lines(plan, to_run)
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
    to_run = {job.key for job in missing.jobs}
    pretrainings = [store.find(job) for job in plan.pretrainings[:MOST_RECORDS_READ] if job.key not in to_run]
    cached = [cell for cell in plan.cells if cell.key not in to_run][:MOST_RECORDS_READ]
    by_method: dict[str, list[float]] = defaultdict(list)
    for record in map(store.find, cached):
        if isinstance(record, CellRecord):
            by_method[record.cell.method.name].append(sum(record.timing.seconds.values()))
    pretrain_seconds = [
        sum(record.timing.seconds.values()) for record in pretrainings if isinstance(record, PretrainRecord)
    ]
    cell_seconds = [seconds for values in by_method.values() for seconds in values]
    total = 0.0
    for job in missing.jobs:
        known = by_method.get(job.method.name) or cell_seconds if isinstance(job, Cell) else pretrain_seconds
        if not known:
            return None
        total += sum(known) / len(known)
    return total


def _entry(key: str, label: str, to_run: set[str], missing: Missing) -> dict[str, str]:
    state = "cached" if key not in to_run else "failed before" if key in missing.failed_before else "to run"
    return {"key": key, "label": label, "state": state}


def _lines(plan: Plan, to_run: set[str]) -> list[str]:
    """Return one line for each method and setting, with its seeds."""
    seeds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in plan.cells:
        p = cell.pretraining
        place = f"{p.dataset.name} {p.backbone.name} cue rate {p.cue_rate:g} · {cell.method.name}"
        seeds["to run" if cell.key in to_run else "cached", place].append(str(p.seed))
    return [f"  {state:6}  {place} · seeds {' '.join(which)}" for (state, place), which in seeds.items()]
