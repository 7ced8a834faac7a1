"""A second cue in the images, which methods are not told of: how far models rely on it, and whether that grew."""

from collections.abc import Mapping

#: The accuracy that a dataset's further test sets (`mmc_bench.data.contract.Dataset`) are compared with NC in.
OTHER_RANDOM = "other_random"
OTHER_COLUMNS = ("other_reliance", "other_growth")


def other_reliance(nc_accuracy: float, other_random_accuracy: float, num_classes: int) -> float:
    """Return (NC - other_random) / (1 - 1/K): 0 where the second cue changes nothing, 1 when it alone decides.

    Both sets have no first cue. On NC, the second goes with the label; on ``other_random``, it is a random one.
    """
    return (nc_accuracy - other_random_accuracy) / (1 - 1 / num_classes)


def with_reliance(others: Mapping[str, float], nc_accuracy: float, num_classes: int) -> dict[str, float]:
    """Return the accuracies on further test sets by name, and ``other_reliance`` where they tell it."""
    if OTHER_RANDOM not in others:
        return dict(others)
    return {**others, OTHER_COLUMNS[0]: other_reliance(nc_accuracy, others[OTHER_RANDOM], num_classes)}
