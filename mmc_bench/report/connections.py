"""Conjecture 1 as a table: which models are connected by a straight path, and which are mechanistically similar."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from mmc_bench.landscape.invariance import TOLERANCE, mechanistically_similar
from mmc_bench.report.curves import paths_of
from mmc_bench.report.rows import cell_names, differences
from mmc_bench.results.records import CellRecord, Effect, Invariance, PairRecord, PathRecord, PretrainRecord

#: The split that linear connectivity is judged on: images with cues, as the first model was trained on.
JUDGED = "C"
#: The paths that the conjecture is about.
STRAIGHT = ("linear", "permuted")
BOTH = (True, False)


@dataclass(frozen=True)
class ModelConnection:
    """Two models: the paths between them, and whether they have the same invariances (definition 4).

    `similar` is None where a record has no invariances, or the pretrained model's is missing. `effects` say by how much
    each intervention changes the two models.
    """

    kind: str
    first: str
    second: str
    paths: Mapping[str, PathRecord]
    similar: bool | None
    effects: Mapping[str, Effect]
    pattern_distance: float | None = None

    @property
    def linearly_connected(self) -> bool | None:
        """Whether the loss along a straight path, permuted or not, rises at most `TOLERANCE` above the chord on C.

        None where no straight path was measured, or nothing between its ends.
        """
        straight = (self.paths[name].test.height(JUDGED) for name in STRAIGHT if name in self.paths)
        heights = [barrier.loss for barrier in straight if barrier]
        return min(heights) <= TOLERANCE if heights else None

    @property
    def is_judged(self) -> bool:
        """Whether both sides of the conjecture are known."""
        return self.similar is not None and self.linearly_connected is not None


def connections(
    pairs: Iterable[PairRecord], cells: Iterable[CellRecord], pretrained: Iterable[PretrainRecord]
) -> list[ModelConnection]:
    """Return one connection for each pair, then one for each cell (from θ_C to θ_FT) on counterfactuals."""
    pairs, cells = list(pairs), [record for record in cells if record.cell.pretraining.cue_rate is not None]
    before = {record.key: record.invariance for record in pretrained}
    ends, names = _ends(pairs), cell_names(cells)
    return [
        *(
            ModelConnection(
                "pair",
                *ends[record.key],
                paths_of(record),
                record.comparison.similar,
                record.comparison.effects,
                record.comparison.pattern_distance,
            )
            for record in pairs
        ),
        *(
            ModelConnection(
                "cell",
                *names[record.key],
                paths_of(record),
                _similar(before.get(record.pretraining_key), record.invariance),
                record.effects,
            )
            for record in cells
        ),
    ]


def tally(found: Iterable[ModelConnection]) -> dict[tuple[bool, bool], int]:
    """Count connections by (linearly connected, similar); those of which either is unknown are in no count."""
    verdicts = [(item.linearly_connected, item.similar) for item in found]
    return {(linear, similar): verdicts.count((linear, similar)) for linear, similar in product(BOTH, BOTH)}


def unpermuted(found: Iterable[ModelConnection]) -> int:
    """Count the judged connections that count as not connected though no permutation was tried."""
    return sum(item.is_judged and not item.linearly_connected and "permuted" not in item.paths for item in found)


def _similar(first: Mapping[str, Invariance] | None, second: Mapping[str, Invariance]) -> bool | None:
    return mechanistically_similar(first, second) if first and second else None


def _ends(pairs: Iterable[PairRecord]) -> dict[str, tuple[str, str]]:
    """Return labels of the two models of each pair, by its key; the first's says what else tells pairs apart."""
    contents: dict[str, dict[str, Any]] = {}
    shown: dict[str, tuple[str, str]] = {}
    for record in pairs:
        shown[record.key] = record.pair.first.label, record.pair.second.label
        contents[record.key] = record.pair.content()
    notes = differences(contents, shown)
    return {key: (first + notes[key], second) for key, (first, second) in shown.items()}
