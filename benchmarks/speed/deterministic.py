"""``python -m benchmarks.speed.deterministic``: what ``--deterministic`` costs, measured in turn in one process."""

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch

import mmc_bench
from mmc_bench.stages.provenance import device_name
from mmc_bench.system.determinism import compute_deterministically
from mmc_bench.training.precision import prepare_device, resolve_precision

from .__main__ import ratio, spread
from .cases import Bench, Case, cbft_step, path, pretraining_step
from .place import current, there, write_json


@click.command()
@click.option("--device", default="cpu", show_default=True, callback=there, help="cpu, cuda, …")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(("auto", "fp32", "bf16")))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(min=2), help="Images in a batch.")
@click.option("--rounds", default=6, show_default=True, type=click.IntRange(min=1), help="Measurements of each.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(device: str, precision: str, threads: int, batch: int, rounds: int, file: Path | None) -> None:
    """Measure training steps and a path with deterministic algorithms and without."""
    torch.set_num_threads(threads)
    compute_deterministically()  # before CUDA starts: cuBLAS has the same workspaces in both
    place = current(device)
    precision = resolve_precision(precision, place)
    bench = Bench(place, precision)
    cases = (
        pretraining_step(bench, batch_size=batch),
        cbft_step(bench, batch_size=batch),
        path(bench, bn_images=10 * batch, test_images=5 * batch, points=3),
    )
    content: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(place),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": threads,
        "torch": torch.__version__,
        "mmc_bench": mmc_bench.__version__,
        "precision": precision,
        "rounds": rounds,
        "seconds_are": "wall time" if place.type == "cuda" else "processor time",
        "cases": [],
    }
    for case in cases:
        content["cases"].append(price(case, rounds, place, precision))
        found = content["cases"][-1]["ratio"]
        click.echo(f"{case.what}: {found['median']:.3f} ({found['min']:.3f}–{found['max']:.3f})")
        if file:  # at once: what comes next may fail
            write_json(file, content)


def price(case: Case, rounds: int, device: torch.device, precision: str) -> dict[str, Any]:
    """Run a case's own side with deterministic algorithms and without, once to warm up and then `rounds` times.

    Each begins every other round, so that what the first of two leaves behind favours neither.

    Returns
    -------
    dict
        ``seconds`` of each, and the ``ratio`` of those with to those without: minimum, median and maximum.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for index in range(rounds + 1):
        for deterministic in (False, True) if index % 2 else (True, False):
            switch(deterministic, device, precision)
            elapsed = _seconds(case.runs["ours"], device)
            if index:
                seconds[deterministic].append(elapsed)
    return {
        "case": case.name,
        "what": case.what,
        "seconds": {"without": spread(seconds[False]), "deterministic": spread(seconds[True])},
        "ratio": ratio(seconds[True], seconds[False]),
    }


def switch(deterministic: bool, device: torch.device, precision: str) -> None:
    """Let torch compute as a worker does, with ``--deterministic`` or without."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    if deterministic:
        compute_deterministically()
    prepare_device(precision, device)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the processor time of all threads, which other work on the machine hardly changes; on a GPU, wall time."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


if __name__ == "__main__":
    main()
