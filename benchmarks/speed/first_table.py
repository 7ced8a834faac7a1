"""``python -m benchmarks.speed.first_table``: what the first table costs, in wall and in processor time.

``mmc-bench run`` is timed from its start to its end in an empty folder, its worker processes included, and nothing else
should run. ``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` keep a processor from instructions beyond AVX2.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import torch
from tabulate import tabulate

import mmc_bench
from mmc_bench.stages.provenance import device_name

#: The README's command, and the whole suite.
COMMANDS = {"cbft,lpft": ("--methods", "cbft,lpft"), "quick": ()}

#: Variables that keep a processor from some of its instructions.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


@click.command()
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(("auto", "fp32", "bf16")))
@click.option("--only", type=click.Choice(tuple(COMMANDS)), help="Time this command alone.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(precision: str, only: str | None, file: Path | None) -> None:
    """Time ``mmc-bench run --methods cbft,lpft``, and ``mmc-bench run``."""
    commands = {name: words for name, words in COMMANDS.items() if only in (None, name)}
    load = os.getloadavg()[0]
    found = {name: cost((*words, "--precision", precision, "--no-download")) for name, words in commands.items()}
    click.echo(tabulate(
        [(name, one["seconds"], one["processor_seconds"]) for name, one in found.items()],
        headers=("command", "seconds", "processor seconds"),
        floatfmt=".0f",
        tablefmt="github",
    ))  # fmt: skip
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "load_before": load,
        "torch": torch.__version__,
        "mmc_bench": mmc_bench.__version__,
        "precision": precision,
        "commands": found,
    }
    if file:
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def cost(words: tuple[str, ...]) -> dict[str, float]:
    """Run ``mmc-bench run`` with these words in an empty folder; return its costs.

    Returns
    -------
    dict
        ``seconds`` of wall time, and ``processor_seconds`` (user and system).
    """
    with tempfile.TemporaryDirectory() as folder:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", "mmc_bench", "run", *words], cwd=folder, capture_output=True, text=True
        )
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        raise click.ClickException(f"the run failed: {run.stderr}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "processor_seconds": round(spent, 1)}


if __name__ == "__main__":
    main()
