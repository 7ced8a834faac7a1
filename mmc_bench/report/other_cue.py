"""Reliance on a second cue, which the clean images keep, and how it changes when a method removes the first.

Li et al., "A Whac-A-Mole Dilemma", CVPR 2023, measure it where the first cue goes with the label (C): there, a first
cue that a model relies on can hide the second. Where the first is absent (NC), it cannot.
"""

from collections.abc import Mapping

SPLITS = ("NC", "C")
RANDOM, RELIANCE, GROWTH = (
    {split: f"other_{what}_{split}" for split in SPLITS} for what in ("random", "reliance", "growth")
)
#: What columns on a second cue are of, each on every split.
OTHER_FAMILIES = ("other_reliance", "other_growth")

#: The columns on a second cue.
OTHER_COLUMNS = tuple(name for split in SPLITS for name in (RELIANCE[split], GROWTH[split]))


def other_reliance(accuracy: float, random_accuracy: float, num_classes: int) -> float:
    """Return (accuracy - random_accuracy) / (1 - 1/K): 0 where the second cue changes nothing, 1 when it alone decides.

    Parameters
    ----------
    accuracy, random_accuracy
        Accuracies on NC or C, where the second cue goes with the label, and where it is a random one.
    num_classes
        K.
    """
    return (accuracy - random_accuracy) / (1 - 1 / num_classes)


def with_reliance(others: Mapping[str, float], accuracy: Mapping[str, float], num_classes: int) -> dict[str, float]:
    """Return the accuracies on further test sets by name, and the reliance on a second cue where they tell it.

    Parameters
    ----------
    others
        Accuracies on the further test sets (`mmc_bench.data.contract.Dataset`).
    accuracy
        Those on the four splits.
    """
    found = {
        RELIANCE[split]: other_reliance(accuracy[split], others[RANDOM[split]], num_classes)
        for split in SPLITS
        if RANDOM[split] in others
    }
    return {**others, **found}


def growth(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Return by how much the reliance on a second cue grew, from what `with_reliance` has of two models."""
    both = now.keys() & before.keys()
    return {GROWTH[split]: now[name] - before[name] for split, name in RELIANCE.items() if name in both}
