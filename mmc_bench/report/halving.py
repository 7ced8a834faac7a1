"""How far along an axis a method must go to halve the cue's hold on a model, with an interval over seeds."""

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
    """The value of an axis at which cue reliance falls to half of the pretrained model's, and its interval.

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
    `is_logarithmic` says so), and the first crossing counts. Only seeds with both models at each of the method's values
    are used; a resample draws seeds, the same ones at all values.
    """
    values = tuple(sorted(method.keys() & pretrained.keys()))
    if len(values) < 2:
        return None
    seeds = sorted(set.intersection(*({*method[value]} & {*pretrained[value]} for value in values)))
    if not seeds or any(fmean(pretrained[value][seed] for seed in seeds) <= 0 for value in values):
        return None
    excess = [[method[value][seed] - pretrained[value][seed] / 2 for value in values] for seed in seeds]

    def crossing_of(rows: Sequence[Sequence[float]]) -> float:
        return first_crossing(values, [fmean(column) for column in zip(*rows, strict=True)])

    interval = None
    if len(seeds) > 1:
        draw = Random(0)
        found = sorted(crossing_of(draw.choices(excess, k=len(excess))) for _ in range(RESAMPLES))
        tail = (1 - LEVEL) / 2
        interval = (found[int(tail * RESAMPLES)], found[ceil((1 - tail) * RESAMPLES) - 1])
    return Halving(crossing_of(excess), interval, tuple(seeds), values)


def first_crossing(values: Sequence[float], excess: Sequence[float]) -> float:
    """Return the first value at which a piecewise straight line through the excesses is not above 0.

    ``-inf`` where that is so at the first value, ``inf`` where it is so nowhere.
    """
    if excess[0] <= 0:
        return -inf
    logarithmic = is_logarithmic(values)
    for place in range(1, len(values)):
        before, after = excess[place - 1 : place + 1]
        if after <= 0:
            share = before / (before - after)
            start, end = values[place - 1 : place + 1]
            return exp(log(start) + share * log(end / start)) if logarithmic else start + share * (end - start)
    return inf
