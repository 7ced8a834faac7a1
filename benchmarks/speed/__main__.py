"""``python -m benchmarks.speed``: ratios of medians, measured in turn in one process."""

import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch
from tabulate import tabulate

import mmc_bench
from mmc_bench.stages.provenance import device_name
from mmc_bench.training.precision import prepare_device, resolve_precision

from .cases import CASES, FP32_OUTPUT, Bench, Case, parity
from .place import current, there, write_json
from .throughput import BACKBONES, throughput

#: How much of the hardware pretrainings use: measured first, and on a GPU unless `--only` says otherwise.
THROUGHPUT = "throughput"


@click.command()
@click.option("--device", default="cpu", show_default=True, callback=there, help="cpu, cuda, …")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(("auto", "fp32", "bf16")))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Measurements of each.")
@click.option(
    "--only",
    help=f"Of {THROUGHPUT}, {', '.join(CASES)}; separated by commas.  [default: all, throughput on a GPU alone]",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here too.")
def main(device: str, precision: str, threads: int | None, rounds: int, only: str | None, file: Path | None) -> None:
    """Measure ours against the plain implementation."""
    if threads:
        torch.set_num_threads(threads)
    place = current(device)
    precision = resolve_precision(precision, place)
    prepare_device(precision, place)
    bench = Bench(place, precision)
    names = only.split(",") if only else [*([THROUGHPUT] if place.type == "cuda" else []), *CASES]
    if unknown := [name for name in names if name not in (THROUGHPUT, *CASES)]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join((THROUGHPUT, *CASES))}", param_hint="--only")
    content: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(place),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "mmc_bench": mmc_bench.__version__,
        "precision": precision,
        "rounds": rounds,
        "parity": {},
        "cases": [],
        "pretraining": [],
        "failed": [],
    }
    for part, found in measurements(bench, names, rounds):
        content[part] = [*content[part], found] if isinstance(content[part], list) else found
        if file:  # at once: what comes next may fail
            write_json(file, content)
    if content["pretraining"]:
        click.echo("\n" + throughput_table(content["pretraining"]))
    if content["cases"]:
        click.echo("\n" + table(content["cases"]))
    sys.exit(bool(content["failed"]))


def measurements(bench: Bench, names: list[str], rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is measured, and under which name: throughput first, then parity, without which no case counts."""
    for backbone in BACKBONES if THROUGHPUT in names else ():
        use = throughput(bench, backbone)
        click.echo(describe_throughput(use))
        yield "pretraining", use
    cases = [name for name in names if name != THROUGHPUT]
    if not cases:
        return
    checks = parity(bench)
    click.echo(f"parity: {', '.join(f'{name} differs by {value:.1e}' for name, value in checks.items())}")
    yield "parity", checks
    if checks["fp32_output"] > FP32_OUTPUT:
        raise click.ClickException("ours and the plain loops do not compute the same: there is nothing to compare")
    for name in cases:
        try:
            result = measured(CASES[name](bench), rounds, bench.device)
        except Exception as error:  # the other cases are measured all the same
            traceback.print_exc()
            yield "failed", {"case": name, "error": f"{type(error).__name__}: {error}"}
            continue
        click.echo(describe(result))
        yield "cases", result


def measured(case: Case, rounds: int, device: torch.device) -> dict[str, Any]:
    """Run a case's candidates in turn, once to warm up and then `rounds` times.

    Returns
    -------
    dict
        ``seconds``: minimum, median and maximum of each candidate. ``warm_up_seconds`` of each. ``ratios`` of the
        others' seconds to ours. What the case notes besides.
    """
    warm_up: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in case.runs}
    for index in range(rounds + 1):
        for name, run in case.runs.items():
            elapsed = _timed(run, device)
            if index:
                seconds[name].append(elapsed)
            else:
                warm_up[name] = elapsed
    ratios = {name: ratio(values, seconds["ours"]) for name, values in seconds.items() if name != "ours"}
    return {
        "case": case.name,
        "what": case.what,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "warm_up_seconds": warm_up,
        "ratios": ratios,
        **case.notes(),
    }


def ratio(others: list[float], ours: list[float]) -> dict[str, float]:
    """Return the ratio of the medians, and the least and greatest ratio within one round."""
    by_round = spread([other / own for other, own in zip(others, ours, strict=True)])
    return {**by_round, "median": statistics.median(others) / statistics.median(ours)}


def spread(values: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def describe_throughput(use: dict[str, Any]) -> str:
    """Return a pretraining's throughput as one line: what was measured, and what was compiled."""
    rate, skips = use["images_per_second"]["median"], use["cuda_graph_skips"]
    code = f"{use['compiled_graphs']} graphs compiled" if use["compiled_graphs"] else _code(use["compilation"])
    skipped = f", {skips} not replayed as CUDA graphs" if skips else ""
    return (
        f"{use['backbone']}  {rate:,.0f} images/s, {use['share']:.0%} of a matrix product, over {use['seconds']:.1f} s "
        f"after {use['warm_up_seconds']:.1f} s of warm-up; {code}{skipped}"
    )


def _code(compilation: dict[str, Any]) -> str:
    """Return what came of compiling a training, in a few words."""
    why = f" ({compilation['why_not']})" if compilation["why_not"] else ""
    return "compiled" if compilation["compiled"] and not why else f"not compiled{why}"


def describe(result: dict[str, Any]) -> str:
    """Return a case's ratios as one line."""
    parts = [f"{name} / ours {r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})" for name, r in result["ratios"].items()]
    code = f", {_code(result['compilation'])}" if "compilation" in result else ""
    return f"{result['case']}  {result['what']}{code}: {', '.join(parts)}"


def table(results: list[dict[str, object]]) -> str:
    """Return the results as a Markdown table."""
    rows = []
    for result in results:
        seconds: dict[str, dict[str, float]] = result["seconds"]  # type: ignore[assignment]
        ratios: dict[str, dict[str, float]] = result["ratios"]  # type: ignore[assignment]
        row = [result["case"], result["what"], f"{seconds['ours']['median']:.3f}"]
        for name in ("R1", "R2"):
            r = ratios.get(name)
            row.append(f"{r['median']:.2f} ({r['min']:.2f}–{r['max']:.2f})" if r else "")
        rows.append(row)
    headers = ["case", "what", "ours, s", "R1 / ours", "R2 / ours"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def throughput_table(uses: list[dict[str, Any]]) -> str:
    """Return how much of the hardware pretrainings use, as a Markdown table."""
    rows = [
        [
            use["backbone"],
            use["batch_size"],
            f"{use['images_per_second']['median']:,.0f}",
            f"{use['tflops']:.1f}",
            f"{use['peak_tflops']:.1f}",
            f"{use['share']:.0%}",
            use["compiled_graphs"],
            use["cuda_graph_skips"],
        ]
        for use in uses
    ]
    headers = ["pretraining", "batch", "images/s", "TFLOP/s", "matrix product, TFLOP/s", "share"]
    headers += ["compiled graphs", "CUDA graphs skipped"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
