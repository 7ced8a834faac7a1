"""Who does what: the claims of all runs on the jobs of a results folder, for ``mmc-bench status``."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from mmc_bench.cli.list import aligned
from mmc_bench.results.leases import STALE_AFTER, Claim, find_claims
from mmc_bench.results.store import Store

AT_WORK = "at work"


@dataclass(frozen=True)
class AtWork:
    """A claim on a job: its owner, since when (UTC), and whether the owner lives, as far as this machine can see."""

    key: str
    job: str
    host: str | None
    pid: int | None
    since: str
    state: str


def at_work(store: Store) -> list[AtWork]:
    """Return every claim on a job, the oldest first."""
    return [
        AtWork(
            key=claim.key,
            job=claim.label,
            host=claim.owner.host if claim.owner else None,
            pid=claim.owner.pid if claim.owner else None,
            since=claim.since,
            state=_state(claim),
        )
        for claim in find_claims(store.locks)
    ]


def lines(entries: list[AtWork]) -> list[str]:
    """Return one line for every claim, for people."""
    rows = [
        [
            f"{entry.state}:",
            f"{entry.host}, process {entry.pid}" if entry.host else "an unknown process",
            f"since {_time(entry.since)}",
            entry.job or entry.key[:8],
        ]
        for entry in entries
    ]
    return aligned(rows)


def _state(claim: Claim) -> str:
    if claim.has_ended:
        return "ended"
    silent = time.time() - claim.touched / 1e9
    return f"silent for {silent / 60:.0f} min" if silent > STALE_AFTER else AT_WORK


def _time(since: str) -> str:
    """Return a moment in this machine's time zone."""
    try:
        moment = datetime.fromisoformat(since).astimezone()
    except (ValueError, OverflowError):
        return "?"
    same_day = moment.date() == datetime.now(UTC).astimezone().date()
    return f"{moment:%H:%M}" if same_day else f"{moment:%Y-%m-%d %H:%M}"
