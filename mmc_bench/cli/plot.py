"""``mmc-bench plot``."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import click

from mmc_bench.cli.options import Session, session_options
from mmc_bench.cli.table import selected_records
from mmc_bench.data.locations import check_present
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.rows import cell_labels, make_rows

FORMATS = ("png", "svg")


@click.command("plot", short_help="Draw the results at hand, or images of a data set.")
@click.option("--dataset", metavar="NAME", help="Draw images of this data set on the four splits instead of results.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the figures.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="File format.  [default: both]")
@click.option("--paths/--no-paths", default=True, help="Whether to draw the path curves of every cell.")
@click.option("--download/--no-download", default=True, help="Whether missing images may be downloaded.")
@session_options
def command(
    session: Session, dataset: str | None, out: str, formats: tuple[str, ...], paths: bool, download: bool
) -> None:
    """Draw the results at hand: a bar chart of the four splits for each setting, and each cell's path curves.

    The same options as for `table` select what is drawn. With --dataset, draw a gallery of test images
    instead: one of each class (ten at most), on each of the four splits.
    """
    folder, formats = Path(out), formats or FORMATS
    if dataset is not None:
        _draw_dataset(session, dataset, folder, formats, download)
    else:
        _draw_results(session, folder, formats, paths)


def _draw_results(session: Session, folder: Path, formats: tuple[str, ...], paths: bool) -> None:
    cells, pretrained = selected_records(session)
    rows = make_rows(cells, pretrained)
    if not rows:
        raise NothingSelectedError(f"no record in {session.store.root} is selected: mmc-bench run makes some")
    from mmc_bench.report.figures import draw_bars, draw_path, file_names, save

    with writable(folder):
        for place, group in groupby(rows, key=lambda row: (row.dataset, row.backbone, row.cue_rate)):
            figure = draw_bars(list(group))
            _tell(save(figure, folder, f"splits-{place[0]}-{place[1]}-{place[2]:g}", formats))
        labels = cell_labels(cells)
        names = file_names({key: f"path {label}" for key, label in labels.items()})
        for record in cells if paths else ():
            _tell(save(draw_path(record, labels[record.key]), folder, names[record.key], formats))


def _draw_dataset(session: Session, name: str, folder: Path, formats: tuple[str, ...], download: bool) -> None:
    """Draw the first seed's test splits, as a run with the same options would make them."""
    session = replace(session, selection={**session.selection, "datasets": [name]})
    plan = session.plan
    if not download:
        check_present(session.data, session.wanted_sources([name]))
    import torch

    from mmc_bench.data.sources import Sources
    from mmc_bench.report.figures import save
    from mmc_bench.report.gallery import draw_gallery
    from mmc_bench.stages.workshop import Workshop

    device = torch.device("cpu")
    sources = Sources(session.data, download)
    workshop = Workshop(session.registry, session.store, sources, device=device, threads=1)
    for dataset, group in groupby(plan.pretrainings, key=lambda pretraining: pretraining.dataset.name):
        figure = draw_gallery(dataset, workshop.data(next(group)).splits)
        with writable(folder):
            _tell(save(figure, folder, f"images-{dataset}", formats))


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder; where it cannot be written to, say so in a sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"figures cannot be written to {folder} ({error.strerror}): choose another --out") from None


def _tell(paths: list[Path]) -> None:
    for path in paths:
        click.echo(path)
