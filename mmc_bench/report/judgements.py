"""Records put to a file of claims: their accuracies, and what their paths and invariances say."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.claims import DIFFERING, NO_RECORDS, Claims, JudgedSetting, Judgement, Kind, Scored, judge
from mmc_bench.report.compare import methods_by_setting, scored
from mmc_bench.report.curves import paths_of
from mmc_bench.report.groups import RecordGroup, group_cells, group_pairs, method_labels
from mmc_bench.report.rows import make_rows
from mmc_bench.results.records import CellRecord, Connectivity, Invariance, PairRecord, PathRecord, PretrainRecord


def judge_records(
    claims: Claims,
    pairs: Iterable[PairRecord],
    cells: Sequence[CellRecord],
    pretrained: Sequence[PretrainRecord],
) -> list[Judgement]:
    """Put records to claims; settings with no number of a claim are not judged on it.

    Raises
    ------
    NothingSelectedError
        When there is no verdict to show.
    UserError
        When two variants of a method that a claim names are in one setting.
    """
    named: dict[Kind, set[str]] = defaultdict(set)
    for claim in claims.claims:
        named[claim.kind] |= set(claim.methods)
    before = {record.key: record.invariance for record in pretrained}
    rows = make_rows(cells, pretrained) if named["accuracies"] else []
    settings: dict[Kind, list[Scored]] = {
        "accuracies": [scored(*own) for own in methods_by_setting(rows, named["accuracies"]).items()],
        "cells": [one for group in group_cells(cells) for one in _scored_cells(group, before, named["cells"])],
        "pairs": [one for group in group_pairs(pairs) for one in _scored_pairs(group)],
    }
    judgements = [
        judge(claim, one, {})
        for claim in claims.claims
        for one in settings[claim.kind]
        if claim.speaks_of(one.setting.cue_rate)
    ]
    judgements = [one for one in judgements if any(check.value is not None for check in one.checks)]
    if all(judgement.verdict == NO_RECORDS for judgement in judgements):
        raise NothingSelectedError("no selected record has what the claims are about: mmc-bench run makes some")
    return judgements


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
    quantities: dict[str, float] = {}
    for split, curve in path.splits.items() if path.has_inner_points else ():
        place = f"of {name} on {part}{split}"
        quantities[f"drop {place}"] = 100 * (min(curve.accuracy[0], curve.accuracy[-1]) - min(curve.accuracy))
        quantities[f"fall {place}"] = 100 * (max(curve.accuracy[0], curve.accuracy[-1]) - min(curve.accuracy))
        quantities[f"barrier {place}"] = 100 * path.barriers[split].accuracy
        quantities[f"loss barrier {place}"] = path.barriers[split].loss
    return quantities


def _scored_pairs(group: RecordGroup[PairRecord]) -> list[Scored]:
    found: dict[float, list[PairRecord]] = defaultdict(list)
    for record in group.records:
        if (cue_rate := record.pair.first.cue_rate) is not None:
            found[cue_rate].append(record)
    return [
        Scored(
            JudgedSetting(group.dataset, group.backbone, cue_rate, f"one {group.partner}"),
            {"pairs": [f"{record.pair.first.seed}-{record.pair.second.seed}" for record in records]},
            _means([quantities_of(paths_of(record), record.comparison.invariance) for record in records]),
        )
        for cue_rate, records in found.items()
    ]


def _scored_cells(
    group: RecordGroup[CellRecord], before: Mapping[str, Mapping[str, Invariance]], named: set[str]
) -> list[Scored]:
    found: dict[float, dict[str, list[CellRecord]]] = defaultdict(lambda: defaultdict(list))
    labels = method_labels(group.records)
    for record in group.records:
        cue_rate = record.cell.pretraining.cue_rate
        if record.cell.method.name in named and cue_rate is not None:
            found[cue_rate][record.cell.method.name].append(record)
    settings = []
    for cue_rate, methods in found.items():
        quantities: dict[str, float] = {}
        for method, records in methods.items():
            _check_one_variant([labels[record.key] for record in records], group, cue_rate)
            means = _means(
                [quantities_of(paths_of(r), (before.get(r.pretraining_key, {}), r.invariance)) for r in records]
            )
            quantities |= {f"{quantity} for {method}": mean for quantity, mean in means.items()}
        seeds = {method: [record.cell.pretraining.seed for record in records] for method, records in methods.items()}
        settings.append(Scored(JudgedSetting(group.dataset, group.backbone, cue_rate), seeds, quantities))
    return settings


def _check_one_variant(labels: Sequence[str], group: RecordGroup[CellRecord], cue_rate: float) -> None:
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
