"""One word for what became of the cue in a model: kept, removed, hidden or unlinked.

In this order, against two references: θ_C, the pretrained model that was repaired, and θ_NC, a model of the same seed
that was pretrained without the cue.

1. kept: predictions still change with the cue, in more images than θ_NC's by `FLIPS`.
2. undecided: θ_C's features tell the cue hardly better than θ_NC's (`CONTRAST`), so that nothing can have been removed.
3. removed: a linear probe's lead over θ_NC is less than half (`HALF`) of θ_C's lead.
4. unlinked: the features tell the cue, nothing comes of it, and the straight path back to θ_C has a barrier.
5. hidden: the same without a barrier.
"""

from dataclasses import dataclass

from mmc_bench.results.probes import FEATURES, Hold
from mmc_bench.results.records import Connectivity

KEPT, REMOVED, UNLINKED, HIDDEN, UNDECIDED = "kept", "removed", "unlinked", "hidden", "undecided"

#: What stands for a word that a barrier decides which was not measured.
UNKNOWN = "hidden or unlinked"

#: The words, with what each says.
WORDS = {
    KEPT: "predictions change with the cue",
    REMOVED: (
        "predictions do not change with the cue, and a linear probe reads it from the features "
        "with less than half of the lead over cue-free that it has with pretrained"
    ),
    UNLINKED: "features tell the cue, predictions do not change with it, and a barrier lies before pretrained",
    HIDDEN: "features tell the cue, predictions do not change with it, and the path to pretrained is open",
    UNDECIDED: "predictions do not change with the cue, which features of pretrained and cue-free tell alike",
}

#: Differences of shares are computed in floating point: one that is below its threshold by less than this reaches it.
TOLERANCE = 1e-9

#: Share of predictions that must change with the cue, beyond those of θ_NC.
FLIPS = 0.1

#: By how much θ_C's features must be read better than θ_NC's.
CONTRAST = 0.1

#: Share of that difference from which on the cue counts as there.
HALF = 0.5

#: The test splits whose barriers count: those that θ_C and a repaired model are both meant to classify. On RC and RI
#: one of them is wrong by design, and the loss rises along a path even where nothing stands between the two.
BOTH_CLASSIFY = ("C", "NC")


@dataclass(frozen=True)
class Verdict:
    """What became of the cue in one model.

    Parameters
    ----------
    word
        One of `WORDS`; None where the barrier decides and is not known.
    left
        The readability that is left, h = (read(θ) - read(θ_NC)) / (read(θ_C) - read(θ_NC)) of the last features; None
        where the references differ by less than `CONTRAST`.
    """

    word: str | None
    left: float | None


def reaches(difference: float, threshold: float) -> bool:
    """Tell whether a difference is at least its threshold.

    >>> reaches(0.7 - 0.6, 0.1), reaches(0.69 - 0.6, 0.1)
    (True, False)
    """
    return difference >= threshold - TOLERANCE


def verdict(own: Hold, cued: Hold, cue_free: Hold, barrier: float | None, tolerance: float) -> Verdict:
    """Return what became of the cue in a model.

    Parameters
    ----------
    own, cued, cue_free
        What θ, θ_C and θ_NC have of the cue.
    barrier
        The barrier in loss (nats) on the straight path from θ_C to θ (`way_back`).
    tolerance
        The barrier (nats) up to which the path counts as open.
    """
    read, most, least = (hold.read[FEATURES] for hold in (own, cued, cue_free))
    left = (read - least) / (most - least) if reaches(most - least, CONTRAST) else None
    if not reaches(FLIPS, own.flips - cue_free.flips):
        return Verdict(KEPT, left)
    if left is None:
        return Verdict(UNDECIDED, left)
    if not reaches(left, HALF):
        return Verdict(REMOVED, left)
    if barrier is None:
        return Verdict(None, left)
    return Verdict(UNLINKED if barrier > tolerance else HIDDEN, left)


def way_back(path: Connectivity) -> tuple[float | None, float]:
    """Return the barrier on the straight path from θ_C to θ, in loss (nats), and the tolerance of the record.

    The barrier is None where nothing was measured between the ends.
    """
    heights = [height.loss for split in BOTH_CLASSIFY if (height := path.height(split))]
    return max(heights, default=None), path.tolerance
