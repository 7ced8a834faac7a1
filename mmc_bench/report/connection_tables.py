"""The connections between models as a report."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from mmc_bench.landscape.invariance import TOLERANCE
from mmc_bench.report.connections import JUDGED, ModelConnection, tally, unpermuted
from mmc_bench.report.curves import PATHS
from mmc_bench.report.tables import ABSENT, Report, TextTable, yes_or_no
from mmc_bench.results.records import Connectivity

SHOWN = ("C", "NC")
PATH_COLUMNS = (
    *(f"{column}_{split}" for column in ("barrier", "connected") for split in SHOWN),
    *("largest_barrier", "mechanistically_connected"),
)
#: What is said of each intervention's effect, on the first and on the second model.
EFFECTS = ("loss_changes", "accuracy_changes", "flips")
RULE = (
    f"Linearly connected: along the straight path, or along it after permutation, the loss on {JUDGED} rises at most "
    f"{TOLERANCE:g} nats above the chord between the ends."
)


def render(found: Sequence[ModelConnection], form: str) -> str:
    """Return connections in one of `mmc_bench.report.tables.FORMATS`.

    For people a table of pairs, one of cells, and how often connected models are similar. The CSV has a line for each
    pair and cell, and one of kind ``count`` for each of the four counts.
    """
    names = _path_names(found)
    counts = [
        {"linearly_connected": connected, "similar": similar, "count": count}
        for (connected, similar), count in tally(found).items()
    ]
    return Report(
        blocks=list(_blocks(found)),
        columns=[
            *("kind", "first", "second", *(f"{name}_{column}" for name in names for column in PATH_COLUMNS)),
            *("linearly_connected", "similar", "pattern_distance", *_effect_columns(found), "count"),
        ],
        lines=[*map(_line, found), *({"kind": "count", **line} for line in counts)],
        content={
            "rule": RULE,
            "tolerance": TOLERANCE,
            "connections": [
                {
                    **_ends(item),
                    "paths": {name: _path(item, name) for name in item.paths},
                    **_verdicts(item),
                    "effects": {name: effect.model_dump(mode="json") for name, effect in item.effects.items()},
                }
                for item in found
            ],
            "counts": counts,
            "not_permuted": unpermuted(found),
        },
    ).render(form)


def _blocks(found: Sequence[ModelConnection]) -> Iterator[str | TextTable]:
    yield (
        "**Connections.** Barriers are of the loss (nats) on test images: on C, on NC, and the "
        "largest of all splits. Mode connected: on C, on NC, and on every split along this path (mechanistically). "
        f"{RULE}"
    )
    for _, group in groupby(found, key=lambda item: item.kind):
        yield _table(list(group))
    if effects := [item for item in found if item.effects]:
        yield (
            "**Effects of interventions** on the first / second model, for images with their cues: the change of the "
            "loss (nats) and of the accuracy (points), and the share of predictions that flip (%), at last in both."
        )
        yield _effect_table(effects)
    yield from _counts(found)


def _table(found: Sequence[ModelConnection]) -> TextTable:
    names = _path_names(found)
    has_distance = any(item.pattern_distance is not None for item in found)
    headers = ["first", "second"]
    for name in names:
        headers += [f"{PATHS.get(name, name)}: barrier C / NC / largest", "mode connected C / NC / all"]
    headers += ["linearly connected", "similar", *["W1 of patterns"] * has_distance]
    lines = []
    for item in found:
        line = [item.first, item.second]
        for name in names:
            line += _shown(item, name) if name in item.paths else [ABSENT] * 2
        line += [yes_or_no(item.linearly_connected), yes_or_no(item.similar)]
        distance = ABSENT if item.pattern_distance is None else f"{item.pattern_distance:.3f}"
        lines.append([*line, *[distance] * has_distance])
    return TextTable(headers, lines, words=2)


def _effect_table(found: Sequence[ModelConnection]) -> TextTable:
    names = list(dict.fromkeys(name for item in found for name in item.effects))
    headers = [f"{name}: {what}" for name in names for what in ("Δ loss", "Δ accuracy", "flips")]
    lines = []
    for item in found:
        line = [item.first, item.second]
        for effect in (item.effects[name] for name in names):
            line += [
                " / ".join(f"{value:+z.2f}" for value in effect.loss_changes),
                " / ".join(f"{100 * value:+z.1f}" for value in effect.accuracy_changes),
                " / ".join(f"{100 * value:.1f}" for value in (*effect.flips, effect.flips_of_both)),
            ]
        lines.append(line)
    return TextTable(["first", "second", *headers], lines, words=2)


def _effect_columns(found: Sequence[ModelConnection]) -> list[str]:
    return list(dict.fromkeys(column for item in found for column in _effects(item)))


def _effects(item: ModelConnection) -> dict[str, float]:
    """Return the numbers of the effects by column, such as ``remove_cue_flips_second``."""
    numbers: dict[str, float] = {}
    for name, effect in item.effects.items():
        for what, (first, second) in zip(EFFECTS, (getattr(effect, what) for what in EFFECTS), strict=True):
            column = f"{name} {what}".replace(" ", "_")
            numbers |= {f"{column}_first": first, f"{column}_second": second}
        numbers[f"{name} flips_of_both".replace(" ", "_")] = effect.flips_of_both
    return numbers


def _shown(item: ModelConnection, name: str) -> list[str]:
    path = item.paths[name].test
    barriers = (*(_loss_barrier(path, split) for split in SHOWN), path.largest_barrier)
    connected = (*(path.connected(split) for split in SHOWN), path.fully_connected)
    heights = (ABSENT if height is None else f"{height:.2f}" for height in barriers)
    return [" / ".join(heights), " / ".join(map(yes_or_no, connected))]


def _counts(found: Sequence[ModelConnection]) -> Iterator[str | TextTable]:
    counts = tally(found)
    lines = [
        [f"**{name}**", str(counts[connected, True]), str(counts[connected, False])]
        for name, connected in (("linearly connected", True), ("not linearly connected", False))
    ]
    yield TextTable(["", "similar", "dissimilar"], lines)
    left, total = len(found) - sum(counts.values()), sum(counts.values())
    notes = [
        "Conjecture 1 expects none in the lower left, similar though not linearly connected: "
        f"{counts[False, True]} of {total} are there."
    ]
    if untried := unpermuted(found):
        notes.append(f"Of those not connected, {untried} were not tried with a permutation.")
    if left:
        notes.append(f"Left out, for want of invariances or of a straight path with points between its ends: {left}.")
    yield " ".join(notes)


def _path_names(found: Sequence[ModelConnection]) -> list[str]:
    return list(dict.fromkeys(name for item in found for name in item.paths))


def _line(item: ModelConnection) -> dict[str, Any]:
    paths = {f"{name}_{key}": value for name in item.paths for key, value in _path(item, name).items()}
    return {**_ends(item), **paths, **_verdicts(item), **_effects(item)}


def _path(item: ModelConnection, name: str) -> dict[str, Any]:
    path = item.paths[name].test
    values = [*(_loss_barrier(path, split) for split in SHOWN), *(path.connected(split) for split in SHOWN)]
    return dict(zip(PATH_COLUMNS, [*values, path.largest_barrier, path.fully_connected], strict=True))


def _loss_barrier(path: Connectivity, split: str) -> float | None:
    height = path.height(split)
    return height.loss if height else None


def _ends(item: ModelConnection) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ("kind", "first", "second")}


def _verdicts(item: ModelConnection) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ("linearly_connected", "similar", "pattern_distance")}
