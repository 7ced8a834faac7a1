"""Which methods the datasets separate: average ranks and their critical difference (Friedman, Nemenyi; Demšar, 2006).

Tiers ask whether other seeds would turn an order round in the same settings; this asks whether other datasets would. A
dataset is one block, and a method's score in it is its mean over the dataset's settings, as in the mean over all
settings. Cue rates and backbones of one dataset share its images and seeds: as blocks of their own they would pass for
independent, and a dataset with many of them would decide the ranks. So few datasets separate little. Two datasets of
the same images under different cues are two blocks here, and say somewhat less than two.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mmc_bench.leaderboard.inference import CONFIDENCE, DIGITS

FEWEST_METHODS, FEWEST_DATASETS = 3, 2


@dataclass(frozen=True)
class CriticalDifference:
    """Methods by average rank over datasets, the best first, and how far apart two must be.

    `ranks` has the ranks of each method by dataset, 1 the best, equals sharing the mean of theirs. `p_value` is that of
    Friedman's test that all methods are equal. `difference` is Nemenyi's critical difference at .05. `groups` are the
    first and the last index of the methods that are not separated.
    """

    names: tuple[str, ...]
    ranks: tuple[tuple[float, ...], ...]
    average: tuple[float, ...]
    p_value: float
    difference: float
    groups: tuple[tuple[int, int], ...]


def critical_difference(means: Mapping[str, Sequence[float]]) -> CriticalDifference | None:
    """Compare methods by their mean in each dataset; None with fewer than three methods or two datasets."""
    datasets = len(next(iter(means.values()), ()))
    if len(means) < FEWEST_METHODS or datasets < FEWEST_DATASETS:
        return None
    columns = [_ranks([own[at] for own in means.values()]) for at in range(datasets)]
    ranks = dict(zip(means, zip(*columns, strict=True), strict=True))
    average = {name: math.fsum(own) / datasets for name, own in ranks.items()}
    names = sorted(ranks, key=lambda name: (average[name], name))
    p_value = _friedman(tuple(zip(*columns, strict=True)))
    difference = nemenyi(len(means), datasets)
    ordered = [average[name] for name in names]
    groups = _groups(ordered, difference if p_value <= 1 - CONFIDENCE else math.inf)
    return CriticalDifference(
        tuple(names), tuple(ranks[name] for name in names), tuple(ordered), p_value, difference, groups
    )


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks, 1 for the highest value; equal values share the mean of their ranks."""
    rounded = [round(value, DIGITS) for value in values]
    return [sum(other > own for other in rounded) + (1 + rounded.count(own)) / 2 for own in rounded]


def _friedman(ranks: Sequence[Sequence[float]]) -> float:
    """Return the p of Friedman's test (1937) on each method's ranks by dataset; 1 where all are equal."""
    from scipy.stats import friedmanchisquare

    if len({tuple(own) for own in ranks}) == 1:
        return 1.0
    return float(friedmanchisquare(*ranks).pvalue)


@cache
def nemenyi(methods: int, datasets: int) -> float:
    """Return the difference of average ranks from which on two of so many methods differ at .05 (Nemenyi, 1963)."""
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(CONFIDENCE, methods, math.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def _groups(average: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """Return the largest runs of two or more methods that all lie closer than the critical difference."""
    runs: list[tuple[int, int]] = []
    for first, lowest in enumerate(average):
        last = max(index for index, rank in enumerate(average) if rank - lowest < difference)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return tuple(runs)
