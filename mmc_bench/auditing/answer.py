"""The answer of an audit in a few sentences, made from its numbers alone."""

from collections.abc import Sequence
from statistics import fmean

from mmc_bench.auditing.schema import Cue, MethodSummary, Reference


def answer(
    backbone: str, cues: Sequence[Cue], methods: Sequence[MethodSummary], reference: Reference | None
) -> tuple[str, ...]:
    """Return what is picked up, which kind pulls hardest, and which method leaves least of it, in a sentence each."""
    known = [cue for cue in cues if any(strength.accuracy for strength in cue.strengths)]
    if not known:
        return ("No network has been trained yet.",)
    found = [_picked_up(backbone, known)]
    if any(cue.picked_up for cue in known):
        found += [_hardest(known), *_repaired(methods, reference)]
    return tuple(found)


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them.

    >>> listed(["box"]), listed(["box", "patch"]), listed(["box", "patch", "border"])
    ('box', 'box and patch', 'box, patch and border')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _picked_up(backbone: str, cues: Sequence[Cue]) -> str:
    yes, no = [cue.name for cue in cues if cue.picked_up], [cue.name for cue in cues if not cue.picked_up]
    if not yes and len(no) == 1:
        return f"{backbone} does not pick up the one kind of cue, {no[0]}: there is nothing to remove."
    if not yes:
        return f"{backbone} picks up none of the {len(cues)} kinds of cue ({listed(no)}): there is nothing to remove."
    if not no:
        every = "the one kind" if len(cues) == 1 else "both kinds" if len(cues) == 2 else f"all {len(cues)} kinds"
        return f"{backbone} picks up {every} of cue: {listed(yes)}."
    return f"{backbone} picks up {len(yes)} of {len(cues)} kinds of cue: {listed(yes)}, but not {listed(no)}."


def _hardest(cues: Sequence[Cue]) -> str:
    """Return a sentence about the kind whose swap costs most, over all of its strengths."""

    def falls(cue: Cue) -> list[float]:
        return [strength.accuracy.fall for strength in cue.strengths if strength.accuracy]

    cue = max(cues, key=lambda cue: fmean(falls(cue)))
    at = max((one for one in cue.strengths if one.accuracy), key=lambda one: one.accuracy.fall if one.accuracy else 0)
    weakest = next((one for one in cue.strengths if one.picked_up), at)
    text = f"The {cue.name} pulls hardest: when it is {at.word} and swapped for another’s, {_points(max(falls(cue)))}"
    text += " of accuracy are lost"
    if weakest is not at and weakest.accuracy:
        text += f", and {_points(weakest.accuracy.fall)} when it is {weakest.word}"
    return text + (f"; it shows after epoch {at.first_epoch}." if at.first_epoch else ".")


def _repaired(methods: Sequence[MethodSummary], reference: Reference | None) -> list[str]:
    """Return sentences about the method that leaves least of the cues."""
    tried = [method for method in methods if method.flips is not None and method.left is not None]
    if not tried:
        return []
    best = min(tried, key=lambda method: method.left or 0.0)
    before = "" if best.flips_before is None else f", {_percent(best.flips_before)} before"
    text = f"Of the methods, {best.method} leaves least: a swapped cue still changes {_percent(best.flips)} of the"
    text += f" predictions{before}"
    if reference and best.behind_reference is not None:
        compared = _compared(best.behind_reference)
        text += f", and accuracy without cues is {compared} that of a network that never saw a cue"
    total = sum(best.words.values())
    if not total:
        return [f"{text}."]
    if len(best.words) == 1:
        where = "the one network" if total == 1 else f"all {total} networks"
        return [f"{text}.", f"After it, the cue is {next(iter(best.words))} in {where}."]
    words = listed([f"{word} in {count}" for word, count in best.words.items()])
    return [f"{text}.", f"After it, the cue is {words} of {total} networks."]


def _compared(behind: float) -> str:
    if not round(100 * behind):
        return "equal to"
    return f"{_points(abs(behind))} {'below' if behind > 0 else 'above'}"


def _points(share: float) -> str:
    points = round(100 * share)
    return f"{points} point{'' if points == 1 else 's'}"


def _percent(share: float | None) -> str:
    return f"{round(100 * (share or 0.0))} %"
