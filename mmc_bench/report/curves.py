"""Records as curves: accuracy and loss along paths and over epochs, means over seeds, in rows and columns."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmc_bench.report.groups import RecordGroup, method_labels
from mmc_bench.report.tables import csv_text
from mmc_bench.results.metrics import GROUP_SPLITS, SPLITS, Score
from mmc_bench.results.records import CellRecord, Comparison, Connectivity, PairRecord, PathRecord, PretrainRecord

PATHS = {
    "linear": "linear",
    "permuted": "linear (permuted)",
    "quadratic": "quadratic, with cues",
    "quadratic-nc": "quadratic, without cues",
}
LEARNING, LEARNING_OF_GROUPS = ("train", "NC", "C"), ("train", "aligned", "conflicting")
#: What a curve shows: accuracy (a fraction) and loss (nats).
MEASURES = ("accuracy", "loss")
#: BatchNorm statistics behind a score: estimated again at each t of a path, or the checkpoint's own.
RE_ESTIMATED, OWN = "re-estimated", "own"
#: The columns of a path's points.
POINT = ("split", "statistics", "t", *MEASURES)

#: The scores of a path's two checkpoints with their own BatchNorm statistics, by split.
OwnScores = Mapping[str, tuple[Score, Score]]


@dataclass(frozen=True)
class Average:
    """The mean over seeds at each x, and the standard deviation (n - 1) where there are several."""

    mean: tuple[float, ...]
    std: tuple[float, ...] | None


@dataclass(frozen=True)
class Line:
    """One curve: accuracies (fractions) and, along a path, losses (nats), by `MEASURES`.

    `statistics` are a path's BatchNorm statistics: re-estimated at each t, or the checkpoints' own, which are known
    at the ends alone.
    """

    row: str
    column: str
    cue_rate: float | None
    statistics: str
    x: tuple[float, ...]
    values: Mapping[str, Average]
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class Panels:
    """The curves of one figure, in `rows` and `columns`; `x` is what they run over, ``"t"`` or ``"epoch"``.

    `part` says on which images paths were measured, ``"test"`` or ``"training"``; learning curves are of both.
    `num_classes` tells what chance is along a path; it is None over epochs, where rows may differ in it.
    """

    name: str
    key: str
    title: str
    x: str
    x_label: str
    part: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    num_classes: int | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the lines, in their order."""
        return tuple(dict.fromkeys(line.row for line in self.lines))

    @property
    def measures(self) -> tuple[str, ...]:
        """Which of `MEASURES` the curves show."""
        return tuple(self.lines[0].values)

    @property
    def cue_rates(self) -> list[float | None]:
        """The cue rates of the lines, ascending; None alone where images come in groups."""
        return sorted({line.cue_rate for line in self.lines}, key=lambda rate: rate or 0.0)

    def as_csv(self) -> str:
        """Return every point of every line; accuracies are fractions, losses nats."""
        along_path = self.x == "t"
        names = [name for measure in self.measures for name in (measure, f"{measure}_std")]
        head = ("row", "column", "cue_rate", "seeds", *["statistics"] * along_path, self.x, *names)
        lines = []
        for line in self.lines:
            place = (line.row, line.column, line.cue_rate, " ".join(line.seeds), *[line.statistics] * along_path)
            averages = [line.values[measure] for measure in self.measures]
            columns = [column for one in averages for column in (one.mean, one.std or [None] * len(line.x))]
            lines += [dict(zip(head, (*place, *point), strict=True)) for point in zip(line.x, *columns, strict=True)]
        return csv_text(head, lines)


def splits_of(path: Connectivity) -> tuple[str, ...]:
    """Return the splits that a path was measured on, in the order in which they are shown."""
    return tuple(split for split in (*SPLITS, *GROUP_SPLITS) if split in path.splits)


def path_csv(path: Connectivity, own: OwnScores) -> str:
    """Return the points of one path, then its ends' own scores: accuracy (a fraction) and loss (nats) by split."""
    return csv_text(POINT, points_of(path, splits_of(path), own))


def points_of(path: Connectivity, splits: Iterable[str], own: OwnScores) -> Iterator[Mapping[str, Any]]:
    """Yield the points of a path on some splits, by the names of `POINT`; after a split's curve its own scores."""
    for split in splits:
        curve = path.splits[split]
        for point in zip(path.t, curve.accuracy, curve.loss, strict=True):
            yield dict(zip(POINT, (split, RE_ESTIMATED, *point), strict=True))
        for t, score in zip((path.t[0], path.t[-1]), own.get(split, ()), strict=False):
            yield dict(zip(POINT, (split, OWN, t, score.accuracy, score.loss), strict=True))


def own_scores_of_pair(comparison: Comparison, part: str = "test") -> OwnScores:
    """Return the scores of the models that were compared, on test or (``"training"``) on training images."""
    prefix = "" if part == "test" else "train "
    return {split: scores for split in SPLITS if (scores := comparison.scores.get(prefix + split))}


def own_scores_of_cell(record: CellRecord, pretrained: PretrainRecord | None) -> OwnScores:
    """Return the test scores of θ_C and θ_FT; none where the record of θ_C is missing."""
    if pretrained is None:
        return {}
    before, after = pretrained.metrics.splits, record.metrics.splits
    return {split: (before[split], after[split]) for split in before}


def paths_of(record: CellRecord | PairRecord) -> dict[str, PathRecord]:
    """Return every path of a record."""
    return record.comparison.paths if isinstance(record, PairRecord) else record.paths


def panels_of_pairs(group: RecordGroup[PairRecord]) -> list[Panels]:
    """Return the panels of a group of pairs: rows are paths, columns splits; on test and on training images."""

    def seeds(record: PairRecord) -> str:
        return f"{record.pair.first.seed}-{record.pair.second.seed}"

    first, figures = group.records[0], []
    for part in ("test", "training"):
        collected = _Lines()
        for record in group.records:
            own = own_scores_of_pair(record.comparison, part)
            for name, path in paths_of(record).items():
                measured = path.test if part == "test" else path.train
                place = (PATHS.get(name, name), record.pair.first.cue_rate, seeds(record))
                collected.add_path(*place, measured, own)
        name = f"pairs {part} {group.dataset} {group.backbone} {group.partner}"
        title = f"{group.dataset}, {group.backbone}: models of each cue rate, and one {group.partner}"
        x_label = "t,  from the model of each cue rate (0) to the other (1)"
        figures.append(_panels_along_paths(first, name, title, x_label, part, collected))
    return [panels for panels in figures if panels.lines]


def panels_of_cells(group: RecordGroup[CellRecord], pretrained: Iterable[PretrainRecord] = ()) -> list[Panels]:
    """Return the panels of a group of cells, a figure for each path: rows are methods, columns splits.

    There are none for straight paths at a single cue rate alone: each cell's own figure shows those. `pretrained` are
    the records of the models that the cells start from, for these models' own scores.
    """
    every = dict.fromkeys(name for record in group.records for name in paths_of(record))
    if list(every) == ["linear"] and len({record.cell.pretraining.cue_rate for record in group.records}) == 1:
        return []
    first = group.records[0]
    methods, before = method_labels(group.records), {record.key: record for record in pretrained}
    figures = []
    for name in every:
        for part in ("test", "training"):
            collected = _Lines()
            for record in group.records:
                p = record.cell.pretraining
                if path := paths_of(record).get(name):
                    measured = path.test if part == "test" else path.train
                    own = own_scores_of_cell(record, before.get(record.pretraining_key)) if part == "test" else {}
                    collected.add_path(methods[record.key], p.cue_rate, str(p.seed), measured, own)
            title = f"{group.dataset}, {group.backbone}: {PATHS.get(name, name)} paths"
            x_label = "t,  from pretrained (0) to fine-tuned (1)"
            file = f"cells {part} {name} {group.dataset} {group.backbone}"
            figures.append(_panels_along_paths(first, file, title, x_label, part, collected))
    return [panels for panels in figures if panels.lines]


def _panels_along_paths(
    first: CellRecord | PairRecord, name: str, title: str, x_label: str, part: str, collected: "_Lines"
) -> Panels:
    return Panels(
        name=name,
        key=first.key,
        title=title,
        x="t",
        x_label=x_label,
        part=part,
        columns=collected.columns,
        lines=collected.averaged,
        num_classes=first.num_classes,
    )


def panels_of_learning(groups: Sequence[RecordGroup[PretrainRecord]]) -> list[Panels]:
    """Return learning curves: rows are datasets, a figure for each backbone; or backbones, for one dataset."""
    groups = [group for group in groups if any(record.curve for record in group.records)]
    by_dataset = len({group.dataset for group in groups}) > 1
    figures: dict[tuple[str, bool], list[RecordGroup[PretrainRecord]]] = defaultdict(list)
    for group in groups:
        is_grouped = group.records[0].pretraining.cue_rate is None
        figures[group.backbone if by_dataset else group.dataset, is_grouped].append(group)
    panels = []
    for (title, is_grouped), own in figures.items():
        columns = LEARNING_OF_GROUPS if is_grouped else LEARNING
        collected = _Lines()
        for group in own:
            row = group.dataset if by_dataset else group.backbone
            for record in group.records:
                p = record.pretraining
                for column in columns:
                    curve = [found for epoch in record.curve if (found := getattr(epoch, column)) is not None]
                    if not curve:
                        continue
                    collected.add(row, column, p.cue_rate, str(p.seed), range(1, len(curve) + 1), accuracy=curve)
        panels.append(
            Panels(
                name=f"learning {title}",
                key=own[0].records[0].key,
                title=f"{title}: pretraining",
                x="epoch",
                x_label="epoch",
                part="",
                columns=collected.columns,
                lines=collected.averaged,
            )
        )
    return panels


#: Where a curve belongs: row, column, cue rate, BatchNorm statistics.
_Place = tuple[str, str, float | None, str]


@dataclass(frozen=True)
class _Curve:
    seed: str
    x: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]


class _Lines:
    """Collects single curves, and averages those of one place."""

    def __init__(self) -> None:
        self._found: dict[_Place, list[_Curve]] = defaultdict(list)

    def add(
        self,
        row: str,
        column: str,
        cue_rate: float | None,
        seed: str,
        x: Iterable[float],
        batchnorm: str = "",
        **values: Iterable[float],
    ) -> None:
        curve = _Curve(seed, tuple(x), {measure: tuple(along) for measure, along in values.items()})
        self._found[row, column, cue_rate, batchnorm].append(curve)

    def add_path(self, row: str, cue_rate: float | None, seed: str, path: Connectivity | None, own: OwnScores) -> None:
        if path is None:
            return
        for split in splits_of(path):
            curve = path.splits[split]
            place = (row, split, cue_rate, seed)
            self.add(*place, path.t, RE_ESTIMATED, accuracy=curve.accuracy, loss=curve.loss)
            if ends := own.get(split):
                accuracy, loss = ([getattr(score, measure) for score in ends] for measure in MEASURES)
                self.add(*place, (path.t[0], path.t[-1]), OWN, accuracy=accuracy, loss=loss)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the curves, in their order."""
        return tuple(dict.fromkeys(column for _, column, *_ in self._found))

    @property
    def averaged(self) -> tuple[Line, ...]:
        """One line for each place."""
        return tuple(_averaged(place, found) for place, found in self._found.items())


def _averaged(place: _Place, found: Sequence[_Curve]) -> Line:
    values = {measure: _average([curve.values[measure] for curve in found]) for measure in found[0].values}
    return Line(*place, found[0].x, values, tuple(curve.seed for curve in found))


def _average(curves: Sequence[Sequence[float]]) -> Average:
    points = list(zip(*curves, strict=True))
    std = tuple(map(statistics.stdev, points)) if len(curves) > 1 else None
    return Average(tuple(map(statistics.fmean, points)), std)
