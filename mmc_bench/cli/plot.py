"""``mmc-bench plot``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmc_bench.cli.options import Session, session_options
from mmc_bench.cli.table import selected_pairs, selected_records
from mmc_bench.data.locations import check_present
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.rows import PRETRAINED, cell_labels, make_rows
from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord

if TYPE_CHECKING:
    from mmc_bench.report.curves import Panels

FORMATS = ("png", "svg", "csv")
PICTURES = ("png", "svg")


@click.command("plot", short_help="Draw the results at hand, or images of a data set.")
@click.option("--dataset", metavar="NAME", help="Draw images of this data set on the four splits instead of results.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the figures.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="Pictures, and the numbers in them as CSV.  [default: all three]",
)
@click.option("--paths/--no-paths", default=True, help="Whether to draw the path curves of every cell.")
@click.option("--download/--no-download", default=True, help="Whether missing images may be downloaded.")
@session_options
def command(
    session: Session, dataset: str | None, out: str, formats: tuple[str, ...], paths: bool, download: bool
) -> None:
    """Draw the results at hand: bars of the four splits, path curves, and panels over all cue rates.

    Each setting with methods gets a bar chart and each cell its path curves. Pairs of models, and cells at several
    cue rates or with other paths than the straight one, get panels with a colour for each cue rate; so do learning
    curves, where no method was applied. The same options as for `table` select what is drawn. With --dataset, draw
    a gallery of test images instead: one of each class (ten at most), on each of the four splits.
    """
    folder, formats = Path(out), formats or FORMATS
    if dataset is not None:
        pictures = tuple(name for name in formats if name in PICTURES)
        if not pictures:
            raise UserError(f"--dataset draws {' and '.join(PICTURES)}, not {', '.join(formats)}")
        _draw_dataset(session, dataset, folder, pictures, download)
    else:
        _draw_results(session, folder, formats, paths)


def _draw_results(session: Session, folder: Path, formats: tuple[str, ...], paths: bool) -> None:
    cells, pretrained = selected_records(session)
    pairs = selected_pairs(session)
    if not (cells or pretrained or pairs):
        raise NothingSelectedError(f"no record in {session.store.root} is selected: mmc-bench run makes some")
    from mmc_bench.report.figures import file_names, save
    from mmc_bench.report.panels import draw_panels

    panels = _panels(cells, pretrained, pairs)
    names = file_names({f"{item.key}-{item.name}": item.name for item in panels})
    with writable(folder):
        _draw_bars(cells, pretrained, bool(panels), folder, formats)
        for item in panels:
            _tell(save(draw_panels(item), folder, names[f"{item.key}-{item.name}"], formats, item.as_csv()))
        if paths:
            _draw_paths(cells, folder, formats)


def _panels(
    cells: Sequence[CellRecord], pretrained: Sequence[PretrainRecord], pairs: Sequence[PairRecord]
) -> list["Panels"]:
    """Return all panels; learning curves only where no method was applied, and so nothing was learnt after them."""
    from mmc_bench.report import curves

    return [
        *(item for group in curves.group_pairs(pairs) for item in curves.panels_of_pairs(group)),
        *(item for group in curves.group_cells(cells) for item in curves.panels_of_cells(group)),
        *([] if cells else curves.panels_of_learning(curves.group_models(pretrained))),
    ]


def _draw_bars(
    cells: Sequence[CellRecord],
    pretrained: Sequence[PretrainRecord],
    has_panels: bool,
    folder: Path,
    formats: tuple[str, ...],
) -> None:
    """Draw a bar chart of each setting; of a pretrained model alone only where there are no panels to show it."""
    from mmc_bench.report.figures import draw_bars, save
    from mmc_bench.report.row_tables import render

    for place, grouped in groupby(
        make_rows(cells, pretrained), key=lambda row: (row.dataset, row.backbone, row.cue_rate)
    ):
        rows = list(grouped)
        if has_panels and all(row.method == PRETRAINED for row in rows):
            continue
        name = f"splits-{place[0]}-{place[1]}-{place[2]:g}"
        _tell(save(draw_bars(rows), folder, name, formats, render(rows, "csv")))


def _draw_paths(cells: Sequence[CellRecord], folder: Path, formats: tuple[str, ...]) -> None:
    from mmc_bench.report.curves import path_csv
    from mmc_bench.report.figures import draw_path, file_names, save

    labels = cell_labels(cells)
    names = file_names({key: f"path {label}" for key, label in labels.items()})
    for record in cells:
        figure = draw_path(record, labels[record.key])
        _tell(save(figure, folder, names[record.key], formats, path_csv(record.paths["linear"].test)))


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
