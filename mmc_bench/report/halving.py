"""How far along an axis a method must go to halve the cue's hold on a model, with an interval over seeds."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log
from random import Random
from statistics import fmean

from mmc_bench.report.axis_curves import is_logarithmic

RESAMPLES = 2000
LEVEL = 0.95

#: Cue reliance by value of an axis and seed.
Reliance = Mapping[float, Mapping[int, float]]


@dataclass(frozen=True)
class Halving:
    """The value of an axis from which on cue reliance is at most half of the pretrained model's, and its interval.

    Each is ``-inf`` where the smallest value suffices already, and ``inf`` where the largest does not. The interval,
    None with one seed, has the percentiles 2.5 and 97.5 of the bootstrap over seeds.
    """

    estimate: float
    interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    values: tuple[float, ...]


def halving(method: Reliance, pretrained: Reliance) -> Halving | None:
    """Return where a method halves the cue reliance; None where there is no cue's hold to halve, or one point alone.

    At each value the method's mean reliance over seeds is compared with half the mean of the pretrained models that it
    started from. Between two values both are straight lines over the value's logarithm (over the value itself where
    `is_logarithmic` does not hold). The last crossing counts: a model that a few images ruin relies on the cue little,
    and may rely on it again with more. Only seeds with both models at each of the method's values are used; a resample
    draws seeds, the same ones at all values.
    """
    values = tuple(sorted(method.keys() & pretrained.keys()))
    if len(values) < 2:
        return None
    seeds = sorted(set.intersection(*({*method[value]} & {*pretrained[value]} for value in values)))
    if not seeds or any(fmean(pretrained[value][seed] for seed in seeds) <= 0 for value in values):
        return None
    excess = [[method[value][seed] - pretrained[value][seed] / 2 for value in values] for seed in seeds]

    def crossing_of(rows: Sequence[Sequence[float]]) -> float:
        return last_crossing(values, [fmean(column) for column in zip(*rows, strict=True)])

    interval = None
    if len(seeds) > 1:
        draw = Random(0)
        found = sorted(crossing_of(draw.choices(excess, k=len(excess))) for _ in range(RESAMPLES))
        tail = (1 - LEVEL) / 2
        interval = (found[int(tail * RESAMPLES)], found[ceil((1 - tail) * RESAMPLES) - 1])
    return Halving(crossing_of(excess), interval, tuple(seeds), values)


def last_crossing(values: Sequence[float], excess: Sequence[float]) -> float:
    """Return the value from which on a piecewise straight line through the excesses stays at or below 0.

    ``-inf`` where it does so from the first value on, ``inf`` where the last is above 0.
    """
    above = [place for place, one in enumerate(excess) if one > 0]
    if not above:
        return -inf
    place = above[-1]
    if place == len(values) - 1:
        return inf
    start, end = values[place : place + 2]
    share = excess[place] / (excess[place] - excess[place + 1])
    return exp(log(start) + share * log(end / start)) if is_logarithmic(values) else start + share * (end - start)


def height_at(values: Sequence[float], heights: Sequence[float], value: float) -> float:
    """Return the height of the same line at a value, which lies within the others."""
    place = max(0, bisect_left(values, value) - 1)
    scale = log if is_logarithmic(values) else float
    start, end = (scale(one) for one in values[place : place + 2])
    return heights[place] + (heights[place + 1] - heights[place]) * (scale(value) - start) / (end - start)
