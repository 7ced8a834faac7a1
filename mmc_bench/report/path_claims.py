"""Claims on the paths between models, as data, and the verdicts of our records on them.

A quantity of a claim is one of these; those of cells end in ``for METHOD``, and all of a claim's are of one kind:

- ``drop of PATH on SPLIT``: points by which the accuracy along a path falls below that of its worse end;
- ``fall of PATH on SPLIT``: points by which it falls below that of its better end; a path that falls connects no
  modes (definition 1), whether or not it rises again;
- ``barrier of PATH on SPLIT``: points by which it falls below the chord between the ends;
- ``loss barrier of PATH on SPLIT``: nats by which the loss rises above the chord;
- ``differing invariances``: the interventions to which one model is invariant and the other is not; similar models
  have none (definition 4).

The test images' splits are called ``NC``, ``C``, …, the training images' ``train NC``, ….
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.compare import NO_RECORDS, Measured, measure, verdict_of
from mmc_bench.report.curves import Group, group_cells, group_pairs, method_labels, paths_of
from mmc_bench.report.published import Check
from mmc_bench.results.jobs import Fraction, PathName
from mmc_bench.results.records import (
    SPLITS,
    CellRecord,
    Connectivity,
    Invariance,
    PairRecord,
    PathRecord,
    PretrainRecord,
)

DIFFERING = "differing invariances"
QUANTITY = re.compile(
    rf"(?:(?:drop|fall|barrier|loss barrier) of (?:{'|'.join(get_args(PathName))}) on (?:train )?(?:{'|'.join(SPLITS)})"
    rf"|{DIFFERING})(?: for (\S+))?"
)


def _known_quantity(text: str) -> str:
    if not QUANTITY.fullmatch(text):
        raise ValueError(
            f"write [loss] barrier, drop or fall of PATH on [train] SPLIT [for METHOD], or {DIFFERING} [for METHOD], "
            f"where PATH is {', '.join(get_args(PathName))}"
        )
    return text


PathQuantity = Annotated[str, AfterValidator(_known_quantity)]


class PathCheck(Check):
    """One quantity of paths, or the difference of two, and the one bound on it.

    `if_measured` leaves the check out where the records do not have it: not every path is measured everywhere.
    """

    value: PathQuantity | None = None
    difference: tuple[PathQuantity, PathQuantity] | None = None
    if_measured: bool = False


class PathClaim(BaseModel):
    """A sentence, the checks that must all hold where it is true, and the cue rates that it speaks of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    statement: str
    checks: Annotated[tuple[PathCheck, ...], Field(min_length=1)]
    cue_rates: tuple[Fraction, Fraction] = (0.0, 1.0)

    @model_validator(mode="after")
    def _one_kind(self) -> "PathClaim":
        if len({method is None for method in self._methods}) > 1:
            raise ValueError("a claim is on pairs of models, or on cells (for METHOD)")
        return self

    @property
    def _methods(self) -> list[str | None]:
        return [method_of(quantity) for check in self.checks for quantity in check.quantities]

    @property
    def methods(self) -> list[str]:
        """The methods that it names; none where it is on pairs."""
        return list(dict.fromkeys(method for method in self._methods if method))


class PathClaims(BaseModel):
    """What is said of paths; `source` says by whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    claims: Annotated[tuple[PathClaim, ...], Field(min_length=1)]


@dataclass(frozen=True)
class PathSetting:
    """The records behind a verdict: everything but the seed is one, under labels that tell settings apart."""

    dataset: str
    backbone: str
    cue_rate: float
    second: str
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class PathJudgement:
    """One claim in one setting; numbers are means over the seeds."""

    claim: PathClaim
    setting: PathSetting
    checks: tuple[Measured, ...]

    @property
    def verdict(self) -> str:
        """What the checks say together, without those that need not be measured and were not."""
        pairs = zip(self.claim.checks, self.checks, strict=True)
        return verdict_of([done for check, done in pairs if done.value is not None or not check.if_measured])


Scored = list[tuple[PathSetting, dict[str, float]]]


def judge_paths(
    claims: PathClaims,
    pairs: Iterable[PairRecord],
    cells: Iterable[CellRecord],
    pretrained: Iterable[PretrainRecord],
) -> list[PathJudgement]:
    """Put records to claims on paths; settings with no number of a claim are not judged on it.

    Raises
    ------
    NothingSelectedError
        When there is no verdict to show.
    UserError
        When two variants of a method that a claim names are in one setting.
    """
    named = {method for claim in claims.claims for method in claim.methods}
    of_pairs = [scored for group in group_pairs(pairs) for scored in _scores_of_pairs(group)]
    before = {record.key: record.invariance for record in pretrained}
    of_cells = [scored for group in group_cells(cells) for scored in _scores_of_cells(group, before, named)]
    judgements = []
    for claim in claims.claims:
        low, high = claim.cue_rates
        for setting, scores in of_cells if claim.methods else of_pairs:
            checks = tuple(measure(check, scores) for check in claim.checks)
            if low <= setting.cue_rate <= high and any(check.value is not None for check in checks):
                judgements.append(PathJudgement(claim, setting, checks))
    if all(judgement.verdict == NO_RECORDS for judgement in judgements):
        raise NothingSelectedError("no selected record has what the claims are about: mmc-bench run makes some")
    return judgements


def method_of(quantity: str) -> str | None:
    """Return the method that a quantity names; None where it is of pairs."""
    found = QUANTITY.fullmatch(quantity)
    return found[1] if found else None


def quantities_of(paths: Mapping[str, PathRecord], ends: Sequence[Mapping[str, Invariance]]) -> dict[str, float]:
    """Return every quantity of two models, by its name; of the invariances of both ends only where they are known."""
    quantities: dict[str, float] = {}
    for name, path in paths.items():
        quantities |= _of_path(name, "", path.test)
        if path.train is not None:
            quantities |= _of_path(name, "train ", path.train)
    if all(ends):
        first, second = ends
        quantities[DIFFERING] = sum(first[name].invariant != second[name].invariant for name in first)
    return quantities


def _of_path(name: str, part: str, path: Connectivity) -> dict[str, float]:
    quantities = {}
    for split, curve in path.splits.items():
        place = f"of {name} on {part}{split}"
        quantities[f"drop {place}"] = 100 * (min(curve.accuracy[0], curve.accuracy[-1]) - min(curve.accuracy))
        quantities[f"fall {place}"] = 100 * (max(curve.accuracy[0], curve.accuracy[-1]) - min(curve.accuracy))
        quantities[f"barrier {place}"] = 100 * path.barriers[split].accuracy
        quantities[f"loss barrier {place}"] = path.barriers[split].loss
    return quantities


def _scores_of_pairs(group: Group[PairRecord]) -> Scored:
    found: dict[float, list[PairRecord]] = defaultdict(list)
    for record in group.records:
        found[record.pair.first.cue_rate].append(record)
    return [
        (
            PathSetting(
                group.dataset,
                group.backbone,
                cue_rate,
                f"one {group.partner}",
                tuple(f"{record.pair.first.seed}-{record.pair.second.seed}" for record in records),
            ),
            _means([quantities_of(paths_of(record), record.comparison.invariance) for record in records]),
        )
        for cue_rate, records in found.items()
    ]


def _scores_of_cells(
    group: Group[CellRecord], before: Mapping[str, Mapping[str, Invariance]], named: set[str]
) -> Scored:
    found: dict[float, dict[str, list[CellRecord]]] = defaultdict(lambda: defaultdict(list))
    labels = method_labels(group.records)
    for record in group.records:
        if record.cell.method.name in named:
            found[record.cell.pretraining.cue_rate][record.cell.method.name].append(record)
    scored = []
    for cue_rate, methods in found.items():
        scores: dict[str, float] = {}
        seeds: dict[str, None] = {}
        for method, records in methods.items():
            _check_one_variant([labels[record.key] for record in records], group, cue_rate)
            means = _means(
                [quantities_of(paths_of(r), (before.get(r.pretraining_key, {}), r.invariance)) for r in records]
            )
            scores |= {f"{quantity} for {method}": mean for quantity, mean in means.items()}
            seeds |= dict.fromkeys(str(record.cell.pretraining.seed) for record in records)
        scored.append((PathSetting(group.dataset, group.backbone, cue_rate, "", tuple(seeds)), scores))
    return scored


def _check_one_variant(labels: Sequence[str], group: Group[CellRecord], cue_rate: float) -> None:
    variants = list(dict.fromkeys(labels))
    if len(variants) > 1:
        raise UserError(
            f"{group.dataset} {group.backbone} cue rate {cue_rate:g} has {' and '.join(variants)}: "
            "say which is meant, with --suite or --set"
        )


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each quantity that all have."""
    common = [quantity for quantity in found[0] if all(quantity in other for other in found)]
    return {quantity: statistics.fmean(other[quantity] for other in found) for quantity in common}
