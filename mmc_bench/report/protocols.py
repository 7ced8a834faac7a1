"""Rows of tuned methods: one for each protocol, which says what chose a method's parameters."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mmc_bench.report.rows import NO_MEASURES, Measures, Row, Statistic, make_rows, statistic_of
from mmc_bench.results.jobs import PROTOCOLS
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores

#: What chose the parameters, in words.
IN_WORDS = {
    "published": "published parameters",
    "clean": "parameters chosen on validation NC (clean)",
    "counterfactual": "parameters chosen on the worst of validation NC, C and RC (counterfactual)",
}
#: The same where images come in groups.
IN_WORDS_OF_GROUPS = {
    **IN_WORDS,
    "clean": "parameters chosen on all validation images (clean)",
    "counterfactual": "parameters chosen on the worst validation group (counterfactual)",
}

#: The key of the record that a cell of a tuned method has in each protocol.
Searched = Mapping[str, str]


def in_words(row: Row) -> str:
    """Return what chose the parameters of a row, which has a protocol."""
    return (IN_WORDS_OF_GROUPS if row.cue_rate is None else IN_WORDS)[row.protocol or ""]


def protocol_rows(
    cells: Mapping[str, Sequence[CellRecord | CellScores]],
    pretrained: Sequence[PretrainRecord | ModelScores],
    searched: Iterable[Searched],
    protocols: Iterable[str] = PROTOCOLS,
    measures: Measures = NO_MEASURES,
) -> list[Row]:
    """Gather records into rows, setting by setting, and in each protocol by protocol.

    The gap of a row is by how much the counterfactual rule's worst split, or group, is above the clean rule's, seed by
    seed: what a method owes to knowing the cue when its parameters are chosen. It is that of the row's own search, and
    of all its seeds: None where a seed lacks a record under either rule, or two searches led to the same cells.

    Parameters
    ----------
    cells
        The records of each protocol.
    searched
        Of each cell of a tuned method, the keys of its records.
    measures
        As for `make_rows`.
    """
    found = {protocol: make_rows(own, pretrained, measures) for protocol, own in cells.items()}
    worst = {key: row.worst_by_seed[seed] for own in found.values() for row in own for seed, key in row.keys.items()}
    gaps: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for one in searched:
        gained = _gained(*(worst.get(one.get(rule, "")) for rule in ("clean", "counterfactual")))
        for place in one.items():
            gaps[place].append(gained)

    def gap_of(row: Row, protocol: str) -> Statistic | None:
        own = [gaps[protocol, key] for key in row.keys.values()]
        return statistic_of([gained for (gained,) in own]) if all(len(found) == 1 for found in own) else None

    rows = [
        replace(row, protocol=protocol, gap=gap_of(row, protocol)) for protocol in protocols for row in found[protocol]
    ]
    settings = list(dict.fromkeys(map(_setting, rows)))
    return sorted(rows, key=lambda row: settings.index(_setting(row)))


def _setting(row: Row) -> tuple[str, str, float | None]:
    return row.dataset, row.backbone, row.cue_rate


def _gained(clean: float | None, counterfactual: float | None) -> float | None:
    return None if clean is None or counterfactual is None else counterfactual - clean
