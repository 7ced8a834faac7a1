"""The answer of an audit in a few sentences, made from its numbers alone."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from mmc_bench.auditing.chance import learned
from mmc_bench.auditing.schema import COSTLY, PICKED_UP, AuditReport, Cue, MethodSummary
from mmc_bench.system.words import counted


def answer(report: AuditReport) -> tuple[str, ...]:
    """Return what is picked up, which kind pulls hardest, and which method leaves least of it, in a sentence each."""
    found = [*_unfinished(report)]
    if not any(cue.picked_up or _known(cue) for cue in report.cues):
        return (*found, "Nothing can be said yet of what the network picks up.")
    found += [*_picked_up(report)]
    if any(cue.picked_up for cue in report.cues):
        found += [*_hardest([cue for cue in report.cues if cue.picked_up]), *_repaired(report)]
    return tuple(found)


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them.

    >>> listed(["box"]), listed(["box", "patch"]), listed(["box", "patch", "border"])
    ('box', 'box and patch', 'box, patch and border')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _known(cue: Cue) -> bool:
    """Tell whether there is a network for each strength."""
    return all(strength.accuracy for strength in cue.strengths)


def _unfinished(report: AuditReport) -> Iterator[str]:
    parts = [counted(report.missing, "training or repair", "trainings and repairs")] if report.missing else []
    parts += [counted(report.unprobed, "probe")] if report.unprobed else []
    if parts:
        have = "has" if report.missing + report.unprobed == 1 else "have"
        yield f"Not finished: {listed(parts)} {have} not run yet. The same command goes on."


def _picked_up(report: AuditReport) -> Iterator[str]:
    cues, backbone = report.cues, report.backbone
    yes = [cue.name for cue in cues if cue.picked_up]
    ignored = [cue for cue in cues if not cue.picked_up and not cue.unclear and _known(cue)]
    no = [cue.name for cue in ignored]
    unclear = [cue.name for cue in cues if cue.unclear and _known(cue)]
    unknown = [cue.name for cue in cues if not cue.picked_up and not _known(cue)]
    after = f"After {counted(report.epochs, 'epoch')}, {backbone}"
    every = {1: "the one kind", 2: "both kinds"}.get(len(cues), f"all {len(cues)} kinds")
    guessing = _guessing(report, ignored) if ignored else None
    images = counted(report.images.test or 0, "test image")
    told = f", as far as {images} can tell" if _within_chance(ignored) else ""
    if yes:
        count = every if len(yes) == len(cues) else f"{len(yes)} of {len(cues)} kinds"
        but = f", but not {listed(no)}{told}" if no else ""
        yield f"{after} picks up {count} of cue at these strengths: {listed(yes)}{but}."
    elif no:
        none = f"does not pick up {no[0]}" if len(no) == 1 else f"picks up none of {listed(no)}"
        nothing = "" if told or guessing or unclear or unknown else ": there is nothing to remove"
        yield f"{after} {none} at these strengths{told}{nothing}."
    if unclear:
        chance = f"cannot be told with {images}: a swap’s cost may be chance"
        yield f"Whether {backbone} picks up {listed(unclear)} {chance}."
    if guessing:
        yield guessing
    if unknown:
        yield f"Of {listed(unknown)} it is not known."


def _within_chance(cues: Iterable[Cue]) -> bool:
    """Tell whether a swap could cost `PICKED_UP` of accuracy and be taken for chance."""
    return any((strength.chance or 0.0) > PICKED_UP for cue in cues for strength in cue.strengths)


def _guessing(report: AuditReport, ignored: Sequence[Cue]) -> str | None:
    """Return a sentence where a network that ignores its cue, or the reference, is hardly better than guessing."""
    largest, images = report.images.largest_class, report.images.test
    reached = [one.accuracy.C for cue in ignored for one in cue.strengths if one.accuracy]
    reached += [report.reference.NC] if report.reference else []
    if not largest or not images or learned(min(reached), largest, images):
        return None
    return (
        f"Little can be said of {listed([cue.name for cue in ignored])}: a network hardly learned these images "
        f"({_percent(min(reached))} of test images are right, {_percent(largest)} by always naming the largest class). "
        "Train longer (--set pretrain.epochs=N) or give more images."
    )


def _hardest(cues: Sequence[Cue]) -> Iterator[str]:
    """Say which kind's swap costs most, over the strengths at which all kinds that are picked up have a network."""
    common = [value for value in _falls(cues[0]) if all(value in _falls(cue) for cue in cues)]
    if not common:
        return
    cue = max(cues, key=lambda cue: fmean(_falls(cue)[value] for value in common))
    there = [one for one in cue.strengths if one.picked_up]
    weakest, at = there[0], there[-1]
    hardest = f"Of these, {cue.name} pulls hardest: when" if len(cues) > 1 else "When"
    text = f"{hardest} {'it' if len(cues) > 1 else cue.name} is {at.word} and swapped for another class’s, "
    text += f"{_points(at.fall)} of accuracy are lost"
    if weakest is not at:
        alike = _shown(weakest.fall) == _shown(at.fall)
        text += f", and {'as many' if alike else _points(weakest.fall)} when it is {weakest.word}"
    first = f"; images with it are ahead of images without after epoch {at.first_epoch}" if at.first_epoch else ""
    yield f"{text}{first}."


def _falls(cue: Cue) -> dict[float, float]:
    return {one.value: one.fall for one in cue.strengths if one.fall is not None}


def _repaired(report: AuditReport) -> Iterator[str]:
    """Say which method leaves least of the cues, of those that have repaired every network and cost little accuracy."""
    tried = [method for method in report.methods if method.repaired]
    whole = [method for method in tried if method.repaired == report.picked_up_networks and method.flips is not None]
    if not tried:
        if report.methods:
            failed = any(method.failed for method in report.methods)
            yield "All repairs failed; why is said below." if failed else "None of these networks is repaired yet."
        return
    if not whole:
        yield "No method has repaired all of these networks, so that methods cannot be compared."
        return
    costly = [method for method in whole if _is_costly(method, whole)]
    if fair := [method for method in whole if method not in costly]:
        alone = len(whole) == 1 < len(report.methods)
        yield from _least(fair, ", the only method that has repaired all of these networks," if alone else "")
    if costly:
        yield _left_out(costly, whole)


def _is_costly(method: MethodSummary, methods: Sequence[MethodSummary]) -> bool:
    """Tell whether accuracy without cues is far below both the highest at hand and that of the cue-free network."""
    behind = method.behind_reference
    return _shown(_cost(method, methods)) > _shown(COSTLY) and (behind is None or _shown(behind) > _shown(COSTLY))


def _cost(method: MethodSummary, methods: Sequence[MethodSummary]) -> float:
    """Return how far accuracy without cues is below the highest, that before the repair or after one of the methods."""
    return max(0.0, *(one.gain or 0.0 for one in methods)) - (method.gain or 0.0)


def _left_out(costly: Sequence[MethodSummary], methods: Sequence[MethodSummary]) -> str:
    """Name the methods that are left out for their cost."""
    best = max(methods, key=lambda method: method.gain or 0.0)
    highest = f"that {f'after {best.method}' if _shown(best.gain) > 0 else 'before the repair'}"
    if len(costly) < len(methods):
        why = f"Left out, with accuracy without cues more than {_points(COSTLY)} below {highest}"
    else:
        why = f"No method that has repaired all of these networks keeps accuracy without cues within {_points(COSTLY)} "
        why += f"of {highest}"
    left = [(one.method, _points(_cost(one, methods)), _percent(one.flips or 0.0)) for one in costly]
    return f"{why}: {listed([f'{name} ({cost} below, a swap changes {flips})' for name, cost, flips in left])}."


def _least(methods: Sequence[MethodSummary], only: str) -> Iterator[str]:
    """Say which of these methods leaves least; `only` is said of one that could not be compared."""
    least = min(_shown(method.flips) for method in methods)
    best = [method for method in methods if _shown(method.flips) == least]
    before = _shown(best[0].flips_before)
    names = listed([method.method for method in best])
    changes = f"a swapped cue still changes {least} % of the predictions, {before} % before"
    if least >= before:
        none = (
            f"{names}{only} does not help" if len(methods) == 1 else f"None of the methods helps; {names} leaves least"
        )
        yield f"With these settings, {none}: {changes}."
    elif len(methods) == 1:
        yield f"With these settings, after {names}{only} {changes}."
    else:
        yield f"Of the methods, with these settings, {names} leave{'s' if len(best) == 1 else ''} least: {changes}."
    for method in best:
        yield from _after(method)


def _after(method: MethodSummary) -> Iterator[str]:
    """Say what a repair costs, and what became of the cue."""
    parts = []
    if method.behind_reference is not None:
        behind = method.behind_reference
        how = f"{_points(abs(behind))} {'below' if behind > 0 else 'above'}" if _shown(behind) else "equal to"
        parts.append(f"accuracy without cues is {how} that of a network that never saw a cue")
    if total := sum(method.words.values()):
        where = "the one probed network" if total == 1 else f"all {total} probed networks"
        if len(method.words) > 1:
            words = listed([f"{word} in {count}" for word, count in method.words.items()])
            parts.append(f"the cue is {words} of {total} probed networks")
        else:
            parts.append(f"the cue is {next(iter(method.words))} in {where}")
    if parts:
        yield f"After {method.method}, {', and '.join(parts)}."


def _shown(share: float | None) -> int:
    """Return a share in whole per cent, as it is shown."""
    return round(100 * (share or 0.0))


def _points(share: float | None) -> str:
    return counted(_shown(share), "point")


def _percent(share: float) -> str:
    return f"{_shown(share)} %"
