"""Scoring a model on a set of images."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from mmc_bench.data.splits import CuedImages
from mmc_bench.results.records import Score
from mmc_bench.training.precision import cross_entropy
from mmc_bench.training.progress import NonFiniteLossError


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a while; every module's own mode is restored after."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.inference_mode()
def evaluate(model: nn.Module, images: CuedImages) -> Score:
    """Return accuracy and mean cross-entropy (nats) of `model` in eval mode; its mode is restored after.

    Sums stay on the device, the loss's in float64, until the last batch is through.

    Raises
    ------
    NonFiniteLossError
        When the loss is NaN or infinite.
    """
    device = images.labels.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with eval_mode(model):
        for x, y in images.in_order():
            logits = model(x)
            correct += (logits.argmax(1) == y).sum()
            loss += cross_entropy(logits, y, reduction="sum")
    mean = loss.item() / len(images)
    if not math.isfinite(mean):
        raise NonFiniteLossError(f"the model's mean loss over {len(images)} images is not finite ({mean})")
    return Score(accuracy=correct.item() / len(images), loss=mean)


def evaluate_sets(model: nn.Module, sets: Mapping[str, CuedImages]) -> dict[str, Score]:
    """Return the scores of `model` on sets of images by their names.

    Raises
    ------
    NonFiniteLossError
        When a loss is NaN or infinite; the message names the set.
    """
    scores = {}
    for name, images in sets.items():
        try:
            scores[name] = evaluate(model, images)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"on {name}, {error}") from None
    return scores
