"""Compiling the forward and backward pass of a long training on a GPU: once an architecture, not once a model."""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

#: Steps from which a compilation, of about half a minute, is worth its time.
WORTHWHILE_STEPS = 2000


def training_forward(
    model: nn.Module, device: torch.device | str, steps: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what computes the logits of equally large batches: compiled for a long training on a GPU.

    TorchInductor fuses what lies between the convolutions, and replays forward and backward pass as CUDA graphs.
    On a CPU it gains nothing. Weights enter the compiled code as inputs, so all models of an architecture share
    it; it is kept on disk besides (``TORCHINDUCTOR_CACHE_DIR``), for other processes and later runs.
    ``TORCHDYNAMO_DISABLE=1`` turns it off; where it fails, for want of a C compiler, say, torch warns and goes on
    uncompiled.

    Parameters
    ----------
    steps
        Optimiser steps of the training.
    """
    if torch.device(device).type != "cuda" or steps < WORTHWHILE_STEPS:
        return model
    forward = compiled_forward()

    def logits(images: torch.Tensor) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # what the last step returned may be overwritten
        return forward(model, images)

    return logits


@cache
def compiled_forward() -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """Return the compiled function of a model and its images, one for the whole process."""
    torch._dynamo.config.suppress_errors = True
    return torch.compile(_forward, mode="reduce-overhead", dynamic=False)


def _forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(images)
    return logits
