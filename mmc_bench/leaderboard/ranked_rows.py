"""Records as the leaderboard's rows: means with 95 % confidence intervals over seeds, and median seconds.

A row is one method in one version with one set of parameters in one setting, under one protocol; only seeds are
averaged over, those of its setting. A row that lacks one of them is incomplete: it has no means and no tier, since a
mean over other seeds could be higher for that reason alone.
"""

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmc_bench.leaderboard.compared_settings import ComparedSetting, setting_key
from mmc_bench.leaderboard.inference import Interval, interval
from mmc_bench.leaderboard.protocols import by_protocol
from mmc_bench.leaderboard.submissions import Entry, pretrained_of, stage_versions_of
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
from mmc_bench.results.jobs import PUBLISHED, PluginRef, Pretraining
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.selections import SelectionRecord
from mmc_bench.results.versions import STAGES

#: A row's protocol and setting, and its method with all that its cells have in common.
RowKey = tuple[tuple[str, str], str]
#: Fields that separate rows of one name in all settings: no mean mixes them.
APART = frozenset({"distribution", "version", *(f"{stage} version" for stage in STAGES)})


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
    """One method in one setting under one protocol; an incomplete one has no values, curves, comparison and tier.

    `selection` is where tuned parameters come from. `gap` is how much the worst split is higher under the protocol that
    knows the cue than under the one that does not (`protocols.GAP`). `by_seed` has each seed's values of `COLUMNS`;
    `curves` the mean accuracy and loss along the path by split, from θ_C at t = 0 to θ_FT at t = 1.
    """

    setting: ComparedSetting
    protocol: str
    distribution: str
    method: str
    note: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    by_seed: Mapping[int, Mapping[str, float | None]]
    values: Mapping[str, Interval | None]
    selection: SelectionRecord | None = None
    tier: int | None = None
    gap: Interval | None = None
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
        """What methods are compared by."""
        return self.values["worst_split"]

    @property
    def worst_by_seed(self) -> dict[int, float]:
        """The worst split of each seed."""
        worst = {seed: values["worst_split"] for seed, values in self.by_seed.items()}
        return {seed: value for seed, value in worst.items() if value is not None}


def pretrained_rows(entries: Sequence[Entry], settings: Mapping[str, ComparedSetting]) -> dict[str, RankedRow]:
    """Return the row of the pretrained models by the key of each setting: those of the versions that most seeds have.

    Of several records of a seed the first folder's counts, as do its versions where others have as many seeds.
    """
    found: dict[str, dict[str, dict[int, tuple[Entry, PretrainRecord]]]] = {key: defaultdict(dict) for key in settings}
    for entry, record in sorted(pretrained_of(entries), key=lambda pair: (pair[0].folder, pair[0].file)):
        setting, seed = settings.get(setting_key(record.pretraining)), record.pretraining.seed
        if setting and seed in setting.seeds:
            versions = canonical_json([stage_versions_of(record), *_plugin_versions(record.pretraining).values()])
            found[setting.key][versions].setdefault(seed, (entry, record))
    rows = {}
    for key, setting in settings.items():
        most = max(found[key].values(), key=len, default={})
        models = {seed: most[seed] for seed in setting.seeds if seed in most}
        by_seed = {seed: values_of_model(record) for seed, (_, record) in models.items()}
        own = {seed: entry for seed, (entry, _) in models.items()}
        rows[key] = _row(setting, PUBLISHED, PluginRef(name=PRETRAINED, distribution="", version=""), "", own, by_seed)
    return rows


def method_rows(entries: Sequence[Entry], settings: Mapping[str, ComparedSetting]) -> list[RankedRow]:
    """Return the rows of the methods, not yet in tiers; one that has none of its setting's seeds is not shown."""
    groups: dict[RowKey, dict[int, tuple[Entry, CellRecord]]] = defaultdict(dict)
    contents: dict[RowKey, dict[str, Any]] = {}
    selections: dict[RowKey, SelectionRecord | None] = {}
    for protocol, cells in by_protocol(entries).items():
        for entry, record, selection in cells:
            content = _method_content(record, selection)
            place = (protocol, setting_key(record.cell.pretraining))
            key = (place, canonical_json([record.cell.method.name, content]))
            groups[key][record.cell.pretraining.seed] = (entry, record)
            contents[key], selections[key] = content, selection
    methods = {key: next(iter(found.values()))[1].cell.method for key, found in groups.items()}
    notes = _notes(
        {key: flattened(content) for key, content in contents.items()}, {k: m.name for k, m in methods.items()}
    )
    rows = []
    for key, sent in groups.items():
        protocol, setting = key[0][0], settings[key[0][1]]
        found = {seed: sent[seed] for seed in setting.seeds if seed in sent}
        if not found:
            continue
        by_seed = {seed: values_of_cell(record) for seed, (_, record) in sorted(found.items())}
        own = {seed: entry for seed, (entry, _) in sorted(found.items())}
        row = replace(_row(setting, protocol, methods[key], notes[key], own, by_seed), selection=selections[key])
        rows.append(row if row.missing else _with_curves(row, [record for _, record in found.values()]))
    return rows


def _method_content(record: CellRecord, selection: SelectionRecord | None) -> dict[str, Any]:
    """Return all that a row's cells have in common.

    Published parameters are given in full, so that a default counts as its value; of chosen ones those alone that were
    given before the choice, which follows from the setting.
    """
    cell = record.cell
    return {
        "parameters": record.parameters if selection is None else selection.selection.method.parameters,
        "version": cell.method.version,
        "distribution": cell.method.distribution,
        "connect": cell.connect.content(),
        **{f"{stage} version": version for stage, version in stage_versions_of(record).items()},
        **_plugin_versions(cell.pretraining),
    }


def _plugin_versions(pretraining: Pretraining) -> dict[str, str]:
    return {"dataset version": pretraining.dataset.version, "backbone version": pretraining.backbone.version}


def _notes(contents: Mapping[RowKey, dict[str, Any]], names: Mapping[RowKey, str]) -> dict[RowKey, str]:
    """Return notes of what rows of one method differ in.

    What differs within any one setting under a protocol is noted in all of them, so that a row can be followed through
    the settings; parameters that suit a setting, and are the same throughout it, are not, but for those of `APART`.
    """
    places: dict[str, dict[tuple[str, str], list[RowKey]]] = defaultdict(lambda: defaultdict(list))
    for key in contents:
        places[names[key]][key[0]].append(key)
    notes = {}
    for by_setting in places.values():
        fields = {name for keys in by_setting.values() for name in differing_fields([contents[key] for key in keys])}
        everywhere = [key for keys in by_setting.values() for key in keys]
        fields |= APART & set(differing_fields([contents[key] for key in everywhere]))
        notes.update({key: note_of(contents[key], sorted(fields)) for key in everywhere})
    return _unique(notes, names)


def _unique(notes: Mapping[RowKey, str], names: Mapping[RowKey, str]) -> dict[RowKey, str]:
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
    protocol: str,
    method: PluginRef,
    note: str,
    entries: Mapping[int, Entry],
    by_seed: Mapping[int, Mapping[str, float | None]],
) -> RankedRow:
    missing = tuple(seed for seed in setting.seeds if seed not in by_seed)
    values: dict[str, Interval | None] = dict.fromkeys(COLUMNS)
    if not missing:
        for name in COLUMNS:
            present = [value for seed in setting.seeds if (value := by_seed[seed][name]) is not None]
            values[name] = _over_seeds(name, present) if len(present) == len(setting.seeds) else None
    sent, seeds = tuple(entries.values()), tuple(by_seed)
    return RankedRow(setting, protocol, method.distribution, method.name, note, sent, seeds, missing, by_seed, values)


def _over_seeds(column: str, values: Sequence[float]) -> Interval:
    """Return the mean with its interval; of seconds, the median, which pauses of a busy machine do not move."""
    return Interval(statistics.median(values), None) if column == "seconds" else interval(values)


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
