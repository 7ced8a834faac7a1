"""All pictures of some records, one after another: along axes, bars of splits, panels over cue rates, path curves."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path

from mmc_bench.errors import UserError
from mmc_bench.report import curves, groups
from mmc_bench.report.axis_curves import AxisCurves
from mmc_bench.report.axis_figures import draw_axis
from mmc_bench.report.figures import draw_bars, draw_path, file_names, save, slug
from mmc_bench.report.panels import draw_panels
from mmc_bench.report.row_tables import render
from mmc_bench.report.rows import PRETRAINED, cell_labels, make_rows
from mmc_bench.report.style import Figure, styled
from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord

FORMATS = ("png", "svg", "csv")


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure, the name of its files, and its numbers as CSV (empty for images of a dataset).

    Pictures that show the same numbers share a file of them, of the name `numbers_name`.
    """

    name: str
    draw: Callable[[], Figure]
    numbers: str = ""
    numbers_name: str = ""

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn when it is first asked for: who wants the numbers alone need not wait for it."""
        return self.draw()

    def save(self, folder: Path | str, formats: str | Sequence[str] = FORMATS) -> list[Path]:
        """Write the figure and its numbers into a folder, which is made, and return the paths.

        Raises
        ------
        UserError
            When the folder cannot be written to, or a format is unknown.
        """
        formats = [formats] if isinstance(formats, str) else list(formats)
        for unknown in (one for one in formats if one not in FORMATS):
            raise UserError(f"figures are saved as {', '.join(FORMATS)}, not as {unknown!r}")
        with writable(Path(folder)):
            figure = None if set(formats) <= {"csv"} else self.figure
            return save(figure, Path(folder), self.name, formats, self.numbers, self.numbers_name)

    def __repr__(self) -> str:
        return f"picture {self.name}"

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        with styled():
            self.figure.savefig(buffer, format="png", dpi=110)
        content = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="{slug(self.name)}" style="max-width: 100%" src="data:image/png;base64,{content}">'


class Pictures(tuple[Picture, ...]):
    """Pictures in their order; a notebook shows them below one another."""

    __slots__ = ()

    def save(self, folder: Path | str, formats: str | Sequence[str] = FORMATS) -> list[Path]:
        """Write every picture into a folder and return the paths, each once."""
        return list(dict.fromkeys(path for picture in self for path in picture.save(folder, formats)))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no pictures"

    def _repr_html_(self) -> str:
        return "\n".join(picture._repr_html_() for picture in self)


def pictures_of(
    cells: Sequence[CellRecord],
    pretrained: Sequence[PretrainRecord],
    pairs: Sequence[PairRecord] = (),
    paths: bool = True,
    along: Sequence[AxisCurves] = (),
) -> Iterator[Picture]:
    """Draw records: `along` a suite's axes, a bar chart of each setting, panels over cue rates, and each cell's paths.

    Learning curves are drawn only where no method was applied.
    """
    panels = [
        *(item for group in groups.group_pairs(pairs) for item in curves.panels_of_pairs(group)),
        *(item for group in groups.group_cells(cells) for item in curves.panels_of_cells(group, pretrained)),
        *([] if cells else curves.panels_of_learning(groups.group_models(pretrained))),
    ]
    for one in along:
        name = f"axis-{one.name}-{one.dataset}-{one.backbone}-{one.cue_rate:g}"
        yield Picture(name, partial(draw_axis, one), one.as_csv())
    names = file_names({f"{item.key}-{item.name}": item.name for item in panels})
    yield from _bars(cells, pretrained, bool(panels))
    for item in panels:
        name = names[f"{item.key}-{item.name}"]
        for measure in item.measures:
            own_name = f"{name}-{measure}" if len(item.measures) > 1 else name
            yield Picture(own_name, partial(draw_panels, item, measure), item.as_csv(), name)
    if paths:
        yield from _paths(cells, pretrained)


def _bars(cells: Sequence[CellRecord], pretrained: Sequence[PretrainRecord], has_panels: bool) -> Iterator[Picture]:
    """Draw a bar chart of each setting; of a pretrained model alone only where there are no panels to show it."""
    for place, grouped in groupby(
        make_rows(cells, pretrained), key=lambda row: (row.dataset, row.backbone, row.cue_rate)
    ):
        rows = list(grouped)
        if has_panels and all(row.method == PRETRAINED for row in rows):
            continue
        name = f"splits-{place[0]}-{place[1]}-{'groups' if place[2] is None else f'{place[2]:g}'}"
        yield Picture(name, partial(draw_bars, rows), render(rows, "csv"))


def _paths(cells: Sequence[CellRecord], pretrained: Sequence[PretrainRecord]) -> Iterator[Picture]:
    labels, before = cell_labels(cells), {record.key: record for record in pretrained}
    names = file_names({key: f"path {label}" for key, label in labels.items()})
    for record in cells:
        start = before.get(record.pretraining_key)
        numbers = curves.path_csv(record.paths["linear"].test, curves.own_scores_of_cell(record, start))
        yield Picture(names[record.key], partial(draw_path, record, labels[record.key], start), numbers)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder; where it cannot be written to, say so in a sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"figures cannot be written to {folder} ({error.strerror}): choose another --out") from None
