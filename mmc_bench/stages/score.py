"""Stage 3: the scores of a model on the four counterfactual splits, its training images, the validation set."""

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.splits import ExperimentData
from mmc_bench.results.records import Metrics
from mmc_bench.training.evaluate import evaluate_sets


def score(model: nn.Module, data: ExperimentData, trained_on: CuedImages) -> tuple[Metrics, dict[str, torch.Tensor]]:
    """Return a model's metrics, and its predictions (N,) on each set; `trained_on` is the set behind ``train``."""
    predictions: dict[str, torch.Tensor] = {}
    sets = {**data.rendered, "train": trained_on, "validation": data.validation}
    return Metrics(**evaluate_sets(model, sets, predictions)), predictions
