"""Compiling the forward and backward pass of a long training on a GPU: once an architecture, not once a model."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from mmc_bench.data.micro_batches import micro_batches

#: Steps from which a compilation, of about half a minute, is worth its time.
WORTHWHILE_STEPS = 2000

#: A function of a network and images (n, …).
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


def is_worth_compiling(device: torch.device | str, steps: int) -> bool:
    """Tell whether a training of so many steps gains from compiled code; where memory is short, none does."""
    return torch.device(device).type == "cuda" and steps >= WORTHWHILE_STEPS and micro_batches() == 1


@cache
def compiled(forward: Forward) -> Forward:
    """Return the compiled function, one for the whole process, for batches of equal size.

    TorchInductor fuses what lies between the convolutions, and replays forward and backward pass as CUDA graphs:
    call ``torch.compiler.cudagraph_mark_step_begin()`` before each step, after which the last step's outputs may be
    overwritten. On a CPU it gains nothing. Weights enter the compiled code as inputs, so all models of an
    architecture share it; it is kept on disk besides (``TORCHINDUCTOR_CACHE_DIR``), for other processes and later
    runs. ``TORCHDYNAMO_DISABLE=1`` turns it off; where it fails, for want of a C compiler, say, torch warns and goes
    on uncompiled.
    """
    torch._dynamo.config.suppress_errors = True
    return torch.compile(forward, mode="reduce-overhead", dynamic=False)
