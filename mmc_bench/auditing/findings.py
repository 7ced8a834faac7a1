"""The findings of an audit from its records: what is picked up and when, and what each method leaves of it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from mmc_bench.auditing.chance import ScoredImages, cost_by_chance, of_another
from mmc_bench.auditing.schema import (
    AHEAD,
    PICKED_UP,
    Cue,
    CueStrength,
    EpochAccuracies,
    MethodSummary,
    Reference,
    Repair,
    SplitAccuracies,
)
from mmc_bench.mechanisms.verdicts import UNKNOWN, reaches
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import CellRecord, Epoch, PretrainRecord

if TYPE_CHECKING:
    from mmc_bench.plugin.offers import Offer
    from mmc_bench.report.probed import ProbedModel
    from mmc_bench.suites.plan import Plan

#: How strengths are called, from the weakest, by how many there are.
WORDS = {1: ("strong",), 2: ("weak", "strong"), 3: ("weak", "medium", "strong")}

#: The effect in a cell's record that swapping the cue has.
SWAP = "randomise cue"


def cues_of(
    plan: "Plan",
    models: Mapping[str, PretrainRecord],
    cells: Mapping[str, CellRecord],
    probed: "Mapping[str, ProbedModel]",
    reference: Reference | None,
    images: ScoredImages | None,
) -> tuple[Cue, ...]:
    """Return what is found of each kind of cue.

    Parameters
    ----------
    plan
        The audit's, with a point for each strength.
    models, cells
        The records that there are, by key.
    probed
        Of cells whose networks were probed, what became of the cue, by the cell's key.
    reference
        The network that never saw a cue.
    images
        The test images; None where there is no network of a kind of cue.
    """
    points = sorted(plan.points, key=lambda point: float(next(iter(point.values.values()))))
    words = WORDS.get(len(points), [f"{next(iter(point.values.values())):g}" for point in points])
    summaries = {offer.spec.name: offer.spec.summary for offer, _ in plan.offers if offer.spec.kind == "dataset"}
    found: dict[str, list[CueStrength]] = {name: [] for name in summaries}
    for point, word in zip(points, words, strict=True):
        value = float(next(iter(point.values.values())))
        for name, strengths in found.items():
            own = [models[job.key] for job in point.plan.pretrainings if job.dataset.name == name and job.key in models]
            there = {model.key for model in own}
            mine = [cells[job.key] for job in point.plan.cells if job.key in cells and job.pretraining.key in there]
            strengths.append(_strength(word, value, own, mine, probed, reference, images))
    names = short_names(list(found))
    return tuple(
        Cue(dataset=name, name=names[name], summary=summaries[name], strengths=tuple(strengths))
        for name, strengths in found.items()
    )


def short_names(datasets: Sequence[str]) -> dict[str, str]:
    """Return names of datasets without the words that all begin with.

    >>> short_names(["photos-dot", "photos-line"])
    {'photos-dot': 'dot', 'photos-line': 'line'}
    """
    first, last = min(datasets), max(datasets)
    shared = next((n for n, (one, other) in enumerate(zip(first, last)) if one != other), len(first))
    start = first.rfind("-", 0, shared) + 1
    return {name: name[start:] for name in datasets}


def _strength(
    word: str,
    value: float,
    models: Sequence[PretrainRecord],
    cells: Sequence[CellRecord],
    probed: "Mapping[str, ProbedModel]",
    reference: Reference | None,
    images: ScoredImages | None,
) -> CueStrength:
    if not models or images is None:
        return CueStrength(word=word, value=value)
    curve = _curve(models)
    by_method: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in cells:
        by_method[cell.cell.method.name].append(cell)
    before = {model.key: model for model in models}
    changed = {cell.pretraining_key: cell.effects[SWAP].flips[0] for cell in cells}
    flips = [of_another(share, images.classes) for share in changed.values()]
    falls = [_fall(model, images.classes) for model in models]
    fall, chance = fmean(falls), fmean(_chance(model, changed.get(model.key), images) for model in models)
    picked = _exceeds_chance(fall, chance)
    return CueStrength(
        word=word,
        value=value,
        seeds=tuple(model.pretraining.seed for model in models),
        accuracy=_accuracies(models),
        fall=fall,
        fall_spread=_spread(falls),
        chance=chance,
        flips=_mean(flips),
        flips_spread=_spread(flips),
        reference_flips=_mean(probed[cell.key].cue_free.flips for cell in cells if cell.key in probed),
        picked_up=picked,
        unclear=reaches(fall, PICKED_UP) and not picked,
        first_epoch=next((point.epoch for point in curve if reaches(point.C - point.NC, AHEAD)), None),
        curve=curve,
        repairs=tuple(_repair(name, own, before, probed, reference, images.classes) for name, own in by_method.items()),
    )


def _repair(
    method: str,
    cells: Sequence[CellRecord],
    before: Mapping[str, PretrainRecord],
    probed: "Mapping[str, ProbedModel]",
    reference: Reference | None,
    classes: int,
) -> Repair:
    accuracy = _accuracies(cells)
    first, flips = ([of_another(cell.effects[SWAP].flips[which], classes) for cell in cells] for which in (0, 1))
    start = _accuracies([before[cell.pretraining_key] for cell in cells])
    words = tuple(probed[cell.key].verdict.word or UNKNOWN for cell in cells if cell.key in probed)
    return Repair(
        method=method,
        seeds=tuple(cell.cell.pretraining.seed for cell in cells),
        accuracy=accuracy,
        flips=fmean(flips),
        flips_spread=_spread(flips),
        left=fmean(flips) / fmean(first) if any(first) else None,
        gain=accuracy.NC - start.NC,
        behind_reference=reference.NC - accuracy.NC if reference else None,
        seconds=fmean(cell.timing.seconds.get("fine_tune", 0.0) for cell in cells),
        words=words,
    )


def picked_up(model: PretrainRecord, changed: float, images: ScoredImages) -> bool:
    """Tell whether one network picked up its cue, of whose predictions a random cue changes this share."""
    return _exceeds_chance(_fall(model, images.classes), _chance(model, changed, images))


def _exceeds_chance(fall: float, chance: float) -> bool:
    return reaches(fall, max(PICKED_UP, chance))


def _fall(model: PretrainRecord, classes: int) -> float:
    """Return the accuracy that one network loses when cues are swapped for another class's."""
    accuracy = _accuracies([model])
    return of_another(accuracy.C - accuracy.RC, classes)


def _chance(model: PretrainRecord, changed: float | None, images: ScoredImages) -> float:
    """Return what a swap may seem to cost one network by chance.

    Where it is not known how many predictions a random cue changes (no method was applied), it is as many as if right
    and wrong on C and on RC were independent. It is at least as many as change where a swap costs `PICKED_UP`: that a
    few images show no change does not rule such a cost out.
    """
    own, random = (model.metrics.splits[split].accuracy for split in ("C", "RC"))
    share = own * (1 - random) + random * (1 - own) if changed is None else changed
    least = PICKED_UP * (images.classes - 1) / images.classes
    return cost_by_chance(max(share, least), images.classes, images.images)


def reference_of(models: Sequence[PretrainRecord]) -> Reference | None:
    """Return the network that never saw a cue, or None while there is none."""
    if not models:
        return None
    return Reference(NC=_accuracies(models).NC, seeds=tuple(model.pretraining.seed for model in models))


def methods_of(offers: "Iterable[Offer]", cues: Iterable[Cue], failed: Mapping[str, int]) -> tuple[MethodSummary, ...]:
    """Return each method over all networks that picked up their cue; `failed` counts its failures by its name."""
    strengths = [strength for cue in cues for strength in cue.strengths if strength.picked_up]
    found = []
    for spec in (offer.spec for offer in offers if offer.spec.kind == "method"):
        own = [(one, repair) for one in strengths for repair in one.repairs if repair.method == spec.name]
        words = Counter(word for _, repair in own for word in repair.words)
        pairs = [pair for pair in own for _ in pair[1].seeds]  # means are over networks
        repairs = [repair for _, repair in pairs]
        found.append(
            MethodSummary(
                method=spec.name,
                summary=spec.summary,
                needs=("clean", *sorted(spec.needs - {"clean"})),
                repaired=len(repairs),
                failed=failed.get(spec.name, 0),
                flips_before=_mean(one.flips for one, _ in pairs),
                flips=_mean(repair.flips for repair in repairs),
                reference_flips=_mean(one.reference_flips for one, _ in pairs),
                gain=_mean(repair.gain for repair in repairs),
                behind_reference=_mean(repair.behind_reference for repair in repairs),
                seconds=_mean(repair.seconds for repair in repairs),
                words=dict(words.most_common()),
            )
        )
    return tuple(found)


def _accuracies(records: Sequence[PretrainRecord] | Sequence[CellRecord]) -> SplitAccuracies:
    scores = [record.metrics.splits for record in records]
    return SplitAccuracies(**{split: fmean(one[split].accuracy for one in scores) for split in SPLITS})


def _curve(models: Sequence[PretrainRecord]) -> tuple[EpochAccuracies, ...]:
    """Return the mean learning curve, as far as all networks have one."""
    points = zip(*(model.curve for model in models), strict=False)
    return tuple(
        EpochAccuracies(
            epoch=number,
            NC=fmean(point.NC for point in at if isinstance(point, Epoch)),
            C=fmean(point.C for point in at if isinstance(point, Epoch)),
        )
        for number, at in enumerate(points, start=1)
    )


def _spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation over seeds, where there are several."""
    return stdev(values) if len(values) > 1 else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
