"""``mmc-bench status``."""

import json
from collections import Counter

import click

from mmc_bench.cli.dryrun import counted
from mmc_bench.cli.list import aligned
from mmc_bench.cli.options import Session, session_options
from mmc_bench.runner import find_missing


@click.command("status", short_help="Tell what of a suite is done, missing or failed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
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
    for pair in plan.pairs:
        groups.setdefault(("pair", pair.label, "", ""), Counter())[state(pair.key)] += 1
    total = Counter(state(job.key) for job in plan.results)
    failures = [failure for job in missing.jobs if (failure := store.find_failure(job))]
    if as_json:
        content = {
            "suite": plan.suite.name,
            "results": str(store.root),
            "cells": {name: total[name] for name in ("done", "missing", "failed")},
            "pretrainings": {
                name: sum(state(job.key) == name for job in plan.pretrainings) for name in ("done", "missing", "failed")
            },
            "failures": [failure.model_dump(mode="json") for failure in failures],
        }
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(
        f"suite {plan.suite.name} in {store.root}: {total['done']} of {counted(plan)} done, "
        f"{total['missing']} missing, {total['failed']} failed"
    )
    rows = [
        [*place, " ".join(f"{counts[name]} {name}" for name in ("done", "missing", "failed") if counts[name])]
        for place, counts in groups.items()
    ]
    for line in aligned(rows):
        click.echo("  " + line)
    for failure in failures:
        click.echo(f"  failed: {failure.label}: {failure.error}")
