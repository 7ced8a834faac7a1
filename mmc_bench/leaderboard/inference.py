"""Means over seeds with their intervals, and tiers: what paired tests over seeds separate from the best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
#: Numbers are rounded to so many digits before they are compared or shown: the last bits are the machine's.
DIGITS = 6
#: What paired differences scatter by at the least, as a standard deviation over seeds: a tenth of a point. A score is a
#: whole number of images, so that few seeds can have one and the same difference by chance.
LEAST_SCATTER = 0.001

#: The scores (methods, seeds) of seeds that methods are compared over.
Block = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half width of its confidence interval, which one seed does not have."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its standard error (None from one seed alone) and the error's degrees of freedom."""

    mean: float
    error: float | None
    degrees: float

    @property
    def interval(self) -> Interval:
        """The mean and the half width t · error of its 95 % confidence interval (Student, 1908)."""
        if self.error is None:
            return Interval(self.mean, None)
        return Interval(self.mean, t_quantile(self.degrees) * self.error)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of independent values, one a seed, and its standard error s / √n with n - 1 degrees."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None, 0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Estimate(mean, math.sqrt(variance / n), n - 1)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and the half width t(n-1) · s / √n of its 95 % confidence interval (Student, 1908)."""
    return estimate(values).interval


def combined(parts: Sequence[Estimate]) -> Estimate:
    """Return the sum of independent means; its error is propagated, and unknown where one of theirs is.

    The degrees of freedom are those of Welch (1938) and Satterthwaite (1946).
    """
    mean = math.fsum(part.mean for part in parts)
    errors = [(part.error, part.degrees) for part in parts if part.error is not None]
    if len(errors) < len(parts):
        return Estimate(mean, None, 0)
    variance = math.fsum(error**2 for error, _ in errors)
    if variance == 0:
        return Estimate(mean, 0.0, min(degrees for _, degrees in errors))
    return Estimate(mean, math.sqrt(variance), variance**2 / math.fsum(e**4 / degrees for e, degrees in errors))


@cache
def t_quantile(degrees: float) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def p_values(mean: NDArray[Any], error: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Return the two-sided p of Student's t tests that true means are zero; the standard errors are above zero."""
    from scipy.special import stdtr

    return np.asarray(2 * stdtr(degrees, -np.abs(mean) / error))


def holm(p: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which hypotheses are rejected when all of them are tested at .05 together (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    passed = p[order] <= (1 - CONFIDENCE) / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), dtype=bool)
    rejected[order[np.logical_and.accumulate(passed)]] = True
    return rejected


def separated(blocks: Sequence[Block]) -> NDArray[np.bool_]:
    """Return which methods differ, as a symmetric matrix (methods, methods).

    All k(k - 1) / 2 pairs are tested together, each by Student's two-sided t test on differences of the same seed, with
    Holm's correction for all of them (Holm, 1979; for comparisons of all methods with one another Demšar, 2006, 3.2.2).
    The chance to separate any two equal methods is at most .05, whichever they are. The means of several blocks are
    independent: their differences are added, and the degrees of freedom are those of the block of fewest seeds, with
    which the test keeps its level (Mickey and Brown, 1966). Satterthwaite's approximation does not keep it so far out
    in the tail. Differences that are nearly the same on every seed count as scattered by `LEAST_SCATTER`. One seed
    alone separates nothing. Methods whose scores are equal on every seed, as where tuning chose the same for them,
    count once.

    The correction has its price. At Holm's first step, 31 methods and five seeds find a difference of 1, 2, 5 and 10
    standard deviations of the paired differences with a chance of 0.2, 1.6, 29 and 92 % (noncentral t).
    """
    scores = [np.asarray(own, dtype=float) for own in blocks]
    methods = len(scores[0])
    if not methods or any(own.shape[1] < 2 for own in scores):
        return np.zeros((methods, methods), dtype=bool)
    rows = np.round(np.concatenate(scores, axis=1), DIGITS)
    _, one_of, like = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    scores, like = [own[one_of] for own in scores], like.reshape(-1)
    methods = len(one_of)
    found = np.zeros((methods, methods), dtype=bool)
    first, second = np.triu_indices(methods, 1)
    mean, variance = np.zeros(len(first)), np.zeros(len(first))
    for own in scores:
        difference = own[first] - own[second]
        mean += difference.mean(axis=1)
        variance += np.maximum(difference.var(axis=1, ddof=1), LEAST_SCATTER**2) / own.shape[1]
    degrees = min(own.shape[1] for own in scores) - 1
    found[first, second] = holm(p_values(mean, np.sqrt(variance), degrees))
    return (found | found.T)[np.ix_(like, like)]


def tiers(blocks: Sequence[Block]) -> list[int]:
    """Return the tier of each method, the best being 1.

    The method of the highest mean opens a tier. Those that are not `separated` from it join it; the others begin anew,
    by the same decisions. So a tier holds what the seeds do not separate from the method that opens it, and two others
    of the tier may be separated from each other. A method whose seeds scatter widely can share a tier with a best that
    it is far behind of: its tier says that it may be as good, and not that it is.
    """
    if not blocks or not len(blocks[0]):
        return []
    apart = separated(blocks)
    means = np.round(sum(np.mean(own, axis=1) for own in blocks), DIGITS)
    left = np.argsort(-means, kind="stable")
    found = np.zeros(len(means), dtype=int)
    while len(left):
        behind = apart[left[0], left]
        found[left[~behind]] = found.max() + 1
        left = left[behind]
    return [int(tier) for tier in found]
