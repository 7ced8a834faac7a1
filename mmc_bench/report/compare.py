"""Our rows against a published table: the difference in every number, and a verdict on every claim."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.claims import (
    CHANCE,
    NO_RECORDS,
    WORST_SPLIT,
    JudgedSetting,
    Judgement,
    Scored,
    count,
    judge,
    verdict_on,
)
from mmc_bench.report.published import PublishedKey, PublishedTable, published_scores
from mmc_bench.report.rows import PRETRAINED, Row, Statistic
from mmc_bench.results.records import SPLITS


@dataclass(frozen=True)
class Difference:
    """One number of ours (per cent) beside the published one; `points` is ours less theirs."""

    setting: JudgedSetting
    method: str
    split: str
    seeds: tuple[int, ...]
    ours: Statistic
    published: float

    @property
    def points(self) -> float:
        """Ours less the published number."""
        return self.ours.mean - self.published


@dataclass(frozen=True)
class PublishedComparison:
    """Everything that is compared.

    `judgements` go claim by claim, setting by setting. `published_counts` has, for each claim, in how many of
    all published settings it holds and fails. `missing` are the published settings that no row is of.
    """

    table: PublishedTable
    differences: tuple[Difference, ...]
    judgements: tuple[Judgement, ...]
    published_counts: Mapping[str, Mapping[str, int]]
    missing: tuple[tuple[str, float], ...]


def compare(rows: Iterable[Row], table: PublishedTable) -> PublishedComparison:
    """Compare `rows` with a published table, and put them to its claims.

    Rows are matched by dataset, cue rate and method, whatever their backbone, sizes and recipe; their labels
    say those.

    Raises
    ------
    NothingSelectedError
        When no row has a number or a verdict to show.
    UserError
        When two rows of one setting are of one method that the table or a claim names.
    """
    rows = list(rows)
    by_setting = _by_setting(rows)
    claims = table.claims.claims if table.claims else ()
    named = {place.method for place in table.numbers}
    named |= {method for claim in claims for method in claim.methods}
    methods = {setting: _by_method(setting, own, named) for setting, own in by_setting.items()}
    published = published_scores(table.basis, table.claims.classes if table.claims else {})
    differences = [item for setting, own in methods.items() for item in _differences(setting, own, table)]
    judgements = [
        judge(claim, scored, published.get((plain(scored.setting.dataset), scored.setting.cue_rate), {}))
        for claim in claims
        for scored in scored_rows(rows, named)
        if claim.speaks_of(scored.setting.cue_rate)
    ]
    if not differences and all(judgement.verdict == NO_RECORDS for judgement in judgements):
        raise NothingSelectedError(f"no selected record has a number in {table.name}: mmc-bench run makes some")
    ours = {(plain(setting.dataset), setting.cue_rate) for setting in by_setting}
    places = dict.fromkeys((place.dataset, place.cue_rate) for place in table.numbers)
    counts = {claim.statement: count([verdict_on(claim, scores) for scores in published.values()]) for claim in claims}
    missing = tuple(place for place in places if place not in ours)
    return PublishedComparison(table, tuple(differences), tuple(judgements), counts, missing)


def scored_rows(rows: Iterable[Row], named: set[str]) -> list[Scored]:
    """Return the accuracies of rows, setting by setting; of these methods alone.

    Raises
    ------
    UserError
        When two rows of one setting are of one method that is named.
    """
    scored = []
    for setting, own in _by_setting(rows).items():
        methods = _by_method(setting, own, named)
        quantities = {
            f"{split} for {method}": 100 * statistic.mean
            for method, row in methods.items()
            for split in (*SPLITS, WORST_SPLIT)
            if (statistic := row.values[split])
        }
        quantities.update((CHANCE, 100 / row.num_classes) for row in methods.values())
        scored.append(Scored(setting, {method: row.seeds for method, row in methods.items()}, quantities))
    return scored


def plain(label: str) -> str:
    """Return the name in a row's label: no name has a space, and notes of what else differs come after one."""
    return label.split(" ")[0]


def _by_setting(rows: Iterable[Row]) -> dict[JudgedSetting, list[Row]]:
    settings: dict[JudgedSetting, list[Row]] = defaultdict(list)
    for row in rows:
        if row.method != PRETRAINED:
            settings[JudgedSetting(row.dataset, row.backbone, row.cue_rate)].append(row)
    return settings


def _by_method(setting: JudgedSetting, rows: Sequence[Row], named: set[str]) -> dict[str, Row]:
    """Return the rows of one setting by their method's name; only those whose method is named."""
    methods: dict[str, Row] = {}
    for row in rows:
        name = plain(row.method)
        if name in methods:
            raise UserError(
                f"{setting.dataset} {setting.backbone} cue rate {setting.cue_rate:g} has two rows of {name}, "
                f"{methods[name].method!r} and {row.method!r}: say which is meant, with --suite or --set"
            )
        if name in named:
            methods[name] = row
    return methods


def _differences(setting: JudgedSetting, methods: Mapping[str, Row], table: PublishedTable) -> Iterable[Difference]:
    for method in dict.fromkeys(place.method for place in table.numbers if place.method in methods):
        row = methods[method]
        for split in SPLITS:
            number = table.numbers.get(PublishedKey(plain(setting.dataset), setting.cue_rate, method, split))
            if number is not None and (ours := row.values[split]):
                spread = None if ours.std is None else 100 * ours.std
                yield Difference(setting, row.method, split, row.seeds, Statistic(100 * ours.mean, spread), number)
