"""``python -m benchmarks.speed.starting``: what it costs to start workers, forked from one process or each anew.

A worker has started once it has all that its first training step needs. Both ways are timed in turn, in wall time and
in processor time, the process that forks included.
"""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch
from tabulate import tabulate

import mmc_bench
from mmc_bench.engines.starting import IMPORTED, ForkServer, Start, spawn
from mmc_bench.stages.provenance import device_name

from .place import write_json
from .started import tell_when_imported

#: Returns what starts workers, while it is entered.
Way = Callable[[], AbstractContextManager[Start]]


@click.command()
@click.option("--workers", default="1,2,4", show_default=True, help="Numbers of workers, separated by commas.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Measurements of each.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(workers: str, rounds: int, file: Path | None) -> None:
    """Time the start of workers, forked and spawned."""
    load = os.getloadavg()[0]
    found = [compared(int(number), rounds) for number in workers.split(",")]
    click.echo(tabulate(found, headers="keys", floatfmt=".2f", tablefmt="github"))
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "load_before": load,
        "torch": torch.__version__,
        "mmc_bench": mmc_bench.__version__,
        "rounds": rounds,
        "starts": found,
    }
    if file:
        write_json(file, content)


def compared(workers: int, rounds: int, modules: Sequence[str] = IMPORTED) -> dict[str, Any]:
    """Return the medians of both ways to start so many workers, and the ratios of these, forked to spawned."""
    forked, spawned = [], []
    for _ in range(rounds):
        spawned.append(cost(lambda: nullcontext(spawn), workers, modules))
        forked.append(cost(lambda: _forking(modules), workers, modules))
    (forked_seconds, forked_spent), (seconds, spent) = (
        [statistics.median(values) for values in zip(*costs, strict=True)] for costs in (forked, spawned)
    )
    return {
        "workers": workers,
        "forked_seconds": forked_seconds,
        "spawned_seconds": seconds,
        "seconds_ratio": forked_seconds / seconds,
        "forked_processor_seconds": forked_spent,
        "spawned_processor_seconds": spent,
        "processor_seconds_ratio": forked_spent / spent,
    }


def cost(way: Way, workers: int, modules: Sequence[str]) -> tuple[float, float]:
    """Start so many workers; return the seconds until all have imported these modules, and the processor time of all.

    They are killed then, as a run kills its workers.
    """
    before, began, team = _spent(), time.perf_counter(), []
    with way() as start:
        for _ in range(workers):
            ours, theirs = multiprocessing.Pipe()
            team.append((start(tell_when_imported, theirs, modules), ours))
            theirs.close()
        for _, connection in team:
            connection.recv()
        seconds = time.perf_counter() - began
        for process, _ in team:
            process.kill()
            process.join()
    return seconds, _spent() - before


@contextmanager
def _forking(modules: Sequence[str]) -> Iterator[Start]:
    with closing(ForkServer(1, modules)) as server:
        yield server.start


def _spent() -> float:
    """Return the processor time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
