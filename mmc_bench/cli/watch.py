"""Who does what: the leases of all runs on a results folder, for ``mmc-bench status`` and its ``--watch``."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from mmc_bench.cli.list import aligned
from mmc_bench.leases import STALE_AFTER, Claim, find_claims
from mmc_bench.store import Store

#: Seconds between two looks, at least; a look that takes long is followed by a pause `REST` times as long.
PAUSE, REST = 2.0, 3.0


def at_work(store: Store) -> list[dict[str, Any]]:
    """Return, for every claim on a job, whose it is, since when, and whether that run lives."""
    return [
        {
            "key": claim.key,
            "job": claim.label,
            "host": claim.owner.host if claim.owner else None,
            "pid": claim.owner.pid if claim.owner else None,
            "since": claim.since,
            "state": _state(claim),
        }
        for claim in find_claims(store.locks)
    ]


def lines(store: Store) -> list[str]:
    """Return one line for every claim, for people."""
    now = datetime.now(UTC)
    rows = [
        [
            entry["state"],
            f"{entry['host']}, process {entry['pid']}" if entry["host"] else "nobody knows who",
            f"since {_ago(entry['since'], now)}",
            entry["job"] or entry["key"][:8],
        ]
        for entry in at_work(store)
    ]
    return ["  " + line for line in aligned(rows)]


def repeat(show: Callable[[], tuple[str, bool]]) -> None:
    """Print what `show` returns whenever it has changed, until it says that there is nothing to wait for."""
    before = None
    while True:
        start = time.monotonic()
        text, done = show()
        if text != before:
            if before is not None:
                click.clear()  # on a terminal only
            click.echo(text)
        if done:
            return
        before = text
        time.sleep(max(PAUSE, REST * (time.monotonic() - start)))


def as_json_line(content: dict[str, Any]) -> str:
    """Return one line of JSON."""
    return json.dumps(content, separators=(",", ":"))


def _state(claim: Claim) -> str:
    if claim.has_ended:
        return "ended"
    silent = time.time() - claim.touched / 1e9
    return f"silent for {silent / 60:.0f} min" if silent > STALE_AFTER else "at work"


def _ago(since: str, now: datetime) -> str:
    try:
        seconds = max(0.0, (now - datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):
        return "some time"
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.0f} h"
    )
