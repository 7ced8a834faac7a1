"""Our rows against a published table: the difference in every number, and a verdict on every claim."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.published import CHANCE, WORST_SPLIT, Check, Claim, Place, PublishedTable, published_scores
from mmc_bench.report.rows import PRETRAINED, Row, Statistic
from mmc_bench.results.records import SPLITS

HOLDS, FAILS, NO_RECORDS = "holds", "fails", "no records"
VERDICTS = (HOLDS, FAILS, NO_RECORDS)


@dataclass(frozen=True)
class Setting:
    """One dataset, backbone and cue rate, under the labels of our rows."""

    dataset: str
    backbone: str
    cue_rate: float


@dataclass(frozen=True)
class Difference:
    """One number of ours (per cent) beside the published one; `points` is ours less theirs."""

    setting: Setting
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
class Measured:
    """A check's numbers, by quantity, its value and its verdict; a value is None where a number is missing."""

    check: Check
    numbers: Mapping[str, float | None]
    value: float | None
    verdict: str

    def less(self, other: "Measured") -> float | None:
        """Return this value less another's; None where either is missing."""
        return None if self.value is None or other.value is None else self.value - other.value


@dataclass(frozen=True)
class Judgement:
    """One claim in one setting: our checks, and the published numbers' where there are any."""

    claim: Claim
    setting: Setting
    seeds: Mapping[str, tuple[int, ...]]
    checks: tuple[Measured, ...]
    published: tuple[Measured, ...]

    @property
    def verdict(self) -> str:
        """The verdict of our records."""
        return verdict_of(self.checks)

    @property
    def published_verdict(self) -> str | None:
        """The verdict of the published numbers; None where one is missing."""
        verdict = verdict_of(self.published)
        return None if verdict == NO_RECORDS else verdict


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared.

    `judgements` go claim by claim, setting by setting. `published_counts` has, for each claim, in how many of
    all published settings it holds and fails. `missing` are the published settings that no row is of.
    """

    table: PublishedTable
    differences: tuple[Difference, ...]
    judgements: tuple[Judgement, ...]
    published_counts: Mapping[str, Mapping[str, int]]
    missing: tuple[tuple[str, float], ...]

    def of_claim(self, claim: Claim) -> list[Judgement]:
        """Return the judgements of one claim."""
        return [judgement for judgement in self.judgements if judgement.claim == claim]


def compare(rows: Iterable[Row], table: PublishedTable) -> Comparison:
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
    by_setting = _by_setting(rows)
    claims = table.claims.claims if table.claims else ()
    named = {place.method for place in table.numbers}
    named |= {method_of(q) for claim in claims for check in claim.checks for q in check.quantities}
    methods = {setting: _by_method(setting, own, named) for setting, own in by_setting.items()}
    published = published_scores(table.basis, table.claims.classes if table.claims else {})
    differences = [item for setting, own in methods.items() for item in _differences(setting, own, table)]
    judgements = [
        judge(claim, setting, own, published.get((plain(setting.dataset), setting.cue_rate), {}))
        for claim in claims
        for setting, own in methods.items()
    ]
    if not differences and all(judgement.verdict == NO_RECORDS for judgement in judgements):
        raise NothingSelectedError(f"no selected record has a number in {table.name}: mmc-bench run makes some")
    ours = {(plain(setting.dataset), setting.cue_rate) for setting in by_setting}
    places = dict.fromkeys((place.dataset, place.cue_rate) for place in table.numbers)
    counts = {claim.statement: count([verdict_on(claim, scores) for scores in published.values()]) for claim in claims}
    missing = tuple(place for place in places if place not in ours)
    return Comparison(table, tuple(differences), tuple(judgements), counts, missing)


def measure(check: Check, scores: Mapping[str, float]) -> Measured:
    """Put one setting's scores, by quantity and in per cent, to a check."""
    numbers = {quantity: scores.get(quantity) for quantity in check.quantities}
    known = [number for quantity in check.quantities if (number := numbers[quantity]) is not None]
    if len(known) < len(check.quantities):
        return Measured(check, numbers, None, NO_RECORDS)
    value = known[0] - sum(known[1:])
    return Measured(check, numbers, value, HOLDS if check.allows(value) else FAILS)


def verdict_on(claim: Claim, scores: Mapping[str, float]) -> str:
    """Return the verdict on a claim of one setting's scores."""
    return verdict_of([measure(check, scores) for check in claim.checks])


def verdict_of(checks: Sequence[Measured]) -> str:
    """Return what checks say together: one that fails decides, then one without records."""
    verdicts = {check.verdict for check in checks}
    return next((verdict for verdict in (FAILS, NO_RECORDS, HOLDS) if verdict in verdicts), NO_RECORDS)


def judge(claim: Claim, setting: Setting, methods: Mapping[str, Row], published: Mapping[str, float]) -> Judgement:
    """Put our rows of one setting, by method, and the published scores to a claim."""
    scores = {
        f"{split} of {method}": 100 * statistic.mean
        for method, row in methods.items()
        for split in (*SPLITS, WORST_SPLIT)
        if (statistic := row.values[split])
    }
    scores.update((CHANCE, 100 / row.num_classes) for row in methods.values())
    wanted = dict.fromkeys(method_of(q) for check in claim.checks for q in check.quantities)
    return Judgement(
        claim=claim,
        setting=setting,
        seeds={method: methods[method].seeds for method in wanted if method in methods},
        checks=tuple(measure(check, scores) for check in claim.checks),
        published=tuple(measure(check, published) for check in claim.checks),
    )


def count(verdicts: Sequence[str]) -> dict[str, int]:
    """Return how often each verdict was given."""
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def plain(label: str) -> str:
    """Return the name in a row's label: no name has a space, and notes of what else differs come after one."""
    return label.split(" ")[0]


def method_of(quantity: str) -> str:
    """Return the method that a quantity names; empty for chance."""
    return quantity.partition(" of ")[2]


def _by_setting(rows: Iterable[Row]) -> dict[Setting, list[Row]]:
    settings: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        if row.method != PRETRAINED:
            settings[Setting(row.dataset, row.backbone, row.cue_rate)].append(row)
    return settings


def _by_method(setting: Setting, rows: Sequence[Row], named: set[str]) -> dict[str, Row]:
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


def _differences(setting: Setting, methods: Mapping[str, Row], table: PublishedTable) -> Iterable[Difference]:
    for method in dict.fromkeys(place.method for place in table.numbers if place.method in methods):
        row = methods[method]
        for split in SPLITS:
            number = table.numbers.get(Place(plain(setting.dataset), setting.cue_rate, method, split))
            if number is not None and (ours := row.values[split]):
                spread = None if ours.std is None else 100 * ours.std
                yield Difference(setting, row.method, split, row.seeds, Statistic(100 * ours.mean, spread), number)
