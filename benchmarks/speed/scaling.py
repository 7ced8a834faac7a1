"""``python -m benchmarks.speed.scaling``: how much faster two are than one: runs on one folder, and actors on Ray.

Tiny cells with one thread each, in processes of their own. Start-up is left aside: what counts are the jobs that end
while as many as may be are in progress, by the times in the records.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch

import mmc_bench
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.store import Store
from mmc_bench.stages.provenance import device_name

from .__main__ import ratio, spread

SUITE = """
datasets: [digits-box]
backbones: [resnet8]
methods: [ft-medium, ft-small]
cue_rates: [0.95]
threads: 1
data: {pretrain_images: 200}
pretrain: {epochs: 1, batch_size: 64}
parameters: {"ft-*": {batch_size: 64, epochs: 2}}
connect: {points: 3, batchnorm_images: 100}
"""


@dataclass(frozen=True)
class Way:
    """A way to work on a suite: so many commands at a time, each with these words, and so many workers in all."""

    commands: int
    workers: int
    words: tuple[str, ...]


WAYS = {
    "one run": Way(1, 1, ("--workers", "1")),
    "two runs": Way(2, 2, ("--workers", "1")),
    "one actor": Way(1, 1, ("--engine", "ray", "--workers", "1")),
    "two actors": Way(1, 2, ("--engine", "ray", "--workers", "2")),
}


@click.command()
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(min=3), help="Three jobs for each.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Measurements of each.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(seeds: int, rounds: int, file: Path | None) -> None:
    """Measure two runs on one folder against one, and two Ray actors against one, in turn."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            found[name].append(throughput(work(way, seeds), way.workers))
            click.echo(f"{name}: {found[name][-1]:.2f} jobs a second")
    ratios = {
        "two runs / one run": ratio(found["two runs"], found["one run"]),
        "two actors / one actor": ratio(found["two actors"], found["one actor"]),
        "one actor / one run": ratio(found["one actor"], found["one run"]),
    }
    for name, value in ratios.items():
        click.echo(f"{name}: {value['median']:.2f} ({value['min']:.2f}-{value['max']:.2f})")
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "mmc_bench": mmc_bench.__version__,
        "jobs": 3 * seeds,
        "rounds": rounds,
        "jobs_per_second": {name: spread(values) for name, values in found.items()},
        "ratios": ratios,
    }
    if file:
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


Interval = tuple[float, float]


def work(way: Way, seeds: int) -> list[Interval]:
    """Run the suite in a folder of its own; return when each job began and ended, in seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = f"{SUITE}seeds: {list(range(seeds))}\n"
        (folder / "tiny.yaml").write_text(content, encoding="utf-8")
        command = [sys.executable, "-m", "mmc_bench", "run", "--suite", "tiny.yaml", *way.words]
        streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        runs = [subprocess.Popen(command, cwd=folder, **streams) for _ in range(way.commands)]
        for run in runs:
            _, said = run.communicate()
            if run.returncode:
                raise click.ClickException(f"a run failed: {said}")
        store = Store(folder / "results")
        records: list[PretrainRecord | CellRecord] = [*store.pretrain_records(), *store.cell_records()]
    starts = [(record.timing.started.timestamp(), sum(record.timing.seconds.values())) for record in records]
    return [(start, start + seconds) for start, seconds in starts]


def throughput(jobs: list[Interval], workers: int) -> float:
    """Return how many jobs ended a second between the first and the last moment when `workers` were in progress.

    The first job of each worker is left out, with what is loaded in it and after it.

    Raises
    ------
    ValueError
        When there was no such moment.
    """
    began = _full(jobs, workers)[:1]
    warm = max((end for start, end in jobs if began and start <= began[0] < end), default=0.0)
    full = _full([(start, end) for start, end in jobs if start >= warm], workers)
    if not full:
        raise ValueError(f"{workers} jobs were too seldom in progress together: measure more of them")
    first, last = full[0], full[-1]
    return sum(first < end <= last for _, end in jobs) / (last - first)


def _full(jobs: list[Interval], workers: int) -> list[float]:
    """Return the moments when the number of jobs in progress became `workers`, or was it until then."""
    changes = sorted([(start, 1) for start, _ in jobs] + [(end, -1) for _, end in jobs])
    running, moments = 0, []
    for moment, change in changes:
        if workers in (running, running + change):
            moments.append(moment)
        running += change
    return moments


if __name__ == "__main__":
    main()
