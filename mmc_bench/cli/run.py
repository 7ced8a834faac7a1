"""``mmc-bench run``."""

import contextlib
import json
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmc_bench.cli.cluster import Cluster, cluster_options
from mmc_bench.cli.console import LineConsole, closing_line
from mmc_bench.cli.interrupts import interrupted_after, raised_interrupts
from mmc_bench.cli.options import Session, list_option, session_options, shard_option
from mmc_bench.cli.streams import tell
from mmc_bench.data.locations import check_present
from mmc_bench.engines import Engine, Settings
from mmc_bench.errors import UserError
from mmc_bench.report.rows import make_rows
from mmc_bench.running.observers import Observers
from mmc_bench.running.runner import (
    Missing,
    Summary,
    check_plugins,
    find_missing,
    found_records,
    found_scores,
    run_plan,
)
from mmc_bench.system.processes import available_cores

if TYPE_CHECKING:
    from mmc_bench.engines.local import Limits


@click.command("run", short_help="Run a suite and print the table.")
@click.option("--download/--no-download", default=True, help="Whether missing images may be downloaded.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "fp32", "bf16")),
    help="Arithmetic; auto is bf16 where the hardware gains from it.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Worker processes; 0 runs everything in this one.  "
    "[default: cores / threads; 1 on a GPU; as many as a Ray cluster has room for]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of a worker.  [default: the suite's, or cores / workers, or --cpus-per-cell]",
)
@click.option("--keep-weights", is_flag=True, help="Keep the fine-tuned weights too.")
@click.option("--dry-run", is_flag=True, help="Say what would run, what is cached, and the estimated work.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
@click.option("--retry-failed", is_flag=True, help="Run only what failed before.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="Stop after so long, as Ctrl-C does; the same command goes on from there.",
)
@click.option(
    "--cell-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="Let a cell (or pretraining) fail that takes longer.",
)
@click.option(
    "--cell-memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Let a cell (or pretraining) fail whose worker takes more memory.",
)
@cluster_options
@list_option("observe", str, "Observers to tell of the run, separated by commas: see mmc-bench list observers.")
@shard_option
@session_options
def command(session: Session, dry_run: bool, as_json: bool, retry_failed: bool, **options: Any) -> None:
    """Run a suite: pretrain backbones on cued images, let methods repair them, score and connect the results.

    What has a record already is not run again, so an interrupted run goes on where it stopped. Cells that
    failed are tried again.
    """
    started = time.monotonic()
    plan, chosen = session.plan, session.observers
    if dry_run:
        from mmc_bench.cli.dryrun import print_dry_run

        overridden = {setting.partition("=")[0].rpartition(".")[0] for setting in session.settings}
        check_plugins(plan, overridden)
        Observers.of(session.registry, [(offer, given) for offer, given in chosen if given])
        print_dry_run(plan, session.store, find_missing(plan, session.store, retry_failed), as_json)
        return
    missing = find_missing(plan, session.store, retry_failed)
    if options["keep_weights"]:
        _tell_of_weights(session)
    if options["precision"] != "auto":
        _tell_of_precision(session, options["precision"])
    summary = _run_missing(session, missing, started, **options)
    _print_results(session, summary, as_json)
    raise click.exceptions.Exit(summary.exit_code)


def _run_missing(
    session: Session,
    missing: Missing,
    started: float,
    download: bool,
    device: str,
    fail_fast: bool,
    keep_weights: bool,
    time_limit: float | None,
    cluster: Cluster,
    **options: Any,
) -> Summary:
    """Check what can be checked beforehand, then run. A time limit counts from `started`."""
    plan, registry = session.plan, session.registry
    session.store.sweep()
    if not missing.jobs:
        return Summary.before(plan, missing)
    session.store.check_writable()
    if not download:
        check_present(session.data, session.wanted_sources(plan.suite.datasets))
    check_plugins(plan)
    observers = Observers.of(registry, session.observers)
    workers, threads = options["workers"], options["threads"] or plan.suite.threads
    if cluster.is_chosen:
        device, threads = cluster.device(device), threads or cluster.threads
    else:
        device = resolve_device(device)
        workers, threads = share_cores(device, workers, threads)
    settings = worker_settings(session, download, device, options["precision"], threads, keep_weights)
    settings = replace(settings, gpu_share=cluster.gpu_share)
    limits = _limits(options["cell_timeout"], options["cell_memory"])
    engine = cluster.engine(workers, threads, limits) if cluster.is_chosen else _local_engine(workers, limits)
    # What observers print is no result, and standard output is for results alone.
    with (
        contextlib.redirect_stdout(sys.stderr),
        raised_interrupts(),
        interrupted_after(time_limit, started),
        console_of(plan.suite.name) as console,
    ):
        return run_plan(plan, missing, engine, settings, observers, console, fail_fast)


def _limits(minutes: float | None, gigabytes: float | None) -> "Limits":
    from mmc_bench.engines.local import GIGABYTE, Limits

    return Limits(60 * minutes if minutes else None, round(gigabytes * GIGABYTE) if gigabytes else None)


def _local_engine(workers: int, limits: "Limits") -> Engine:
    """Return what runs the jobs on this machine."""
    from mmc_bench.engines.local import InProcessEngine, Limits, LocalEngine

    if workers:
        return LocalEngine(workers, limits)
    if limits != Limits():
        raise UserError("--cell-timeout and --cell-memory stop a worker process: use --workers 1 or more")
    import_module("mmc_bench.stages.cell")  # imports torch, which may swallow what Ctrl-C raises later
    return InProcessEngine()


def worker_settings(
    session: Session, download: bool, device: str, precision: str, threads: int, keep_weights: bool = False
) -> Settings:
    """Return what a worker needs to know; the device is a resolved one."""
    return Settings(
        results=str(session.store.root.resolve()),
        plugin_folders=tuple(str(Path(folder).resolve()) for folder in session.plugin_folders),
        data_folders=tuple((name, str(Path(folder).resolve())) for name, folder in session.data.items()),
        download=download,
        device=device,
        precision=precision,
        threads=threads,
        keep_weights=keep_weights,
    )


def _tell_of_precision(session: Session, precision: str) -> None:
    """Say how many finished cells were computed in another precision than the one asked for."""
    records, _ = found_records(session.plan, session.store)
    others = sum(record.provenance.precision != precision for record in records)
    if others:
        tell(f"mmc-bench: {others} cached cells were not computed in {precision}; another --results makes them anew")


def _tell_of_weights(session: Session) -> None:
    """Say how many finished cells will not get the weights that ``--keep-weights`` asks for."""
    records, _ = found_records(session.plan, session.store)
    without = sum(record.weights_sha256 is None for record in records)
    if without:
        which = "1 cached cell keeps no weights: delete its record to make it again"
        if without > 1:
            which = f"{without} cached cells keep no weights: delete their records to make them again"
        tell(f"mmc-bench: {which}")


def console_of(suite: str) -> LineConsole:
    """Return live bars where stderr is a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        return LineConsole()
    from mmc_bench.cli.live import LiveConsole

    return LiveConsole(suite)


def resolve_device(name: str) -> str:
    """Return the device to compute on; ``auto`` is a CUDA GPU where there is one, else the CPU.

    Raises
    ------
    UserError
        When torch does not know the device, or it is not there.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"--device {name} cannot be used ({reason}): use cpu or auto") from None
    return name


def share_cores(device: str, workers: int | None, threads: int | None) -> tuple[int, int]:
    """Return the number of workers and the threads of each, so that together they fill the cores."""
    cores = available_cores()
    if workers is None:
        workers = 1 if device != "cpu" or threads is None else max(1, cores // threads)
    return workers, threads or max(1, cores // max(1, workers))


def _print_results(session: Session, summary: Summary, as_json: bool) -> None:
    cells, pretrained = found_scores(session.plan, session.store)
    rows = make_rows(cells, pretrained)
    if as_json:
        content = {
            "suite": session.plan.suite.name,
            "results": str(session.store.root),
            **summary.as_dict(),
            "rows": [row.as_dict() for row in rows],
        }
        put(json.dumps(content, indent=1) + "\n")
    elif rows:
        from mmc_bench.report.row_tables import render

        put(render(rows, "md"))
    closing_line(summary, session.store.root)


def put(text: str) -> None:
    """Print results on stdout; that nobody reads them any more must not hide how the run went."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(text, nl=False)
