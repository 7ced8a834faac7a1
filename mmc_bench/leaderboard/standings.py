"""Records as ranked rows: means with 95 % confidence intervals over seeds, and paired comparisons.

A row is one method in one version with one set of parameters in one setting; only seeds are averaged over, those of its
setting (`places`). A row that lacks one of them is incomplete: it has no means and no rank, since a mean over other
seeds could be higher for that reason alone.
"""

import hashlib
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from mmc_bench.leaderboard.checks import stage_versions_of
from mmc_bench.leaderboard.compared_settings import ComparedSetting, find_settings, setting_key
from mmc_bench.leaderboard.schemas import BoardSettings, CountedPlace
from mmc_bench.leaderboard.submissions import Entry, cell_of, cells_of, pretrained_of
from mmc_bench.report.rows import (
    COLUMNS,
    PRETRAINED,
    differing_fields,
    flattened,
    note_of,
    values_of_cell,
    values_of_model,
)
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import ConnectSettings
from mmc_bench.results.records import SPLITS, CellRecord, PretrainRecord
from mmc_bench.results.versions import STAGES

CONFIDENCE = 0.95
#: Numbers are rounded to so many digits before they are compared or shown: the last bits are the machine's.
DIGITS = 6
BARRIERS = ("barrier_C", "barrier_NC")
#: Fields that separate rows of one name in all settings: no mean mixes them.
APART = frozenset({"distribution", "version", *(f"{stage} version" for stage in STAGES)})


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half width of its confidence interval, which one seed does not have."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Paired:
    """The difference to the baseline in worst-split accuracy, seed by seed.

    `same_start` tells whether both began with the same pretrained weights for every seed.
    """

    baseline: str
    difference: Interval
    seeds: tuple[int, ...]
    same_start: bool


@dataclass(frozen=True)
class RankedRow:
    """One method in one setting; an incomplete one has neither values nor curves, comparison and rank.

    `by_seed` has each seed's values of `COLUMNS`; `curves` the mean accuracy and loss along the path by split, from
    θ_C at t = 0 to θ_FT at t = 1.
    """

    setting: ComparedSetting
    distribution: str
    method: str
    note: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    by_seed: Mapping[int, Mapping[str, float | None]]
    values: Mapping[str, Interval | None]
    rank: int | None = None
    paired: Paired | None = None
    t: tuple[float, ...] = ()
    curves: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)

    @property
    def is_pretrained(self) -> bool:
        """Whether this is the pretrained model, which others are read against."""
        return not self.distribution

    @property
    def label(self) -> str:
        """The method, with what distinguishes it from others of its name."""
        return f"{self.method} ({self.note})" if self.note else self.method

    @property
    def worst_split(self) -> Interval | None:
        """What rows are ranked by."""
        return self.values["worst_split"]


@dataclass(frozen=True)
class Overall:
    """A method over the settings that count: its mean worst-split accuracy, unless a cell of it is missing."""

    distribution: str
    method: str
    note: str
    mean: Interval | None
    settings: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Standings:
    """All settings, the rows of each in the order in which they are shown, and the methods over those that count."""

    places: tuple[CountedPlace, ...]
    settings: tuple[ComparedSetting, ...]
    rows: tuple[RankedRow, ...]
    overall: tuple[Overall, ...]


def make_standings(entries: Sequence[Entry], board: BoardSettings) -> Standings:
    """Rank what was sent in; no cell may be there twice.

    Parameters
    ----------
    board
        Which method rows are compared with, seed by seed, and which settings and seeds count.
    """
    settings = find_settings(entries, board)
    rows_of: dict[str, list[RankedRow]] = {key: [] for key in settings}
    for row in _method_rows(entries, settings):
        rows_of[row.setting.key].append(row)
    ordered: list[RankedRow] = []
    for row in _pretrained_rows(entries, settings):
        ordered += [row, *_ranked(rows_of[row.setting.key], board.baseline)]
    return Standings(board.places, tuple(settings.values()), tuple(ordered), tuple(_overall(ordered, board.places)))


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and the half width t(n-1) · s / √n of its 95 % confidence interval (Student, 1908)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, t_quantile(len(values) - 1) * error)


@cache
def t_quantile(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def _pretrained_rows(entries: Sequence[Entry], settings: Mapping[str, ComparedSetting]) -> list[RankedRow]:
    """Return the row of the pretrained models of each setting; of a seed's, the first folder's counts."""
    found: dict[str, dict[int, tuple[Entry, PretrainRecord]]] = {key: {} for key in settings}
    for entry, record in sorted(pretrained_of(entries), key=lambda pair: (pair[0].folder, pair[0].file)):
        found.get(setting_key(record.pretraining), {}).setdefault(record.pretraining.seed, (entry, record))
    rows = []
    for key, setting in settings.items():
        models = {seed: found[key][seed] for seed in setting.seeds if seed in found[key]}
        by_seed = {seed: values_of_model(record) for seed, (_, record) in models.items()}
        rows.append(_row(setting, "", PRETRAINED, "", {seed: entry for seed, (entry, _) in models.items()}, by_seed))
    return rows


def _method_rows(entries: Sequence[Entry], settings: Mapping[str, ComparedSetting]) -> list[RankedRow]:
    """Return the rows of the methods, not yet ranked; one that has none of its setting's seeds is not shown."""
    groups: dict[tuple[str, str], dict[int, tuple[Entry, CellRecord]]] = defaultdict(dict)
    contents: dict[tuple[str, str], dict[str, Any]] = {}
    for entry, record in cells_of(entries):
        content = _method_content(record)
        key = (setting_key(record.cell.pretraining), canonical_json([record.cell.method.name, content]))
        groups[key][record.cell.pretraining.seed] = (entry, record)
        contents[key] = content
    names = {key: next(iter(found.values()))[1].cell.method for key, found in groups.items()}
    notes = _notes(
        {key: flattened(content) for key, content in contents.items()}, {k: n.name for k, n in names.items()}
    )
    rows = []
    for key, sent in groups.items():
        found = {seed: sent[seed] for seed in settings[key[0]].seeds if seed in sent}
        if not found:
            continue
        by_seed = {seed: values_of_cell(record) for seed, (_, record) in sorted(found.items())}
        own = {seed: entry for seed, (entry, _) in sorted(found.items())}
        row = _row(settings[key[0]], names[key].distribution, names[key].name, notes[key], own, by_seed)
        rows.append(row if row.missing else _with_curves(row, [record for _, record in found.values()]))
    return rows


def _method_content(record: CellRecord) -> dict[str, Any]:
    """Return all that a row's cells have in common; parameters in full, so that a default counts as its value."""
    cell = record.cell
    return {
        "parameters": record.parameters,
        "version": cell.method.version,
        "distribution": cell.method.distribution,
        "connect": cell.connect.content(),
        **{f"{stage} version": version for stage, version in stage_versions_of(record).items()},
        "dataset version": cell.pretraining.dataset.version,
        "backbone version": cell.pretraining.backbone.version,
    }


def _notes(contents: Mapping[tuple[str, str], dict[str, Any]], names: Mapping[Any, str]) -> dict[tuple[str, str], str]:
    """Return notes of what rows of one method differ in.

    What differs within any one setting is noted in all of them, so that a row can be followed through the settings;
    parameters that suit a setting, and are the same throughout it, are not, but for those of `APART`.
    """
    places: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for key in contents:
        places[names[key]][key[0]].append(key)
    notes = {}
    for by_setting in places.values():
        fields = {name for keys in by_setting.values() for name in differing_fields([contents[key] for key in keys])}
        everywhere = [key for keys in by_setting.values() for key in keys]
        fields |= APART & set(differing_fields([contents[key] for key in everywhere]))
        notes.update({key: note_of(contents[key], sorted(fields)) for key in everywhere})
    return _unique(notes, names)


def _unique(notes: Mapping[tuple[str, str], str], names: Mapping[Any, str]) -> dict[tuple[str, str], str]:
    """Return notes that no two rows of a setting and name share: a digest of the content ends those that would."""
    times = Counter((key[0], names[key], note) for key, note in notes.items())
    shared = {(name, note) for (_, name, note), number in times.items() if number > 1}
    return {
        key: f"{note} [{hashlib.sha256(key[1].encode()).hexdigest()[:8]}]".strip()
        if (names[key], note) in shared
        else note
        for key, note in notes.items()
    }


def _row(
    setting: ComparedSetting,
    distribution: str,
    method: str,
    note: str,
    entries: Mapping[int, Entry],
    by_seed: Mapping[int, Mapping[str, float | None]],
) -> RankedRow:
    missing = tuple(seed for seed in setting.seeds if seed not in by_seed)
    values: dict[str, Interval | None] = dict.fromkeys(COLUMNS)
    if not missing:
        for name in COLUMNS:
            present = [value for seed in setting.seeds if (value := by_seed[seed][name]) is not None]
            values[name] = interval(present) if len(present) == len(setting.seeds) else None
    return RankedRow(
        setting, distribution, method, note, tuple(entries.values()), tuple(by_seed), missing, by_seed, values
    )


def _with_curves(row: RankedRow, records: Iterable[CellRecord]) -> RankedRow:
    paths = [record.paths["linear"].test for record in records]
    if len({path.t for path in paths}) > 1:
        return row

    def mean(name: str, split: str) -> tuple[float, ...]:
        along = [getattr(path.splits[split], name) for path in paths]
        return tuple(statistics.fmean(values) for values in zip(*along, strict=True))

    return replace(
        row, t=paths[0].t, curves={split: (mean("accuracy", split), mean("loss", split)) for split in SPLITS}
    )


def _ranked(rows: Sequence[RankedRow], baseline: str) -> list[RankedRow]:
    """Return the rows of one setting with their ranks, the best first and the incomplete last; equals share a rank."""
    reference = _reference(rows, baseline)
    rows = [_paired(_with_comparable_barriers(row, reference), reference) for row in rows]
    means = {id(row): round(row.worst_split.mean, DIGITS) for row in rows if row.worst_split}
    complete = [row for row in rows if id(row) in means]
    ranked = [replace(row, rank=1 + sum(means[id(o)] > means[id(row)] for o in complete)) for row in complete]
    ranked.sort(key=lambda row: (row.rank or 0, _name(row)))
    return ranked + sorted((row for row in rows if id(row) not in means), key=_name)


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


def _worst(row: RankedRow) -> dict[int, float]:
    worst = {seed: values["worst_split"] for seed, values in row.by_seed.items()}
    return {seed: value for seed, value in worst.items() if value is not None}


def _paired(row: RankedRow, reference: RankedRow | None) -> RankedRow:
    if reference is None or _name(row) == _name(reference) or row.missing:
        return row
    own, other = _worst(row), _worst(reference)
    difference = interval([own[seed] - other[seed] for seed in row.seeds])
    paired = Paired(reference.label, difference, row.seeds, _starts(row) == _starts(reference))
    return replace(row, paired=paired)


def _overall(rows: Iterable[RankedRow], places: Sequence[CountedPlace]) -> list[Overall]:
    """Return the methods by their mean over the settings that count; those that lack a cell last, with what is missing.

    A method that was run in none of these settings is left out.
    """
    found: dict[tuple[str, str, str], dict[CountedPlace, RankedRow]] = defaultdict(dict)
    for row in rows:
        if not row.is_pretrained and row.setting.place is not None:
            found[row.distribution, row.method, row.note][row.setting.place] = row
    methods = []
    for (distribution, method, note), own in found.items():
        missing = [text for place in places for text in _missing(place, own.get(place))]
        mean = None if missing else _mean_over_settings([own[place] for place in places])
        methods.append(Overall(distribution, method, note, mean, len(own), tuple(missing)))
    return sorted(
        methods, key=lambda m: (m.mean is None, -round(m.mean.mean, DIGITS) if m.mean else 0, m.method, m.note)
    )


def _missing(place: CountedPlace, row: RankedRow | None) -> list[str]:
    if row is None:
        return [place.label]
    return [f"{row.setting.label} seed {seed}" for seed in row.missing]


def _mean_over_settings(rows: Sequence[RankedRow]) -> Interval:
    """Return the mean of the settings' means; its interval is over seeds, where all settings have the same ones."""
    if len({row.seeds for row in rows}) == 1:
        return interval([statistics.fmean(_worst(row)[seed] for row in rows) for seed in rows[0].seeds])
    return Interval(statistics.fmean(_mean(row) for row in rows), None)


def _mean(row: RankedRow) -> float:
    assert row.worst_split is not None
    return row.worst_split.mean
