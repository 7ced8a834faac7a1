"""``mmc-bench plot``."""

from itertools import groupby
from pathlib import Path

import click

from mmc_bench.cli.options import Session, session_options
from mmc_bench.cli.table import selected_records
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.rows import make_rows

FORMATS = ("png", "svg")


@click.command("plot", short_help="Draw the results at hand.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the figures.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="File format.  [default: both]")
@click.option("--paths/--no-paths", default=True, help="Whether to draw the path curves of every cell.")
@session_options
def command(session: Session, out: str, formats: tuple[str, ...], paths: bool) -> None:
    """Draw the results at hand: a bar chart of the four splits for each setting, and each cell's path curves.

    The same options as for `table` select what is drawn.
    """
    cells, pretrained = selected_records(session)
    rows = make_rows(cells, pretrained)
    if not rows:
        raise NothingSelectedError(f"no record in {session.store.root} is selected: mmc-bench run makes some")
    from mmc_bench.report.figures import draw_bars, draw_path, save

    folder, formats = Path(out), formats or FORMATS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, group in groupby(rows, key=lambda row: (row.dataset, row.backbone, row.cue_rate)):
            figure = draw_bars(list(group))
            _tell(save(figure, folder, f"splits-{place[0]}-{place[1]}-{place[2]:g}", formats))
        for record in cells if paths else ():
            p = record.cell.pretraining
            name = f"path-{p.dataset.name}-{p.backbone.name}-{p.cue_rate:g}-{record.cell.method.name}-seed{p.seed}"
            _tell(save(draw_path(record), folder, name, formats))
    except OSError as error:
        raise UserError(f"figures cannot be written to {folder} ({error.strerror}): choose another --out") from None


def _tell(paths: list[Path]) -> None:
    for path in paths:
        click.echo(path)
