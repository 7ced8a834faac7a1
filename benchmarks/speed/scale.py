"""``python -m benchmarks.speed.scale``: how commands bear a suite of 100,000 cells, each a process of its own."""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

import mmc_bench
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.codec import encoded
from mmc_bench.results.jobs import Cell, Pretraining
from mmc_bench.results.making import Provenance, Timing
from mmc_bench.results.metrics import SPLITS, Metrics, Score
from mmc_bench.results.records import (
    Barrier,
    CellRecord,
    Connectivity,
    Curve,
    Epoch,
    Invariance,
    PathRecord,
    PretrainRecord,
)
from mmc_bench.results.store import Store
from mmc_bench.suites.plan import Plan, make_plan
from mmc_bench.suites.suite import load_suite

SUITE = """\
datasets: [digits-box]
backbones: [resnet8]
methods: {methods}
cue_rates: [0.1, 0.3, 0.5, 0.7, 0.9]
seeds: {seeds}
"""
CELLS_OF_A_SEED = 100  # twenty methods, five cue rates

COMMANDS = {
    "dry run": ("run", "--dry-run", "--suite", "scale.yaml"),
    "status": ("status", "--suite", "scale.yaml"),
    "table": ("table",),
    "table of the suite": ("table", "--suite", "scale.yaml"),
    "run, nothing missing": ("run", "--suite", "scale.yaml"),
}
WITHOUT_RECORDS = ("dry run", "status")


#: Runs a command and tells its peak memory itself: from outside, that of the process that starts it is counted too.
RUN = """
import sys
from pathlib import Path
from mmc_bench.cli.main import run_command_line
sys.argv[0] = "mmc-bench"
code = run_command_line()
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
print(" ".join(line.split()[1] for line in lines if line.startswith("VmHWM:")), file=sys.stderr)
sys.exit(code)
"""


@click.command()
@click.option("--cells", default=100_000, show_default=True, type=click.IntRange(min=CELLS_OF_A_SEED))
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(cells: int, file: Path | None) -> None:
    """Measure each command's seconds and peak memory, with no record there and with all."""
    with tempfile.TemporaryDirectory() as folder:
        plan = prepare(Path(folder), seeds=cells // CELLS_OF_A_SEED)
        found = [{"command": name, "records": 0, **measured(Path(folder), COMMANDS[name])} for name in WITHOUT_RECORDS]
        start = time.perf_counter()
        records = write_records(plan, Store(Path(folder) / "results"))
        click.echo(f"{records} records written in {time.perf_counter() - start:.0f} s")
        found += [
            {"command": name, "records": records, **measured(Path(folder), words)} for name, words in COMMANDS.items()
        ]
    for result in found:
        click.echo(
            f"{result['command']}, {result['records']} records: {result['seconds']:.1f} s "
            f"({result['cpu_seconds']:.1f} of CPU), {result['peak_mb']:.0f} MB"
        )
    if file:
        content = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores",
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "mmc_bench": mmc_bench.__version__,
            "cells": len(plan.cells),
            "pretrainings": len(plan.pretrainings),
            "commands": found,
        }
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def prepare(folder: Path, seeds: int) -> Plan:
    """Write the suite file ``scale.yaml``, and return its plan."""
    registry = Registry.discover()
    methods = [offer.spec.name for offer in registry.offers("method")][: CELLS_OF_A_SEED // 5]
    suite = folder / "scale.yaml"
    suite.write_text(SUITE.format(methods=methods, seeds=list(range(seeds))), encoding="utf-8")
    return make_plan(load_suite(str(suite), {}), registry)


def write_records(plan: Plan, store: Store) -> int:
    """Write a valid record of every job of a plan, with made-up scores, and return how many there are."""
    store.check_writable()
    chance = random.Random(0)
    for pretraining in plan.pretrainings:
        # Not `save`: 100,000 flushes to the disk would take long.
        store.file_of(pretraining).write_bytes(encoded(_pretrain_record(pretraining, chance)))
    for cell in plan.cells:
        store.file_of(cell).write_bytes(encoded(_cell_record(cell, chance)))
    return len(plan.pretrainings) + len(plan.cells)


def measured(folder: Path, words: tuple[str, ...]) -> dict[str, float]:
    """Run a command in a process of its own, and return its seconds, those of CPU, and its peak memory in MB.

    The latter is known on Linux alone.
    """
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seconds, after = time.perf_counter() - start, os.times()
    told, _, peak = done.stderr.rstrip().rpartition("\n")
    if done.returncode:
        raise click.ClickException(f"mmc-bench {' '.join(words)} failed: {told}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "cpu_seconds": used, "peak_mb": int(peak or 0) * 1024 / 1e6}


def _pretrain_record(pretraining: Pretraining, chance: random.Random) -> PretrainRecord:
    epoch = Epoch(train_loss=chance.random(), train=chance.random(), NC=chance.random(), C=chance.random())
    return PretrainRecord(
        key=pretraining.key,
        pretraining=pretraining,
        num_classes=10,
        weights_sha256="0" * 64,
        metrics=_metrics(chance),
        invariance=_invariance(chance),
        curve=(epoch,) * pretraining.recipe.epochs,
        timing=_timing(("data", "pretrain", "score")),
        provenance=_provenance(pretraining.seed),
    )


def _cell_record(cell: Cell, chance: random.Random) -> CellRecord:
    points = cell.connect.points

    def along() -> tuple[float, ...]:
        return tuple(chance.random() for _ in range(points))

    connectivity = Connectivity(
        t=tuple(point / (points - 1) for point in range(points)),
        splits={split: Curve(accuracy=along(), loss=along()) for split in SPLITS},
        barriers={split: Barrier(accuracy=chance.random(), loss=chance.random()) for split in SPLITS},
        mode_connected=dict.fromkeys(SPLITS, False),
        mechanistically_connected=False,
        tolerance=0.05,
    )
    return CellRecord(
        key=cell.key,
        cell=cell,
        pretraining_key=cell.pretraining.key,
        pretrained_sha256="0" * 64,
        num_classes=10,
        parameters=cell.method.parameters,
        metrics=_metrics(chance),
        paths={"linear": PathRecord(test=connectivity)},
        invariance=_invariance(chance),
        timing=_timing(("data", "fine_tune", "score", "connect")),
        provenance=_provenance(cell.pretraining.seed),
    )


def _metrics(chance: random.Random) -> Metrics:
    names = (*SPLITS, "train", "validation")
    return Metrics(**{name: Score(accuracy=chance.random(), loss=chance.random()) for name in names}, others={})


def _invariance(chance: random.Random) -> dict[str, Invariance]:
    return {
        name: Invariance(
            split=split,
            loss_without=chance.random(),
            loss_with=chance.random(),
            accuracy_change=chance.random(),
            invariant=False,
        )
        for name, split in (("remove cue", "NC"), ("randomise cue", "RC"), ("randomise image", "RI"))
    }


def _timing(stages: tuple[str, ...]) -> Timing:
    return Timing(started=datetime(2026, 1, 1, tzinfo=UTC), seconds=dict.fromkeys(stages, 1 / 3))


def _provenance(seed: int) -> Provenance:
    return Provenance(
        mmc_bench=mmc_bench.__version__,
        python=platform.python_version(),
        packages={},
        plugins={},
        git_commit="0" * 40,
        git_dirty=False,
        platform=f"{platform.system()} {platform.machine()}",
        device="cpu",
        precision="fp32",
        threads=1,
        seeds={"experiment": seed},
    )


if __name__ == "__main__":
    main()
