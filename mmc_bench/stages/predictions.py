"""A model's predictions on single test images, from the forward passes that score it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.groups import GroupedData
from mmc_bench.data.splits import ExperimentData
from mmc_bench.results.metrics import GROUP_SPLITS
from mmc_bench.results.predictions import Predictions

#: The softmax of the logits, float32 of shape (N, K), by test split, or by group of test images.
Probabilities = dict[str, torch.Tensor]


def kept_predictions(
    data: ExperimentData, predicted: Mapping[str, torch.Tensor], probabilities: Probabilities | None
) -> Predictions | None:
    """Return predictions on the test splits as they are kept.

    Parameters
    ----------
    predicted, probabilities
        The classes (N,) and the softmax on each test split; None where predictions are not kept.
    """
    if probabilities is None:
        return None
    sets = data.splits
    image, place = _joined(images.index for images in sets.values()), _places(sets)
    if isinstance(data, GroupedData):
        shown = [GROUP_SPLITS[1] if group.aligned else GROUP_SPLITS[2] for group in data.groups]
        group, order = place, image.argsort()
    else:
        shown, group = [*sets], np.full_like(place, -1)
        if data.rc_groups is not None:
            group[place == shown.index("RC")] = _joined([data.rc_groups])
        order = np.lexsort([np.tile(_joined([sets["NC"].index]), len(sets)), place])
    rows = Predictions(
        split=np.array(shown)[place],
        image=image,
        label=_joined(images.labels for images in sets.values()),
        cue=_joined(images.cues for images in sets.values()),
        group=group,
        predicted=_joined(predicted[name] for name in sets),
        probabilities=_joined(probabilities[name] for name in sets),
    )
    return rows.rows(order)


def _joined(parts: Iterable[torch.Tensor]) -> npt.NDArray[Any]:
    return torch.cat([*parts]).cpu().numpy()


def _places(sets: Mapping[str, CuedImages]) -> npt.NDArray[np.int64]:
    """Return which of the sets each of their images is in, counted from 0."""
    return np.repeat(np.arange(len(sets)), [len(images) for images in sets.values()])
