"""Rows of tuned methods: one for each protocol, which says what chose a method's parameters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mmc_bench.report.rows import NO_MEASURES, PRETRAINED, Measures, Row, Statistic, make_rows, statistic_of
from mmc_bench.results.jobs import PROTOCOLS
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores

#: What chose the parameters, in words.
IN_WORDS = {
    "published": "published parameters",
    "clean": "parameters chosen on validation NC (clean)",
    "counterfactual": "parameters chosen on the worst of validation NC, C and RC (counterfactual)",
}
#: Where a row belongs: dataset, backbone, cue rate, method.
_Place = tuple[str, str, float | None, str]

#: The same where images come in groups.
IN_WORDS_OF_GROUPS = {
    **IN_WORDS,
    "clean": "parameters chosen on all validation images (clean)",
    "counterfactual": "parameters chosen on the worst validation group (counterfactual)",
}


def in_words(row: Row) -> str:
    """Return what chose the parameters of a row, which has a protocol."""
    return (IN_WORDS_OF_GROUPS if row.cue_rate is None else IN_WORDS)[row.protocol or ""]


def protocol_rows(
    cells: Mapping[str, Sequence[CellRecord | CellScores]],
    pretrained: Sequence[PretrainRecord | ModelScores],
    protocols: Iterable[str] = PROTOCOLS,
    measures: Measures = NO_MEASURES,
) -> list[Row]:
    """Gather records into rows, setting by setting, and in each protocol by protocol.

    The gap of a row is by how much the counterfactual rule's worst split, or group, is above the clean rule's, seed by
    seed: what a method owes to knowing the cue when its parameters are chosen.

    Parameters
    ----------
    cells
        The records of each protocol.
    measures
        As for `make_rows`.
    """
    found = {protocol: make_rows(own, pretrained, measures) for protocol, own in cells.items()}
    worst = {protocol: {_place(row): row.worst_by_seed for row in rows} for protocol, rows in found.items()}
    rows = [replace(row, protocol=protocol, gap=_gap(row, worst)) for protocol in protocols for row in found[protocol]]
    settings = list(dict.fromkeys(map(_setting, rows)))
    return sorted(rows, key=lambda row: settings.index(_setting(row)))


def _setting(row: Row) -> tuple[str, str, float | None]:
    return row.dataset, row.backbone, row.cue_rate


def _place(row: Row) -> _Place:
    return (*_setting(row), row.method)


def _gap(row: Row, worst: Mapping[str, Mapping[_Place, Mapping[int, float]]]) -> Statistic | None:
    clean, counterfactual = (worst[rule].get(_place(row), {}) for rule in ("clean", "counterfactual"))
    if row.method == PRETRAINED or not clean.keys() & counterfactual.keys():
        return None
    return statistic_of([counterfactual[seed] - clean[seed] for seed in clean if seed in counterfactual])
