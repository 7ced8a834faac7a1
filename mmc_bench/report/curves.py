"""Records as curves: accuracy along paths and over epochs, with means over seeds, arranged in rows and columns."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmc_bench.report.rows import differences
from mmc_bench.report.tables import csv_text
from mmc_bench.results.jobs import Pair, Pretraining, canonical_json
from mmc_bench.results.records import SPLITS, CellRecord, Connectivity, PairRecord, PathRecord, PretrainRecord

PATHS = {
    "linear": "linear",
    "permuted": "linear (permuted)",
    "quadratic": "quadratic, with cues",
    "quadratic-nc": "quadratic, without cues",
}
LEARNING = ("train", "NC", "C")
SAME_RATE = "as the first"
#: The columns of a path's points.
POINT = ("split", "t", "accuracy", "loss")

Record = TypeVar("Record", CellRecord, PairRecord, PretrainRecord)


@dataclass(frozen=True)
class RecordGroup(Generic[Record]):
    """Records that differ in cue rate, seed and method alone, under labels that tell the groups apart.

    `partner` says of pairs what the second model is, where it differs from the first.
    """

    dataset: str
    backbone: str
    records: tuple[Record, ...]
    partner: str = ""


@dataclass(frozen=True)
class Line:
    """One curve: the mean over seeds of accuracies (fractions), and their deviation (n - 1) where there are several."""

    row: str
    column: str
    cue_rate: float
    x: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...] | None
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class Panels:
    """The curves of one figure, in `rows` and `columns`; `x` is what they run over, ``"t"`` or ``"epoch"``.

    `part` says on which images paths were measured, ``"test"`` or ``"training"``; learning curves are of both.
    """

    name: str
    key: str
    title: str
    x: str
    x_label: str
    part: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def cue_rates(self) -> list[float]:
        """The cue rates of the lines, ascending."""
        return sorted({line.cue_rate for line in self.lines})

    def as_csv(self) -> str:
        """Return every point of every line; accuracies are fractions."""
        head = ("row", "column", "cue_rate", "seeds", self.x, "accuracy", "accuracy_std")
        lines = (
            dict(zip(head, (line.row, line.column, line.cue_rate, " ".join(line.seeds), *point), strict=True))
            for line in self.lines
            for point in zip(line.x, line.mean, line.std or [None] * len(line.x), strict=True)
        )
        return csv_text(head, lines)


def path_csv(path: Connectivity) -> str:
    """Return the points of one path: accuracy (a fraction) and loss (nats) on each split."""
    return csv_text(POINT, points_of(path, SPLITS))


def points_of(path: Connectivity, splits: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the points of a path on some splits, by the names of `POINT`."""
    for split in splits:
        curve = path.splits[split]
        for point in zip(path.t, curve.accuracy, curve.loss, strict=True):
            yield dict(zip(POINT, (split, *point), strict=True))


def paths_of(record: CellRecord | PairRecord) -> dict[str, PathRecord]:
    """Return every path of a record."""
    return record.comparison.paths if isinstance(record, PairRecord) else record.paths


def group_cells(cells: Iterable[CellRecord]) -> list[RecordGroup[CellRecord]]:
    """RecordGroup cells by everything but cue rate, seed and method."""
    return _grouped(
        cells,
        lambda record: {
            **_content(record.cell.pretraining),
            "connect": record.cell.connect.model_dump(mode="json"),
        },
        lambda record: (*_place(record.cell.pretraining), ""),
    )


def group_models(pretrained: Iterable[PretrainRecord]) -> list[RecordGroup[PretrainRecord]]:
    """RecordGroup pretrained models by everything but cue rate and seed."""
    return _grouped(
        pretrained, lambda record: _content(record.pretraining), lambda record: (*_place(record.pretraining), "")
    )


def group_pairs(pairs: Iterable[PairRecord]) -> list[RecordGroup[PairRecord]]:
    """RecordGroup pairs by everything but the first model's cue rate and all seeds.

    The second model's cue rate stays the same within a group, or goes with the first's.
    """
    pairs = list(pairs)
    fixed = {r.pair.second.cue_rate for r in pairs if r.pair.second.cue_rate != r.pair.first.cue_rate}

    def rate(pair: Pair, end: Pretraining) -> float | str:
        return end.cue_rate if end.cue_rate in fixed or end.cue_rate != pair.first.cue_rate else SAME_RATE

    def content(record: PairRecord) -> dict[str, Any]:
        pair = record.pair
        return {
            **_content(pair.first),
            "second": {**_content(pair.second), "cue_rate": rate(pair, pair.second)},
            "on": {**_content(pair.data)},
            "connect": pair.connect.model_dump(mode="json"),
        }

    def shown(record: PairRecord) -> tuple[str, str, str]:
        pair = record.pair
        told = [pair.second.dataset.name] * (pair.second.dataset.name != pair.first.dataset.name)
        second = rate(pair, pair.second)
        told.append("of the same cue rate" if second == SAME_RATE else f"of cue rate {second:g}")
        told += [f"on {pair.data.dataset.name}"] * (pair.data.dataset.name != pair.first.dataset.name)
        return (*_place(pair.first), " ".join(told))

    return _grouped(pairs, content, shown)


def panels_of_pairs(group: RecordGroup[PairRecord]) -> list[Panels]:
    """Return the panels of a group of pairs: rows are paths, columns splits; on test and on training images."""

    def seeds(record: PairRecord) -> str:
        return f"{record.pair.first.seed}-{record.pair.second.seed}"

    figures = []
    for part in ("test", "training"):
        collected = _Lines()
        for record in group.records:
            for name, path in paths_of(record).items():
                measured = path.test if part == "test" else path.train
                collected.add_path(PATHS.get(name, name), record.pair.first.cue_rate, seeds(record), measured)
        title = f"{group.dataset}, {group.backbone}: models of each cue rate, and one {group.partner}"
        label = "t,  from the model of each cue rate (0) to the other (1)"
        name = f"pairs {part} {group.dataset} {group.backbone} {group.partner}"
        figures += collected.panels(name, group.records[0].key, title, "t", label, part, SPLITS)
    return figures


def panels_of_cells(group: RecordGroup[CellRecord]) -> list[Panels]:
    """Return the panels of a group of cells, a figure for each path: rows are methods, columns splits.

    There are none for straight paths at a single cue rate alone: each cell's own figure shows those.
    """
    every = dict.fromkeys(name for record in group.records for name in paths_of(record))
    if list(every) == ["linear"] and len({record.cell.pretraining.cue_rate for record in group.records}) == 1:
        return []
    methods = method_labels(group.records)
    figures = []
    for name in every:
        for part in ("test", "training"):
            collected = _Lines()
            for record in group.records:
                p = record.cell.pretraining
                if path := paths_of(record).get(name):
                    measured = path.test if part == "test" else path.train
                    collected.add_path(methods[record.key], p.cue_rate, str(p.seed), measured)
            title = f"{group.dataset}, {group.backbone}: {PATHS.get(name, name)} paths"
            label = "t,  from pretrained (0) to fine-tuned (1)"
            called = f"cells {part} {name} {group.dataset} {group.backbone}"
            figures += collected.panels(called, group.records[0].key, title, "t", label, part, SPLITS)
    return figures


def panels_of_learning(groups: Sequence[RecordGroup[PretrainRecord]]) -> list[Panels]:
    """Return learning curves: rows are data sets, a figure for each backbone; or backbones, for one data set."""
    groups = [group for group in groups if any(record.curve for record in group.records)]
    by_dataset = len({group.dataset for group in groups}) > 1
    figures: dict[str, list[RecordGroup[PretrainRecord]]] = defaultdict(list)
    for group in groups:
        figures[group.backbone if by_dataset else group.dataset].append(group)
    panels = []
    for title, own in figures.items():
        collected = _Lines()
        for group in own:
            row = group.dataset if by_dataset else group.backbone
            for record in group.records:
                p = record.pretraining
                for column in LEARNING if record.curve else ():
                    curve = [getattr(epoch, column) for epoch in record.curve]
                    collected.add(row, column, p.cue_rate, str(p.seed), range(1, len(curve) + 1), curve)
        key = own[0].records[0].key
        called = f"learning {title}"
        panels += collected.panels(called, key, f"{title}: pretraining", "epoch", "epoch", "", LEARNING)
    return panels


def method_labels(cells: Sequence[CellRecord]) -> dict[str, str]:
    """Return the label of each cell's method, by the cell's key, with what tells it from others of its name."""
    contents = {record.key: record.cell.method.model_dump(mode="json") for record in cells}
    kinds = {key: canonical_json(content) for key, content in contents.items()}
    # One cell stands for all of its kind: notes are of what differs between kinds.
    first = {kind: key for key, kind in reversed(kinds.items())}
    notes = differences(
        {kind: contents[key] for kind, key in first.items()},
        {kind: contents[key]["name"] for kind, key in first.items()},
    )
    return {key: contents[key]["name"] + notes[kind] for key, kind in kinds.items()}


class _Lines:
    """Collects single curves, and averages those of one row, column and cue rate."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, float], list[tuple[str, tuple[float, ...], tuple[float, ...]]]] = defaultdict(
            list
        )

    def add(
        self, row: str, column: str, cue_rate: float, seed: str, x: Iterable[float], accuracy: Iterable[float]
    ) -> None:
        self._found[row, column, cue_rate].append((seed, tuple(x), tuple(accuracy)))

    def add_path(self, row: str, cue_rate: float, seed: str, path: Connectivity | None) -> None:
        if path is None:
            return
        for split in SPLITS:
            self.add(row, split, cue_rate, seed, path.t, path.splits[split].accuracy)

    def panels(
        self, name: str, key: str, title: str, x: str, x_label: str, part: str, columns: Sequence[str]
    ) -> list[Panels]:
        """Return one figure's panels, or none where nothing was collected."""
        lines = tuple(_mean(*place, found) for place, found in self._found.items())
        rows = tuple(dict.fromkeys(line.row for line in lines))
        return [Panels(name, key, title, x, x_label, part, rows, tuple(columns), lines)] if lines else []


def _mean(
    row: str, column: str, cue_rate: float, found: Sequence[tuple[str, tuple[float, ...], tuple[float, ...]]]
) -> Line:
    curves = [accuracy for _, _, accuracy in found]
    points = list(zip(*curves, strict=True))
    std = tuple(map(statistics.stdev, points)) if len(curves) > 1 else None
    mean = tuple(map(statistics.fmean, points))
    return Line(row, column, cue_rate, found[0][1], mean, std, tuple(seed for seed, _, _ in found))


def _grouped(
    records: Iterable[Record],
    content_of: Callable[[Record], dict[str, Any]],
    shown_of: Callable[[Record], tuple[str, str, str]],
) -> list[RecordGroup[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    contents: dict[str, dict[str, Any]] = {}
    for record in records:
        content = content_of(record)
        key = canonical_json(content)
        contents[key] = content
        groups[key].append(record)
    shown = {key: shown_of(found[0]) for key, found in groups.items()}
    notes = differences(contents, shown)
    return [
        RecordGroup(dataset + notes[key], backbone, tuple(groups[key]), partner)
        for key, (dataset, backbone, partner) in shown.items()
    ]


def _content(pretraining: Pretraining) -> dict[str, Any]:
    return pretraining.model_dump(mode="json", exclude={"cue_rate", "seed"})


def _place(pretraining: Pretraining) -> tuple[str, str]:
    return pretraining.dataset.name, pretraining.backbone.name
