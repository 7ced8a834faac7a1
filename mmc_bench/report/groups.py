"""Records that belong into one figure or one judgement: those that differ in cue rate, seed and method alone."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmc_bench.report.rows import differences
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import Pair, Pretraining
from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord

SAME_RATE = "as the first"

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


def group_cells(cells: Iterable[CellRecord]) -> list[RecordGroup[CellRecord]]:
    """Group cells by everything but cue rate, seed and method."""
    return _grouped(
        cells,
        lambda record: {
            **_content(record.cell.pretraining),
            "stages": record.cell.versions,
            "connect": record.cell.connect.content(),
        },
        lambda record: (*_place(record.cell.pretraining), ""),
    )


def group_models(pretrained: Iterable[PretrainRecord]) -> list[RecordGroup[PretrainRecord]]:
    """Group pretrained models by everything but cue rate and seed."""
    return _grouped(
        pretrained, lambda record: _content(record.pretraining), lambda record: (*_place(record.pretraining), "")
    )


def group_pairs(pairs: Iterable[PairRecord]) -> list[RecordGroup[PairRecord]]:
    """Group pairs by everything but the first model's cue rate and all seeds.

    The second model's cue rate stays the same within a group, or goes with the first's.
    """
    pairs = list(pairs)
    fixed = {r.pair.second.cue_rate for r in pairs if r.pair.second.cue_rate != r.pair.first.cue_rate}

    def rate(pair: Pair, end: Pretraining) -> float | str | None:
        return end.cue_rate if end.cue_rate in fixed or end.cue_rate != pair.first.cue_rate else SAME_RATE

    def content(record: PairRecord) -> dict[str, Any]:
        pair = record.pair
        return {
            **_content(pair.first),
            "stages": pair.versions,
            "second": {**_content(pair.second), "cue_rate": rate(pair, pair.second)},
            "on": {**_content(pair.data)},
            "connect": pair.connect.content(),
        }

    def shown(record: PairRecord) -> tuple[str, str, str]:
        pair = record.pair
        words = [pair.second.dataset.name] * (pair.second.dataset.name != pair.first.dataset.name)
        second = rate(pair, pair.second)
        words.append("of the same cue rate" if second == SAME_RATE else f"of cue rate {second:g}")
        words += [f"on {pair.data.dataset.name}"] * (pair.data.dataset.name != pair.first.dataset.name)
        return (*_place(pair.first), " ".join(words))

    return _grouped(pairs, content, shown)


def method_labels(cells: Sequence[CellRecord]) -> dict[str, str]:
    """Return the label of each cell's method, by the cell's key, with what tells it from others of its name."""
    contents = {record.key: record.cell.method.content() for record in cells}
    kinds = {key: canonical_json(content) for key, content in contents.items()}
    # One cell stands for all of its kind: notes are of what differs between kinds.
    first = {kind: key for key, kind in reversed(kinds.items())}
    notes = differences(
        {kind: contents[key] for kind, key in first.items()},
        {kind: contents[key]["name"] for kind, key in first.items()},
    )
    return {key: contents[key]["name"] + notes[kind] for key, kind in kinds.items()}


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
    return pretraining.content("cue_rate", "seed")


def _place(pretraining: Pretraining) -> tuple[str, str]:
    return pretraining.dataset.name, pretraining.network
