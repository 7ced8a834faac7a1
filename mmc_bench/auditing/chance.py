"""What chance does to the numbers of an audit: random cues that are an image's own, guesses, few test images."""

import math
from dataclasses import dataclass

#: By how many standard errors of the test images a number must be above what chance gives.
STANDARD_ERRORS = 3

#: By how much accuracy must be above guessing, too, for a network to have learned something; half of what guessing gets
#: wrong is enough.
ABOVE = 0.1


@dataclass(frozen=True)
class ScoredImages:
    """The test images: the number of classes and of images, and the share of the largest class."""

    classes: int
    images: int
    largest_class: float


def of_another(change: float, classes: int) -> float:
    """Return what another class's cue changes, from what a random cue does.

    One of K random cues is the image's own and changes nothing: the change is K / (K - 1) times as large, in
    expectation. It is no more than everything.

    >>> of_another(0.3, 3), of_another(0.52, 2)
    (0.45, 1.0)
    """
    return max(-1.0, min(1.0, round(change * classes / (classes - 1), 12)))


def learned(accuracy: float, largest_class: float, images: int) -> bool:
    """Tell whether accuracy on so many test images is clearly above the share of the largest class.

    This share is what always naming that class gets right: 1 / K where classes are of one size, and more otherwise.

    >>> learned(0.57, 1 / 3, 30), learned(0.57, 1 / 3, 1500), learned(0.91, 0.9, 1500), learned(0.97, 0.9, 1500)
    (False, True, False, True)
    """
    error = math.sqrt(largest_class * (1 - largest_class) / images)
    return accuracy > largest_class + max(STANDARD_ERRORS * error, min(ABOVE, (1 - largest_class) / 2))


def cost_by_chance(changed: float, classes: int, images: int) -> float:
    """Return the accuracy that a swap may seem to cost by chance, in a network that ignores the cue.

    These are `STANDARD_ERRORS` of the paired difference between C and RC under McNemar's hypothesis (1947,
    https://doi.org/10.1007/BF02295996): a changed prediction is as likely to become right as to become wrong. Changes
    from one wrong prediction to another are counted, too, so that it is no smaller.

    Parameters
    ----------
    changed
        The share of test images whose prediction a random cue changes.
    classes, images
        How many there are; the cost of another class's cue is K / (K - 1) times that of a random one.

    >>> round(cost_by_chance(0.05, 2, 60), 3), round(cost_by_chance(0.05, 2, 1500), 3)
    (0.173, 0.035)
    """
    return STANDARD_ERRORS * math.sqrt(changed / images) * classes / (classes - 1)


def interval(images: int) -> float:
    """Return half the 95 % interval of a share of 1/2 of so many images, which is the widest.

    >>> round(interval(1500), 3)
    0.025
    """
    return 1.96 * math.sqrt(0.25 / images)


def swap_intervals(classes: int, images: int) -> tuple[float, float]:
    """Return half the widest 95 % intervals of what a swap changes, and of the accuracy that it costs.

    Both are K / (K - 1) times what a random cue does. This cue differs in (K - 1) / K of the images, and each
    prediction that changes can cost a right one or gain one: the accuracy's variance is at most (K - 1) / K an image.

    >>> [round(half, 3) for half in swap_intervals(2, 1500)]
    [0.051, 0.072]
    """
    factor = classes / (classes - 1)
    return factor * interval(images), 1.96 * math.sqrt(factor / images)
