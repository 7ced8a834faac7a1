"""Scoring a model on a set of images."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.results.metrics import Score
from mmc_bench.system.parts import part
from mmc_bench.training.graphs import Graphs, Tensors, places_of
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


@part("validation")
def evaluate(model: nn.Module, images: CuedImages) -> Score:
    """Return accuracy and mean cross-entropy (nats) of `model` in eval mode; its mode is restored after.

    Raises
    ------
    NonFiniteLossError
        When the loss is NaN or infinite.
    """
    return evaluate_with_predictions(model, images)[0]


def evaluate_with_predictions(
    model: nn.Module,
    images: CuedImages,
    probabilities: list[torch.Tensor] | None = None,
    graphs: Graphs | None = None,
) -> tuple[Score, torch.Tensor]:
    """Return what `evaluate` does, and the predicted class of each image, int64 of shape (N,).

    Each batch's sum of losses stays on the device until the last is through; they are added in float64.

    Parameters
    ----------
    probabilities
        Where given, the softmax of each batch's logits, float32 of shape (n, K), is put into it.
    graphs
        What replays the batches on a GPU; of the network, weights and buffers alone may change between calls.

    Raises
    ------
    NonFiniteLossError
        When the loss is NaN or infinite.
    """

    def score(x: torch.Tensor, y: torch.Tensor) -> Tensors:
        logits = model(x)
        found = logits.argmax(1), cross_entropy(logits, y, reduction="sum")
        return found if probabilities is None else (*found, logits.float().softmax(1))

    predicted, losses = [], []
    with eval_mode(model), torch.no_grad():
        for x, y in images.in_order():
            if graphs is None:
                found = score(x, y)
            else:
                found = graphs.run(score, x, y, form=probabilities is None, places=places_of(model))
            predicted.append(found[0])
            losses.append(found[1])
            if probabilities is not None:
                probabilities.append(found[2])
    loss = 0.0
    for of_batch in torch.stack(losses).tolist():  # `sum` rounds otherwise from Python 3.12 on
        loss += of_batch
    mean = loss / len(images)
    if not math.isfinite(mean):
        raise NonFiniteLossError(f"the model's mean loss over {len(images)} images is not finite ({mean})")
    predictions = torch.cat(predicted)
    correct = (predictions == images.labels).sum().item()
    return Score(accuracy=correct / len(images), loss=mean), predictions


def evaluate_sets(
    model: nn.Module,
    sets: Mapping[str, CuedImages],
    predictions: dict[str, torch.Tensor] | None = None,
    probabilities: dict[str, torch.Tensor] | None = None,
    graphs: Graphs | None = None,
) -> dict[str, Score]:
    """Return the scores of `model` on sets of images by their names.

    Parameters
    ----------
    predictions
        Where given, the predicted classes (N,) on each set are put into it.
    probabilities
        Where given, the softmax of the logits on each set, float32 of shape (N, K), is put into it.
    graphs
        As in `evaluate_with_predictions`.

    Raises
    ------
    NonFiniteLossError
        When a loss is NaN or infinite; the message names the set.
    """
    scores = {}
    for name, images in sets.items():
        batches: list[torch.Tensor] | None = None if probabilities is None else []
        try:
            scores[name], predicted = evaluate_with_predictions(model, images, batches, graphs)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"on {name}, {error}") from None
        if predictions is not None:
            predictions[name] = predicted
        if probabilities is not None and batches:
            probabilities[name] = torch.cat(batches)
    return scores


def predictions_on(model: nn.Module, sets: Mapping[str, CuedImages]) -> dict[str, torch.Tensor]:
    """Return the predicted classes (N,) of `model` on sets of images by their names."""
    predictions: dict[str, torch.Tensor] = {}
    evaluate_sets(model, sets, predictions)
    return predictions
