"""``mmc-bench score``."""

from typing import Any

import click

from mmc_bench.cli.options import (
    device_option,
    download_option,
    keep_predictions_option,
    list_option,
    place_options,
    precision_option,
)
from mmc_bench.cli.run import print_results
from mmc_bench.running.session import DEFAULT_SUITE, Session


@click.command("score", short_help="Score a checkpoint of your own.")
@click.argument("checkpoint", metavar="[NAME=]FILE")
@list_option("backbone", str, "Architecture of the checkpoint.", "backbones")
@list_option("datasets", str, "Datasets.  [default: the suite's]")
@list_option("seeds", int, "Seeds of the data.")
@click.option("--suite", metavar="NAME|FILE", help=f"Suite with the data and settings.  [default: {DEFAULT_SUITE}]")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads.  [default: the suite's, or OMP_NUM_THREADS, or all cores]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
@keep_predictions_option
@download_option
@device_option
@precision_option
@place_options
def command(session: Session, as_json: bool, **options: Any) -> None:
    """Score the weights in FILE on images with and without a cue, to see how far they rely on it.

    FILE is a .safetensors file, or a state_dict saved with torch.save. To apply methods to it, use run --checkpoint.
    """
    from mmc_bench.running.display import display_of
    from mmc_bench.running.launch import Computing, run_session

    session = session.without_methods
    display = display_of(session.plan.suite.name)
    summary = run_session(session, Computing(**options, workers=0), display)
    print_results(session, summary, as_json, profiled=False)
    display.close(summary, session.store.root)
    raise click.exceptions.Exit(summary.exit_code)
