"""The plain SGD loop and its two learning-rate schedules."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.data.splits import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.training.compiled import training_forward
from mmc_bench.training.memory import PROBED_IMAGES, backward_in_parts, couples_images
from mmc_bench.training.precision import cross_entropy
from mmc_bench.training.progress import Progress


def sgd(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.9, weight_decay: float = 1e-4
) -> torch.optim.SGD:
    """Return SGD with the paper's momentum and weight decay (App. A)."""
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return a schedule that falls from the optimiser's learning rate to 0 as a cosine, a step at a time."""
    return CosineAnnealingLR(optimizer, T_max=max(steps, 1))


def stepped(optimizer: torch.optim.Optimizer, drops: Sequence[float], factor: float, steps: int) -> LRScheduler:
    """Return a schedule that multiplies the learning rate by `factor` at each fraction in `drops` of all steps."""
    return MultiStepLR(optimizer, milestones=[round(drop * steps) for drop in drops], gamma=factor)


def fit(
    model: nn.Module,
    images: CuedImages,
    *,
    epochs: int,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    generator: torch.Generator,
    progress: Progress,
    on_epoch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> nn.Module:
    """Train `model` with cross-entropy, in place, and return it in training mode.

    After memory ran out, gradients are summed over micro-batches, unless the network couples a batch's images.

    Parameters
    ----------
    schedule
        Stepped once after every optimiser step.
    on_epoch
        Called as ``on_epoch(loss, accuracy)`` after each epoch with the running means over its batches,
        scalars on the device; what it does is not part of the epoch's time.

    Raises
    ------
    UserError
        When the images make no batch.
    NonFiniteLossError
        When a loss is NaN or infinite.
    """
    if not images.steps(batch_size):
        raise UserError(f"a set of {len(images)} images makes no batch to train on")
    device = images.labels.device
    sums: dict[str, Any] = {"loss": torch.zeros((), device=device), "correct": torch.zeros((), device=device)}
    sums["seen"] = 0

    def finish_epoch() -> None:
        if on_epoch is not None:
            on_epoch(sums["loss"] / sums["seen"], sums["correct"] / sums["seen"])
            sums.update(loss=torch.zeros((), device=device), correct=torch.zeros((), device=device), seen=0)

    parts = micro_batches()
    forward = training_forward(model, device, epochs * images.steps(batch_size)) if parts == 1 else model
    if parts > 1 and couples_images(model, images.batch(slice(PROBED_IMAGES))[0]):
        parts = 1
    for _ in progress.epochs(epochs, finish_epoch):
        model.train()
        for x, y in images.shuffled(batch_size, generator):
            if parts > 1:
                optimizer.zero_grad(set_to_none=True)
                loss, logits = backward_in_parts(model, x, y, parts)
            else:
                logits = forward(x) if len(y) == batch_size else model(x)
                loss = cross_entropy(logits, y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            optimizer.step()
            schedule.step()
            progress.step(loss, len(y))
            if on_epoch is not None:
                sums["loss"] += loss.detach() * len(y)
                sums["correct"] += (logits.detach().argmax(1) == y).sum()
                sums["seen"] += len(y)
    return model
