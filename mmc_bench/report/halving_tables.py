"""Where along an axis each method halves the cue's hold, as a report."""

from collections.abc import Sequence
from math import inf
from typing import Any

from mmc_bench.report.axis_curves import AxisCurves
from mmc_bench.report.halving import LEVEL, Halving, halving, height_at
from mmc_bench.report.rows import PRETRAINED
from mmc_bench.report.tables import ABSENT, Report, TextTable, of_seeds, one_line, rounded

#: How a number stands to the value that it stands for, which may lie outside the axis.
AT, AT_MOST, ABOVE = "at", "at most", "above"
NUMBERS = ("halved_at", "low", "high")
COLUMNS = (
    *("dataset", "backbone", "cue_rate", "method", "axis", "seeds"),
    *(name for number in NUMBERS for name in (number, f"{number}_is")),
    "NC",
)


def render(curves: Sequence[AxisCurves], form: str) -> str:
    """Return the halving points of every method in one of `FORMATS`.

    CSV and JSON have a number and how it stands to the value: ``at`` it, ``at most`` the smallest of the axis, or
    ``above`` the largest. NC is the accuracy there: a ruined model does not rely on the cue either.
    """
    found = [(one, {name: _halving(one, name) for name in one.scores if name != PRETRAINED}) for one in curves]
    lines = [_line(one, name, half) for one, halvings in found for name, half in halvings.items()]
    return Report(
        blocks=[_table(one, halvings) for one, halvings in found],
        columns=COLUMNS,
        lines=[line | {"seeds": " ".join(map(str, line["seeds"]))} for line in lines],
        content=lines,
    ).render(form)


def _halving(curves: AxisCurves, method: str) -> Halving | None:
    def reliance(name: str) -> dict[float, dict[int, float]]:
        return {
            value: {seed: own["cue_reliance"] for seed, own in seeds.items()}
            for value, seeds in curves.scores[name].items()
        }

    return halving(reliance(method), reliance(PRETRAINED))


def _table(curves: AxisCurves, halvings: dict[str, Halving | None]) -> TextTable:
    values = curves.values
    seeds_of = {name: half.seeds if (half := halvings.get(name)) else curves.seeds_of(name) for name in curves.scores}
    every = max(seeds_of.values(), key=len)
    lines = []
    for name, seeds in seeds_of.items():
        half, along = halvings.get(name), curves.along(name, "cue_reliance", seeds or None)
        reliance = [rounded(along[value].mean, 2) if value in along else ABSENT for value in values]
        bounds = [_shown(bound, half) for bound in half.interval] if half and half.interval else [ABSENT]
        interval = " to ".join(dict.fromkeys(bounds))
        accuracy = _accuracy(curves, name, half)
        there = ABSENT if accuracy is None else rounded(100 * accuracy, 1)
        lines.append(
            [of_seeds(name, seeds, every), _shown(half.estimate, half) if half else ABSENT, interval, there, *reliance]
        )
    headers = ["method", f"{curves.name} to halve the cue's hold", f"{100 * LEVEL:g} % interval", "NC there"]
    return TextTable(
        [*headers, *(f"cue reliance at {value:g}" for value in values[:1]), *(f"{value:g}" for value in values[1:])],
        lines,
        title=[one_line(curves.dataset), one_line(curves.backbone), f"cue rate {curves.cue_rate:g}"],
        note=f"means and bootstrap intervals over seeds {' '.join(map(str, every))}" if any(halvings.values()) else "",
    )


def _accuracy(curves: AxisCurves, method: str, half: Halving | None) -> float | None:
    """Return the mean accuracy without the cue where a method halves the cue's hold; None where it does not."""
    if half is None or half.estimate == inf:
        return None
    along = curves.along(method, "NC", half.seeds)
    value, _ = _bounded(half.estimate, half)
    return height_at(list(along), [one.mean for one in along.values()], value)


def _shown(number: float, half: Halving) -> str:
    """Return a point on the axis for people; whole numbers where the axis has such."""
    value, how = _bounded(number, half)
    digits = f"{value:.0f}" if all(float(one).is_integer() for one in half.values) else f"{value:.3g}"
    return {AT: "", AT_MOST: "≤ ", ABOVE: "> "}[how] + digits


def _bounded(number: float, half: Halving) -> tuple[float, str]:
    if number == -inf:
        return half.values[0], AT_MOST
    return (half.values[-1], ABOVE) if number == inf else (number, AT)


def _line(curves: AxisCurves, method: str, half: Halving | None) -> dict[str, Any]:
    place = (curves.dataset, curves.backbone, curves.cue_rate, method, curves.axis)
    line: dict[str, Any] = dict.fromkeys(COLUMNS) | dict(zip(COLUMNS, place, strict=False))
    line["seeds"] = list(half.seeds) if half else []
    if half:
        for name, number in zip(NUMBERS, (half.estimate, *(half.interval or ())), strict=False):
            line[name], line[f"{name}_is"] = _bounded(number, half)
        line["NC"] = _accuracy(curves, method, half)
    return line
