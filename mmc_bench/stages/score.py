"""Stage 3: the scores of a model on all test sets, its training images, the validation set."""

from collections.abc import Mapping

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.splits import ExperimentData
from mmc_bench.results.metrics import GroupMetrics, Metrics
from mmc_bench.training.evaluate import evaluate_sets


def score(
    model: nn.Module,
    data: ExperimentData,
    trained_on: CuedImages,
    probabilities: dict[str, torch.Tensor] | None = None,
) -> tuple[Metrics | GroupMetrics, dict[str, torch.Tensor]]:
    """Return a model's metrics, and its predictions (N,) on each set.

    Parameters
    ----------
    trained_on
        The set behind ``train``.
    probabilities
        Where given, those of the classes, (N, K), on each test split are put into it.
    """
    predictions: dict[str, torch.Tensor] = {}
    scores = evaluate_sets(model, data.rendered, predictions, probabilities)
    others = {"train": trained_on, "validation": data.validation, **data.other_tests}
    scores |= evaluate_sets(model, others, predictions)
    return data.metrics(scores), predictions


def worst_group(
    data: ExperimentData, metrics: Metrics | GroupMetrics, predictions: Mapping[str, torch.Tensor]
) -> float | None:
    """Return the lowest accuracy of all groups of test images, or None where cues make no groups.

    Of a dataset with cues, these are the groups of one label and one cue on RC.
    """
    if isinstance(metrics, GroupMetrics):
        return metrics.worst_group.accuracy
    if data.rc_groups is None:
        return None
    groups, labels = data.rc_groups.cpu(), data.splits["RC"].labels.cpu()
    correct = (predictions["RC"].cpu() == labels).double()
    return float((torch.bincount(groups, correct) / torch.bincount(groups)).min())
