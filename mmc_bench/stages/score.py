"""Stage 3: the scores of a model on the four counterfactual splits, its training images, the validation set."""

from torch import nn

from mmc_bench.data.splits import CuedImages, ExperimentData
from mmc_bench.records import Metrics
from mmc_bench.training.evaluate import evaluate


def score(model: nn.Module, data: ExperimentData, trained_on: CuedImages) -> Metrics:
    """Return a model's metrics; `trained_on` is the set behind ``train``."""
    splits = {name: evaluate(model, images) for name, images in data.rendered.items()}
    return Metrics(**splits, train=evaluate(model, trained_on), validation=evaluate(model, data.validation))
