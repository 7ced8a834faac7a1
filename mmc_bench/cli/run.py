"""``mmc-bench run``."""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from mmc_bench.cli.cluster import cluster_options
from mmc_bench.cli.options import (
    AMOUNT,
    device_option,
    download_option,
    keep_predictions_option,
    list_option,
    precision_option,
    session_options,
    shard_option,
)
from mmc_bench.running.session import DEFAULT_SUITE, Session

if TYPE_CHECKING:
    from mmc_bench.running.summary import Summary


@click.command("run", short_help="Run a suite and print the table.")
@download_option
@device_option
@precision_option
@click.option(
    "--deterministic",
    is_flag=True,
    help="Use deterministic algorithms alone, so that a GPU repeats itself; slower.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Worker processes; 0 runs everything in this one.  "
    "[default: cores / threads; 1 for each GPU; as many as a Ray cluster has room for]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of a worker.  "
    "[default: the suite's, or cores / workers, at most OMP_NUM_THREADS; on a cluster --cpus-per-cell]",
)
@click.option("--keep-weights", is_flag=True, help="Keep the fine-tuned weights too.")
@keep_predictions_option
@click.option("--dry-run", is_flag=True, help="Say what would run, what is cached, and the estimated work.")
@click.option("--profile", is_flag=True, help="Print the seconds by part as well, and the share of the peak.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
@click.option("--retry-failed", is_flag=True, help="Run only what failed before.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option(
    "--time-limit",
    type=AMOUNT,
    metavar="MINUTES",
    help="Stop after so long, as Ctrl-C does; the same command goes on from there.",
)
@click.option(
    "--cell-timeout",
    type=AMOUNT,
    metavar="MINUTES",
    help="Let a cell (or pretraining) fail that takes longer.",
)
@click.option(
    "--cell-memory",
    type=AMOUNT,
    metavar="GB",
    help="Let a cell (or pretraining) fail whose worker takes more memory.",
)
@click.option(
    "--image-memory",
    type=AMOUNT,
    metavar="GB",
    help="Leave images in their file, and render splits batch by batch, where they take more memory.  [default: 2]",
)
@cluster_options
@list_option("observe", str, "Observers of the run, separated by commas: see mmc-bench list observers.")
@shard_option
@session_options(DEFAULT_SUITE)
def command(session: Session, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Run a suite: pretrain backbones on cued images, let methods repair them, score and connect the results.

    What has a record already is not run again, so an interrupted run goes on where it stopped. Cells that
    failed are tried again.
    """
    if dry_run:
        from mmc_bench.running.preview import preview

        would = preview(session, options["retry_failed"], options["keep_predictions"])
        click.echo(json.dumps(would.as_dict(), indent=1) if as_json else str(would))
        return
    from mmc_bench.running.display import display_of
    from mmc_bench.running.launch import Computing, run_session

    display = display_of(session.plan.suite.name)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results alone, whatever observers print
        summary = run_session(session, Computing(**options), display)
    print_results(session, summary, as_json, options["profile"])
    display.close(summary, session.store.root)
    raise click.exceptions.Exit(summary.exit_code)


def print_results(session: Session, summary: "Summary", as_json: bool, profiled: bool) -> None:
    """Print the rows of a session that has run."""
    from mmc_bench.running.runner import found_scores
    from mmc_bench.running.selection import rows_of

    plan = session.current_plan
    rows = rows_of(plan, *found_scores(plan, session.store))
    if as_json:
        content = {
            "suite": session.plan.suite.name,
            "results": str(session.store.root),
            **summary.as_dict(),
            "rows": [row.as_dict() for row in rows],
            **({"profile": summary.profile.as_dicts()} if profiled else {}),
        }
        put(json.dumps(content, indent=1) + "\n")
    elif rows:
        from mmc_bench.report.row_tables import render

        put(render(rows, "md"))
    if profiled and not as_json:
        put(f"\n{summary.profile}\n")


def put(text: str) -> None:
    """Print results on stdout; a closed pipe must not hide how the run went."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(text, nl=False)
