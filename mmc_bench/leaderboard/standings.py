"""Standings: the rows of each setting in tiers, compared with the baseline, and the methods over all settings."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmc_bench.leaderboard.compared_settings import ComparedSetting, find_settings
from mmc_bench.leaderboard.critical import CriticalDifference, critical_difference
from mmc_bench.leaderboard.inference import DIGITS, interval, tiers
from mmc_bench.leaderboard.overall import Overall, make_overall
from mmc_bench.leaderboard.protocols import GAP
from mmc_bench.leaderboard.ranked_rows import Paired, RankedRow, method_rows, pretrained_rows
from mmc_bench.leaderboard.schemas import BoardSettings, CountedPlace
from mmc_bench.leaderboard.submissions import Entry, cell_of, cells_of
from mmc_bench.results.jobs import PROTOCOLS
from mmc_bench.results.settings import ConnectSettings

BARRIERS = ("barrier_C", "barrier_NC")


@dataclass(frozen=True)
class Standings:
    """All settings, the rows of each in the order in which they are shown, and the methods over those that count.

    `critical` has the critical differences of each protocol that has enough methods and datasets.
    """

    places: tuple[CountedPlace, ...]
    settings: tuple[ComparedSetting, ...]
    rows: tuple[RankedRow, ...]
    overall: tuple[Overall, ...]
    critical: Mapping[str, CriticalDifference]


def make_standings(entries: Sequence[Entry], board: BoardSettings) -> Standings:
    """Compare what was sent in, within each protocol; no cell may be there twice.

    Parameters
    ----------
    board
        Which method rows are compared with, seed by seed, and which settings and seeds count.
    """
    settings = find_settings(entries, board)
    rows_of: dict[tuple[str, str], list[RankedRow]] = defaultdict(list)
    for row in _with_gaps(method_rows(entries, settings)):
        rows_of[row.setting.key, row.protocol].append(row)
    ordered: list[RankedRow] = []
    for key, pretrained in pretrained_rows(entries, settings).items():
        for protocol in PROTOCOLS:
            if own := rows_of.get((key, protocol)):
                ordered += [replace(pretrained, protocol=protocol), *_in_tiers(own, board.baseline)]
    overall = make_overall(ordered, board.counted)
    critical = {}
    for protocol in PROTOCOLS:
        means = {one.label: one.by_dataset for one in overall if one.protocol == protocol and one.by_dataset}
        if found := critical_difference(means):
            critical[protocol] = found
    return Standings(board.counted, tuple(settings.values()), tuple(ordered), tuple(overall), critical)


def _with_gaps(rows: Sequence[RankedRow]) -> list[RankedRow]:
    """Return rows with the mean difference between the two tuned protocols, seed by seed, where a method has both."""
    complete = {(row.protocol, row.setting.key, *_name(row)): row for row in rows if not row.missing}
    found = []
    for row in rows:
        knowing, unknowing = (complete.get((protocol, row.setting.key, *_name(row))) for protocol in GAP)
        if knowing and unknowing:
            own, other = knowing.worst_by_seed, unknowing.worst_by_seed
            row = replace(row, gap=interval([own[seed] - other[seed] for seed in row.setting.seeds]))
        found.append(row)
    return found


def _in_tiers(rows: Sequence[RankedRow], baseline: str) -> list[RankedRow]:
    """Return the rows of one setting and protocol, by tier and mean, the incomplete last."""
    reference = _reference(rows, baseline)
    rows = sorted((_paired(_with_comparable_barriers(row, reference), reference) for row in rows), key=_name)
    complete = [row for row in rows if not row.missing]
    scores = [[row.worst_by_seed[seed] for seed in row.setting.seeds] for row in complete]
    if complete and complete[0].setting.has_tiers:
        complete = [replace(row, tier=tier) for row, tier in zip(complete, tiers([scores]), strict=True)]
    complete.sort(key=lambda row: (row.tier or 0, -round(_mean(row), DIGITS)))
    return complete + [row for row in rows if row.missing]


def _mean(row: RankedRow) -> float:
    assert row.worst_split is not None
    return row.worst_split.mean


def _name(row: RankedRow) -> tuple[str, str, str]:
    return (row.method, row.note, row.distribution)


def _reference(rows: Sequence[RankedRow], baseline: str) -> RankedRow | None:
    """Return the baseline's row, which is complete: of several the best."""
    found = [row for row in rows if f"{row.distribution}:{row.method}" == baseline and not row.missing]
    return max(found, key=lambda row: (round(_mean(row), DIGITS), _name(row)), default=None)


def _with_comparable_barriers(row: RankedRow, reference: RankedRow | None) -> RankedRow:
    """Return the row without its barriers unless its paths were measured as the baseline's: two points show none."""
    if reference is not None and _connect(row) == _connect(reference):
        return row
    return replace(row, values={**row.values, **dict.fromkeys(BARRIERS)})


def _connect(row: RankedRow) -> ConnectSettings:
    return cell_of(row.entries[0]).cell.connect


def _starts(row: RankedRow) -> dict[int, str]:
    """Return the digests of the pretrained weights that a row's cells began with, by seed."""
    return {record.cell.pretraining.seed: record.pretrained_sha256 for _, record in cells_of(row.entries)}


def _paired(row: RankedRow, reference: RankedRow | None) -> RankedRow:
    if reference is None or _name(row) == _name(reference) or row.missing:
        return row
    own, other = row.worst_by_seed, reference.worst_by_seed
    difference = interval([own[seed] - other[seed] for seed in row.seeds])
    paired = Paired(reference.label, difference, row.seeds, _starts(row) == _starts(reference))
    return replace(row, paired=paired)
