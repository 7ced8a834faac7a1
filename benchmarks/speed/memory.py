"""``python -m benchmarks.speed.memory``: what aligning two networks takes in memory, in a process of its own."""

import json
import platform
import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch

import mmc_bench
from mmc_bench.landscape.alignment import align
from mmc_bench.stages.provenance import device_name

from .cases import Bench


@click.command()
@click.option("--backbone", default="resnet18", show_default=True)
@click.option("--images", default=512, show_default=True, type=click.IntRange(min=2), help="Images in the batch.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(backbone: str, images: int, file: Path | None) -> None:
    """Measure the peak memory of aligning two networks on one batch, on the CPU."""
    found = extra_memory(backbone, images)
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "mmc_bench": mmc_bench.__version__,
        **found,
    }
    click.echo(
        f"aligning two {backbone}s on {images} images: {found['extra_mb']:.0f} MB beyond {found['before_mb']:.0f}"
    )
    if file:
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def extra_memory(backbone: str, images: int) -> dict[str, Any]:
    """Align two networks of random weights, and return by how much the process's peak memory rose, in MB.

    Both networks, the batch and everything that a forward pass of a few images needs are there before.
    """
    bench = Bench(torch.device("cpu"), "fp32")
    model, reference = (bench.network(backbone).eval() for _ in range(2))
    batch, _ = bench.images(images)[0].batch(slice(None))
    with torch.no_grad():
        model(batch[:2])
    before = peak_mb()
    aligned = align(model, reference, [batch])
    return {
        "backbone": backbone,
        "images": images,
        "before_mb": before,
        "extra_mb": peak_mb() - before,
        "verified": aligned.verified,
    }


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in units of 10⁶ bytes.

    Linux's ``VmHWM`` rather than ``getrusage``, whose maximum a process inherits from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024 / 1e6
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
