"""``mmc-bench connect``."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from mmc_bench.cli.options import device_option, download_option, list_option, place_options, precision_option, words_of
from mmc_bench.cli.plot import FORMATS
from mmc_bench.cli.run import put
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.settings import Matching, MatchingImages
from mmc_bench.running.connecting import PATHS, Connected, PathChanges, connect_ends, known
from mmc_bench.running.given import several
from mmc_bench.running.launch import Computing
from mmc_bench.running.session import Session
from mmc_bench.system.streams import tell


@click.command("connect", short_help="Measure the paths between any two checkpoints.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--backbone", metavar="NAME", help="Backbone that the weights belong to.  [default: a record's]")
@click.option("--dataset", metavar="NAME", help="Dataset to compare them on.  [default: a record's]")
@click.option(
    "--cue-rate", type=click.FloatRange(0, 1), help="Share of pretraining images with the cue, for the record."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the data.  [default: a record's, or 0]")
@list_option("paths", str, f"Paths to measure: {', '.join(PATHS)}.  [default: linear,permuted]")
@click.option("--points", type=click.IntRange(min=2), help="Points of a path, with its ends.  [default: 11]")
@list_option("splits", str, "Splits to print and draw; all four are measured.  [default: all]")
@click.option("--matching", type=click.Choice(get_args(Matching)), help="What permutations match.")
@click.option("--matching-images", type=click.Choice(get_args(MatchingImages)), help="What they are matched on.")
@click.option(
    "--batchnorm-images",
    type=click.IntRange(min=2),
    help="Training images that re-estimate BatchNorm, and that permutations are matched on.  [default: all]",
)
@click.option("--train-images", type=click.IntRange(min=0), help="Measure the paths on so many training images too.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the figure and its CSV.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="File format.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
@download_option
@device_option
@precision_option
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads.  [default: the suite's, or OMP_NUM_THREADS, or all cores]",
)
@place_options
def command(session: Session, first: str, second: str, **options: Any) -> None:
    """Measure the paths between two checkpoints A and B, and say by what mechanisms they work.

    Each is the key of a pretraining's or cell's record (its first six digits do), a record's JSON file, or a file of
    weights (.safetensors, .pt, .pth, .bin, .ckpt). Two files alone need --backbone and --dataset. The result is kept
    as a record: the same call computes nothing again.
    """
    splits = known("split", words_of(options["splits"]), SPLITS) or SPLITS
    settings = (options[name] for name in ("points", "matching", "matching_images", "batchnorm_images", "train_images"))
    changes = PathChanges.of(words_of(options["paths"]), *settings)
    computing = Computing(**{name: options[name] for name in ("download", "device", "precision", "threads")})
    chosen = {"cue_rates": several(options["cue_rate"]), "seeds": several(options["seed"])}
    session = replace(session, selection=chosen)
    connected = connect_ends(session, (first, second), options["dataset"], options["backbone"], changes, computing)
    figures = connected.plot(splits).save(options["out"], options["formats"] or FORMATS)
    _print(connected, splits, figures, options["as_json"])


def _print(connected: Connected, splits: Sequence[str], figures: Sequence[Path], as_json: bool) -> None:
    record = connected.record
    if as_json:
        content = {
            "cached": connected.cached,
            "file": str(connected.file),
            "figures": [str(path) for path in figures],
            "record": record.model_dump(mode="json"),
        }
        put(json.dumps(content, indent=1) + "\n")
    else:
        put(connected.table(splits))
    seconds = sum(record.timing.seconds.values())
    done = "read back, nothing computed" if connected.cached else f"computed in {seconds:.0f} s"
    tell(f"{done}; record {connected.file}; figures {', '.join(map(str, figures))}")
