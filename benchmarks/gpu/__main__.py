"""``python -m benchmarks.gpu``: a prepared check on a GPU, within a time limit."""

import os
import sys
import time
from pathlib import Path

import click
from tabulate import tabulate

from ..speed.place import there, write_json
from .steps import Step, done, read_json, skipped

PROBE, SPEED = f"{__package__}.probe", f"{__package__.rpartition('.')[0]}.speed"
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
#: What `--tiny` leaves of a run.
SMALL: tuple[str, ...] = (
    "--methods",
    "ft-small",
    "--seeds",
    "0",
    "--workers",
    "0",
    "--set",
    "data.pretrain_images=100",
)
SMALL += ("--set", "pretrain.epochs=1", "--set", "connect.points=3", "--set", "connect.batchnorm_images=50")


@click.command()
@click.option("--device", default="cuda", show_default=True, callback=there, help="cuda, cuda:1, … or cpu.")
@click.option("--tiny", is_flag=True, help="As small as can be, to see that every step runs.")
@click.option("--minutes", default=9.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="In all.")
@click.option("--only", help="Steps to run, separated by commas.")
@click.option("--cifar10", type=FOLDER, help="Class folders of CIFAR-10, for a stretch of Table 1.")
@click.option("--out", default="gpu-check", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(device: str, tiny: bool, minutes: float, only: str | None, cifar10: Path | None, out: Path) -> None:
    """Check what a run meets on a GPU, how fast it is, and why not faster.

    Each step has a limit of its own, and a step that fails stops no other. --out gets a log and a JSON file of each
    step, and check.json of all, where those of --only replace what was there. The exit code is 1 where a step failed or
    was too slow, or where there was time for none.
    """
    begin = time.perf_counter()
    if tiny:
        os.environ["OMP_NUM_THREADS"] = "1"  # of the steps' processes, too
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    steps = {step.name: step for step in steps_of(device, tiny, out, cifar10)}
    names = only.split(",") if only else list(steps)
    if unknown := [name for name in names if name not in steps]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(steps)}", param_hint="--only")
    results = []
    kept = {one["step"]: one for one in (read_json(out / "check.json") or {"steps": []})["steps"]} if only else {}
    for name in names:
        left = 60 * minutes - (time.perf_counter() - begin)
        step = steps[name]
        result = done(step, out, min(step.seconds, left)) if left > min(15, step.seconds) else skipped(step)
        results.append(result)
        click.echo(f"{name}: {result['state']}, {result['seconds']:.1f} s")
        kept[name] = {**result, "device": device, "tiny": tiny}
        write_json(out / "check.json", {"steps": list(kept.values())})
    rows = [[r["step"], r["what"], r["state"], f"{r['seconds']:.1f}"] for r in results]
    click.echo("\n" + tabulate(rows, ["step", "what", "state", "seconds"], tablefmt="github", disable_numparse=True))
    states = {r["state"] for r in results}
    sys.exit(bool(states & {"failed", "too slow"}) or states == {"skipped"})


def steps_of(device: str, tiny: bool, out: Path, cifar10: Path | None) -> list[Step]:
    """Return the steps, the most telling first."""

    def probe(name: str, seconds: float, what: str) -> Step:
        words = (name, "--device", device, "--json", "FILE", *(["--tiny"] if tiny else []))
        return Step(name, what, seconds, PROBE, words)

    def run(name: str, seconds: float, what: str, *words: str) -> Step:
        results = out / f"{name}-results"
        all_words = ("run", "--device", device, "--results", str(results), *words, *(SMALL if tiny else ()))
        return Step(name, what, seconds, "mmc_bench", all_words, results)

    table: tuple[str, ...] = ("--suite", "table1", "--datasets", "cifar10-box", "--cue-rates", "0.8", "--seeds", "0")
    table += ("--methods", "ft-medium,llr,lpft,cbft,groupdro,fine-pruning", "--set", "pretrain.epochs=12")
    table += ("--data", f"cifar10={cifar10}")
    long = ("--methods", "ft-small", "--seeds", "0", "--set", "pretrain.batch_size=16", "--set", "pretrain.epochs=50")
    cases: tuple[str, ...] = ("--only", "throughput") if tiny else ("--rounds", "3")
    return [
        probe("machine", 30, "the GPU, the versions"),
        probe("ceilings", 75, "matrix product, copy, convolutions alone"),
        probe("step", 180, "a ResNet-18 step: eager, compiled, in one graph, several models at once"),
        probe("parity", 35, "the same numbers as the plain loops"),
        probe("waits", 60, "every method on the device; what its steps wait for"),
        probe("replays", 60, "steps that are replayed, beside the same that are called"),
        run("default", 90, "mmc-bench run"),
        run("workers", 60, "four workers on one GPU", "--workers", "4"),
        probe("poisoned", 60, "the jobs after a device-side assert"),
        probe("memory", 45, "a training in too little memory"),
        probe("twice", 40, "the same training twice"),
        run("compiled", 90, "a run long enough to be compiled", *long),
        probe("deterministic", 150, "every method twice, with deterministic algorithms"),
        *([run("table1", 120, "a stretch of Table 1", *table)] if cifar10 else []),
        Step("speed", "benchmarks.speed", 150, SPEED, ("--device", device, "--json", "FILE", *cases)),
    ]


if __name__ == "__main__":
    main()
