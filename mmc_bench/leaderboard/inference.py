"""Means over seeds with their intervals, and tiers: what a paired test over seeds cannot separate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95
#: Numbers are rounded to so many digits before they are compared or shown: the last bits are the machine's.
DIGITS = 6


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

    @property
    def p_value(self) -> float:
        """The two-sided p of Student's t test that the true mean is zero; 1 from one seed alone."""
        if self.error is None or round(self.mean, DIGITS) == 0:
            return 1.0
        if round(self.error, DIGITS) == 0:
            return 0.0
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees, -abs(self.mean) / self.error))


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


def combined(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Return the weighted sum of independent means; its error is propagated, and unknown where one of theirs is.

    The degrees of freedom are those of Welch (1938) and Satterthwaite (1946).
    """
    mean = math.fsum(weight * part.mean for weight, part in parts)
    errors = [(weight * part.error, part.degrees) for weight, part in parts if part.error is not None]
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


def holm(p_values: Sequence[float]) -> list[bool]:
    """Return which hypotheses are rejected when all of them are tested at .05 together (Holm, 1979)."""
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > (1 - CONFIDENCE) / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def tiers(means: Sequence[float], difference: Callable[[int, int], Estimate]) -> list[int]:
    """Return the tier of each method, the best being 1: methods that a paired test does not separate share one.

    The method of the highest mean opens a tier. All that are left are compared with it by paired t tests, with Holm's
    correction for their number, as comparisons with a control are (Demšar, 2006, 3.2.2). Those that are not
    significantly worse join it; the others begin anew. A method whose seeds scatter widely can so share a tier with a
    best that it is far behind of: its tier says that it may be as good, and not that it is.

    Parameters
    ----------
    difference
        Gives the mean paired difference of the methods with these two indices.
    """
    left = sorted(range(len(means)), key=lambda index: -round(means[index], DIGITS))
    found = [0] * len(means)
    tier = 0
    while left:
        tier += 1
        best, *others = left
        worse = holm([difference(best, other).p_value for other in others])
        for index in (best, *(other for other, is_worse in zip(others, worse, strict=True) if not is_worse)):
            found[index] = tier
        left = [other for other, is_worse in zip(others, worse, strict=True) if is_worse]
    return found
