"""``mmc-bench plot``."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from mmc_bench.cli.options import EVERY_RECORD, download_option, protocol_option, session_options
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.running.selection import about_none, curves_of, records_of_protocol, selected_pairs
from mmc_bench.running.session import Session

FORMATS = ("png", "svg", "csv")
PICTURES = ("png", "svg")


@click.command("plot", short_help="Draw the results at hand, or images of a dataset.")
@click.option("--dataset", metavar="NAME", help="Draw images of this dataset on the four splits instead of results.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the figures.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="Pictures, and the numbers in them as CSV.  [default: all three]",
)
@click.option("--paths/--no-paths", default=True, help="Whether to draw the path curves of every cell.")
@download_option
@protocol_option
@session_options(EVERY_RECORD)
def command(
    session: Session,
    dataset: str | None,
    out: str,
    formats: tuple[str, ...],
    paths: bool,
    download: bool,
    protocol: str | None,
) -> None:
    """Draw the results at hand: bars of the four splits, path curves, and panels over all cue rates.

    A suite with axes whose values are numbers gets a figure for each: NC, RC and the cue reliance of every method.
    Each setting with methods gets a bar chart and each cell its path curves. Pairs of models, and cells at several
    cue rates or with other paths than the straight one, get panels with a colour for each cue rate, of the accuracy
    and of the loss, on test images and on training images where these were measured. Learning curves are drawn where
    no method was applied. Where methods are tuned, cells with the published parameters are drawn, or with those of
    --protocol. The same options as for `table` select what is drawn. With --dataset, draw a gallery of test images
    instead: of each class (ten at most), and several of few classes, on each of the four splits.
    """
    formats = formats or FORMATS
    if dataset is None:
        _draw_results(session, Path(out), formats, paths, protocol)
        return
    chosen = tuple(name for name in formats if name in PICTURES)
    if not chosen:
        raise UserError(f"--dataset draws {' and '.join(PICTURES)}, not {', '.join(formats)}")
    from mmc_bench.running.interactive import gallery

    session = replace(session, selection={**session.selection, "datasets": [dataset]})
    for picture in gallery(session, download):
        _print(picture.save(out, chosen))


def _draw_results(session: Session, folder: Path, formats: tuple[str, ...], paths: bool, protocol: str | None) -> None:
    cells, pretrained = records_of_protocol(session, protocol)
    pairs = selected_pairs(session)
    if not (cells or pretrained or pairs):
        raise NothingSelectedError(about_none(session))
    from mmc_bench.report.pictures import pictures_of

    written: set[Path] = set()
    along = curves_of(session, cells, pretrained, protocol) if session.has_suite and session.plan.points else []
    for picture in pictures_of(cells, pretrained, pairs, paths, along):
        saved = picture.save(folder, formats)
        _print(path for path in saved if path not in written)
        written.update(saved)


def _print(paths: Iterable[Path]) -> None:
    for path in paths:
        click.echo(path)
