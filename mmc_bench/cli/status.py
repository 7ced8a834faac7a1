"""``mmc-bench status``."""

import json
from collections import Counter

import click

from mmc_bench.cli.dryrun import counted
from mmc_bench.cli.list import aligned
from mmc_bench.cli.options import Session, session_options, shard_option
from mmc_bench.runner import find_missing

STATES = ("done", "missing", "failed")


@click.command("status", short_help="Tell what of a suite is done, missing or failed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@shard_option
@session_options
def command(session: Session, as_json: bool) -> None:
    """Tell what of a suite is done, missing or failed in the results folder."""
    plan, store = session.plan, session.store
    missing = find_missing(plan, store)
    to_run = {job.key for job in missing.jobs}

    def state(key: str) -> str:
        return "done" if key not in to_run else "failed" if key in missing.failed_before else "missing"

    groups: dict[tuple[str, ...], Counter[str]] = {}
    for cell in plan.cells:
        p = cell.pretraining
        place = (p.dataset.name, p.backbone.name, f"cue rate {p.cue_rate:g}", cell.method.name)
        groups.setdefault(place, Counter())[state(cell.key)] += 1
    if not plan.results:
        for model in plan.pretrainings:
            place = (model.dataset.name, model.backbone.name, f"cue rate {model.cue_rate:g}", "pretraining")
            groups.setdefault(place, Counter())[state(model.key)] += 1
    for pair in plan.pairs:
        groups.setdefault(("pair", pair.label, "", ""), Counter())[state(pair.key)] += 1
    results, pretrainings = (Counter(state(job.key) for job in jobs) for jobs in (plan.results, plan.pretrainings))
    tried = [job for job in missing.jobs if job.key in missing.failed_before]
    failures = [failure for job in tried if (failure := store.find_failure(job))]
    if as_json:
        content = {
            "suite": plan.suite.name,
            "results": str(store.root),
            "cells": {name: results[name] for name in STATES},
            "pretrainings": {name: pretrainings[name] for name in STATES},
            "failures": [failure.model_dump(mode="json") for failure in failures],
        }
        click.echo(json.dumps(content, indent=1))
        return
    total = results if plan.results else pretrainings
    click.echo(
        f"suite {plan.suite.name} in {store.root}: {total['done']} of {counted(plan)} done, "
        f"{total['missing']} missing, {total['failed']} failed"
    )
    rows = [
        [*place, " ".join(f"{counts[name]} {name}" for name in STATES if counts[name])]
        for place, counts in groups.items()
    ]
    for line in aligned(rows):
        click.echo("  " + line)
    for failure in failures:
        click.echo(f"  failed: {failure.label}: {failure.error}")
