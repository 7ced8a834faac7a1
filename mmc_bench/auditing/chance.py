"""What chance does to the numbers of an audit: random cues that are an image's own, guesses, few test images."""

import math

#: By how much accuracy must be above guessing for a network to have learned something: so many standard errors of the
#: test images, and at least this share.
STANDARD_ERRORS, ABOVE = 3, 0.1


def of_another(change: float, classes: int) -> float:
    """Return what another class's cue changes, from what a random cue does.

    One of K random cues is the image's own and changes nothing: the change is K / (K - 1) times as large, in
    expectation. It is no more than everything.

    >>> of_another(0.3, 3), of_another(0.52, 2)
    (0.45, 1.0)
    """
    return max(-1.0, min(1.0, round(change * classes / (classes - 1), 12)))


def learned(accuracy: float, classes: int, images: int) -> bool:
    """Tell whether accuracy on so many test images is clearly above guessing one of the classes.

    >>> learned(0.57, 3, 30), learned(0.57, 3, 1500)
    (False, True)
    """
    guess = 1 / classes
    return accuracy > guess + max(STANDARD_ERRORS * math.sqrt(guess * (1 - guess) / images), ABOVE)


def interval(images: int) -> float:
    """Return half the 95 % interval of a share of 1/2 of so many images, which is the widest.

    >>> round(interval(1500), 3)
    0.025
    """
    return 1.96 * math.sqrt(0.25 / images)
