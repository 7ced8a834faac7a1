"""Training the bend of a quadratic path (Garipov et al., 2018; Lubana et al., 2023, App. B.1)."""

import copy
import random

import torch
from torch import nn
from torch.func import functional_call

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.landscape.paths import linear_path, parameters_of, quadratic_path
from mmc_bench.plugin.random_weights import draw_weights
from mmc_bench.results.settings import QuadraticSettings
from mmc_bench.training import Progress, Training, cross_entropy, stepped


def train_bend(
    start: nn.Module,
    end: nn.Module,
    images: CuedImages,
    settings: QuadraticSettings,
    generator: torch.Generator,
    progress: Progress,
) -> list[torch.Tensor]:
    """Return θ₁₂ that lowers the mean loss along γ(t) = (1-t)²θ₁ + 2t(1-t)θ₁₂ + t²θ₂.

    Each step draws t ~ U[0, 1] and a batch, and follows the loss of γ(t) down in θ₁₂: the chain rule brings the
    factor 2t(1-t). BatchNorm normalises by the batch's own statistics.

    Parameters
    ----------
    images
        What the path is trained on; it need not connect the models on any other data.
    generator
        Source of randomness on the images' device; torch's global one draws a random start.
    """
    model = copy.deepcopy(start).train()
    names = [name for name, _ in model.named_parameters()]
    first_bend = linear_path(start, end)(0.5) if settings.start == "middle" else _random_weights(model)
    bend = [nn.Parameter(value.clone()) for value in first_bend]
    path = quadratic_path(start, bend, end)
    training = Training(
        model,
        images,
        lr=settings.lr,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        generator=generator,
        progress=progress,
        schedule=stepped(settings.lr_drops, settings.lr_drop_factor),
        parameters=bend,
    )
    # On the host, so that no step waits for the device.
    law = random.Random(generator.initial_seed())

    def step(x: torch.Tensor, y: torch.Tensor, t: float | torch.Tensor) -> None:
        gamma = dict(zip(names, path(t), strict=True))
        scratch = {name: buffer.clone() for name, buffer in model.named_buffers()}
        training.minimise(cross_entropy(functional_call(model, {**gamma, **scratch}, (x,)), y))

    for x, y in training.batches():
        training.take(step, x, y, law.random())
    return [value.detach() for value in bend]


def _random_weights(model: nn.Module) -> list[torch.Tensor]:
    fresh = copy.deepcopy(model)
    draw_weights(fresh)
    return parameters_of(fresh)
