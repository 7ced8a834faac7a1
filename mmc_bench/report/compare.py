"""Our rows against a published table: the difference in every number, and a verdict on every claim."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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
from mmc_bench.results.metrics import SPLITS


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
    claims = table.claims.claims if table.claims else ()
    named = {place.method for place in table.numbers}
    named |= {method for claim in claims for method in claim.methods}
    methods = methods_by_setting(rows, named)
    published = published_scores(table.basis, table.claims.classes if table.claims else {})
    differences = [item for setting, own in methods.items() for item in _differences(setting, own, table)]
    judgements = [
        judge(claim, scored(setting, own), published.get((plain(setting.dataset), setting.cue_rate), {}))
        for claim in claims
        for setting, own in methods.items()
        if claim.speaks_of(setting.cue_rate)
    ]
    if not differences and all(judgement.verdict == NO_RECORDS for judgement in judgements):
        raise NothingSelectedError(f"no selected record has a number in {table.name}: mmc-bench run makes some")
    ours = {(plain(setting.dataset), setting.cue_rate) for setting in methods}
    places = dict.fromkeys((place.dataset, place.cue_rate) for place in table.numbers)
    counts = {}
    for claim in claims:
        verdicts = [verdict_on(claim, own) for (_, rate), own in published.items() if claim.speaks_of(rate)]
        counts[claim.statement] = count(verdicts)
    missing = tuple(place for place in places if place not in ours)
    return PublishedComparison(table, tuple(differences), tuple(judgements), counts, missing)


def methods_by_setting(rows: Iterable[Row], named: Collection[str]) -> dict[JudgedSetting, dict[str, Row]]:
    """Return rows by setting and method; of these methods, and on counterfactuals, alone.

    Raises
    ------
    UserError
        When two rows of one setting are of one method that is named.
    """
    settings: dict[JudgedSetting, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.method == PRETRAINED or row.cue_rate is None:
            continue
        methods, name = settings[JudgedSetting(row.dataset, row.backbone, row.cue_rate)], plain(row.method)
        if name in methods:
            raise UserError(
                f"{row.dataset} {row.backbone} cue rate {row.cue_rate:g} has two rows of {name}, "
                f"{methods[name].method!r} and {row.method!r}: say which is meant, with --suite or --set"
            )
        if name in named:
            methods[name] = row
    return settings


def scored(setting: JudgedSetting, methods: Mapping[str, Row]) -> Scored:
    """Return the accuracies (per cent) of one setting's rows, by method, as claims name them."""
    quantities = {
        f"{split} for {method}": 100 * statistic.mean
        for method, row in methods.items()
        for split in (*SPLITS, WORST_SPLIT)
        if (statistic := row.values[split])
    }
    quantities.update((CHANCE, 100 / row.num_classes) for row in methods.values())
    return Scored(setting, {method: row.seeds for method, row in methods.items()}, quantities)


def plain(label: str) -> str:
    """Return the name in a row's label: no name has a space, and notes of what else differs come after one."""
    return label.split(" ")[0]


def _differences(setting: JudgedSetting, methods: Mapping[str, Row], table: PublishedTable) -> Iterable[Difference]:
    for method in dict.fromkeys(place.method for place in table.numbers if place.method in methods):
        row = methods[method]
        for split in SPLITS:
            number = table.numbers.get(PublishedKey(plain(setting.dataset), setting.cue_rate, method, split))
            if number is not None and (ours := row.values[split]):
                spread = None if ours.std is None else 100 * ours.std
                yield Difference(setting, row.method, split, row.seeds, Statistic(100 * ours.mean, spread), number)
