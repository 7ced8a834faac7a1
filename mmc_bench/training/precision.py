"""Arithmetic of training and evaluation: float32, or bfloat16 where the hardware gains from it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn import functional as F

from mmc_bench.errors import UserError
from mmc_bench.system.devices import widest_float
from mmc_bench.system.processes import multiplies_in_bf16
from mmc_bench.system.torch_state import float32_precision, set_float32_precision

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_precision(name: str, device: torch.device | str) -> str:
    """Return ``"fp32"`` or ``"bf16"``; ``auto`` is the latter where the device has instructions for it.

    Raises
    ------
    UserError
        When the name is unknown, or the device does not compute so.
    """
    if name not in PRECISIONS:
        raise UserError(f"unknown precision {name!r}: write {', '.join(PRECISIONS)}")
    kind = torch.device(device).type
    if kind == "mps":
        if name == "bf16":
            raise UserError(f"precision bf16: device {device} computes in fp32 alone; use that, or auto")
        return "fp32"
    if name != "auto":
        return name
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cpu" and multiplies_in_bf16() else "fp32"


def arithmetic(precision: str, device: torch.device | str) -> AbstractContextManager[None]:
    """Return the context in which networks run.

    In bf16 mode convolutions and matrix products run in bfloat16; weights, optimiser, losses and running
    statistics stay in float32. The cast weights are not cached: a cache that outlived an optimiser step would
    bring the old weights back.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return values of a lower precision as float32, and others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Return the cross-entropy (nats) of logits (n, K), in float32 or better whatever the mode."""
    return F.cross_entropy(at_least_float32(logits), labels, reduction=reduction)


def environment_risks(logits: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy (nats) of each of E environments, whose logits follow each other in (n, K): (E,)."""
    parts = logits.split([len(own) for own in labels])
    return torch.stack([cross_entropy(part, own) for part, own in zip(parts, labels)])


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Let the few operations that need it compute in float32 whatever the mode: no autocast, no TF32."""
    before = float32_precision()
    allow_tf32(False)
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        set_float32_precision(before)


def allow_tf32(allowed: bool) -> None:
    """Say whether a GPU may round float32 to TF32, in matrix products and in cuDNN's operations.

    By torch's older and newer switches: torch itself reads the older, and refuses to where the newer contradict them.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    if hasattr(torch.backends.cudnn, "conv"):
        newer: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
        for place in newer:
            place.fp32_precision = "tf32" if allowed else "ieee"


def prepare_device(precision: str, device: torch.device | str) -> None:
    """Choose cuDNN's algorithms by measurement, unless they must be deterministic, and allow TF32 in bf16 mode only."""
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        allow_tf32(precision == "bf16")


def equal_chances(groups: torch.Tensor) -> torch.Tensor:
    """Return chances (M,) for `Training.paired_rows` that draw each group equally often.

    Parameters
    ----------
    groups
        The group of each image, int64 of shape (M,).
    """
    return 1 / torch.bincount(groups)[groups].to(widest_float(groups.device))


def group_losses(losses: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean loss (nats) of each of `count` groups in a batch, 0 for those not in it.

    Losses and groups of the images have shape (n,).
    """
    members = groups == torch.arange(count, device=groups.device)[:, None]  # (G, n)
    with full_precision(losses.device):
        return members.to(losses.dtype) @ losses / members.sum(1).clamp(min=1)
