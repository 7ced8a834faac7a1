"""``mmc-bench connect``."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from mmc_bench.cli.options import Session, list_option, place_options
from mmc_bench.cli.plot import FORMATS, writable
from mmc_bench.cli.run import put, resolve_device, share_cores, worker_settings
from mmc_bench.cli.streams import tell
from mmc_bench.data.locations import check_present
from mmc_bench.errors import UserError, nearest
from mmc_bench.results.jobs import Connection, ConnectSettings, Matching, PathName
from mmc_bench.results.leases import Leases, leased
from mmc_bench.results.records import SPLITS, ConnectionRecord
from mmc_bench.running.runner import check_plugins
from mmc_bench.stages.checkpoints import experiment_suite, locate
from mmc_bench.suites.plan import Plan

LONGEST_NAME = 60  # of a file, in the figures' names


@click.command("connect", short_help="Measure the paths between any two checkpoints.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--backbone", metavar="NAME", help="Backbone that the weights belong to.  [default: a record's]")
@click.option("--dataset", metavar="NAME", help="Data set to compare them on.  [default: a record's]")
@click.option(
    "--cue-rate", type=click.FloatRange(0, 1), help="Share of pretraining images with the cue, for the record."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the data.  [default: a record's, or 0]")
@list_option("paths", str, f"Paths to measure: {', '.join(get_args(PathName))}.  [default: linear,permuted]")
@click.option("--points", type=click.IntRange(min=2), help="Points of a path, with its ends.  [default: 11]")
@list_option("splits", str, "Splits to print and draw; all four are measured.  [default: all]")
@click.option("--matching", type=click.Choice(get_args(Matching)), help="What permutations match.")
@click.option(
    "--batchnorm-images",
    type=click.IntRange(min=2),
    help="Cue-free training images that re-estimate BatchNorm and that permutations are matched on.  [default: all]",
)
@click.option("--train-images", type=click.IntRange(min=0), help="Measure the paths on so many training images too.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the figure and its CSV.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="File format.  [default: both]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
@click.option("--download/--no-download", default=True, help="Whether missing images may be downloaded.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "fp32", "bf16")),
    help="Arithmetic; auto is bf16 where the hardware gains from it.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@place_options
def command(session: Session, first: str, second: str, **options: Any) -> None:
    """Measure the paths between two checkpoints A and B, and say by what mechanisms they work.

    Each is the key of a pretraining's or cell's record (its first six digits do), a record's JSON file, or a
    .safetensors file. Two files alone need --backbone and --dataset. The result is kept as a record: the same
    call computes nothing again.
    """
    splits = _known("split", options["splits"], SPLITS) or SPLITS
    sources = [locate(text, session.store) for text in (first, second)]
    suite = experiment_suite(sources, options["dataset"], options["backbone"])
    session = replace(session, selection=_overriding(options))
    plan = _plan_of_one(session, session.plan_of(suite))
    (a, a_content), (b, b_content) = (source.read() for source in sources)
    settings = _connect_settings(plan.suite.connect, options)
    connection = Connection(first=a, second=b, experiment=plan.pretrainings[0], connect=settings)
    record = session.store.find_connection(connection)
    cached = record is not None
    if record is None:
        record = _measured(session, plan, connection, (a_content, b_content), options)
    else:  # the same weights may have other names by now
        record = record.model_copy(update={"connection": connection})
        if options["precision"] not in ("auto", record.provenance.precision):
            tell(f"the record at hand is in {record.provenance.precision}: remove it to have it measured again")
    names = "-".join(source.name[:LONGEST_NAME] for source in sources)
    name = f"connect-{names}-{record.key[:8]}"
    figures = _drawn(record, splits, Path(options["out"]), name, options["formats"] or FORMATS)
    _print(session, record, splits, figures, cached, options["as_json"])


def _known(what: str, lists: Sequence[Sequence[str]], known: Sequence[str]) -> tuple[str, ...]:
    """Return the words of an option, each once; one that is not known is refused."""
    words = dict.fromkeys(word for words in lists for word in words)
    for word in words:
        if word not in known:
            raise UserError(f"unknown {what} {word!r}: {nearest(word, known)}")
    return tuple(words)


def _overriding(options: dict[str, Any]) -> dict[str, list[Any]]:
    chosen = {"cue_rates": options["cue_rate"], "seeds": options["seed"]}
    return {field: [] if value is None else [value] for field, value in chosen.items()}


def _plan_of_one(session: Session, plan: Plan) -> Plan:
    for setting in session.settings:
        if setting.strip().startswith("pretrain."):
            raise UserError(f"--set {setting}: connect pretrains nothing; set connect.…, data.… or PLUGIN.parameter")
    if len(plan.pretrainings) != 1:
        raise UserError(f"--dataset and --backbone select {len(plan.pretrainings)} experiments: name one of each")
    return plan


def _connect_settings(settings: ConnectSettings, options: dict[str, Any]) -> ConnectSettings:
    changes = {
        "paths": _known("path", options["paths"], get_args(PathName)) or None,
        **{name: options[name] for name in ("points", "matching", "batchnorm_images", "train_images")},
    }
    return settings.model_copy(update={name: value for name, value in changes.items() if value is not None})


def _measured(
    session: Session, plan: Plan, connection: Connection, contents: tuple[bytes, bytes], options: dict[str, Any]
) -> ConnectionRecord:
    """Check what can be checked beforehand, then measure."""
    session.store.check_writable()
    if not options["download"]:
        check_present(session.data, session.wanted_sources(plan.suite.datasets))
    check_plugins(plan)
    device = resolve_device(options["device"])
    _, threads = share_cores(device, 1, options["threads"] or plan.suite.threads)
    settings = worker_settings(session, options["download"], device, options["precision"], threads)
    from mmc_bench.engines.worker import open_workshop
    from mmc_bench.stages.checkpoint_pairs import compare_checkpoints

    wanted = connection.connect
    tell(f"measuring {', '.join(wanted.paths)} at {wanted.points} points on {device} in {settings.precision}")
    workshop = open_workshop(settings)
    label = f"{connection.first.label} – {connection.second.label}"
    with Leases(workshop.store.locks) as leases, leased(leases, connection.key, label):
        found = workshop.store.find_connection(connection)
        return found or compare_checkpoints(connection, contents, workshop)


def _drawn(
    record: ConnectionRecord, splits: Sequence[str], folder: Path, name: str, formats: Sequence[str]
) -> list[Path]:
    from mmc_bench.report.checkpoint_tables import render
    from mmc_bench.report.figures import draw_connection, save

    with writable(folder):
        return save(draw_connection(record, splits), folder, name, formats, render(record, splits, "csv"))


def _print(
    session: Session,
    record: ConnectionRecord,
    splits: Sequence[str],
    figures: Sequence[Path],
    cached: bool,
    as_json: bool,
) -> None:
    file = session.store.file_of(record.connection)
    if as_json:
        content = {
            "cached": cached,
            "file": str(file),
            "figures": [str(path) for path in figures],
            "record": record.model_dump(mode="json"),
        }
        put(json.dumps(content, indent=1) + "\n")
    else:
        from mmc_bench.report.checkpoint_tables import render

        put(render(record, splits, "md"))
    seconds = sum(record.timing.seconds.values())
    done = "read back, nothing computed" if cached else f"computed in {seconds:.0f} s"
    tell(f"{done}; record {file}; figures {', '.join(map(str, figures))}")
