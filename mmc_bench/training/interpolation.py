"""Weights between those of networks, all in a few operations."""

from collections.abc import Sequence

import torch

#: Parameters, in the order of ``model.parameters()``.
Weights = list[torch.Tensor]


def interpolated(first: Weights, last: Weights, t: float | torch.Tensor) -> Sequence[torch.Tensor]:
    """Return (1-t)·first + t·last.

    Parameters
    ----------
    t
        A number, or a scalar on the weights' device, which nothing waits for.
    """
    if not isinstance(t, torch.Tensor):
        return torch._foreach_lerp(first, last, t)
    return torch._foreach_add(first, torch._foreach_mul(torch._foreach_sub(last, first), t))


def bent(first: Weights, bend: Weights, last: Weights, t: float | torch.Tensor) -> Sequence[torch.Tensor]:
    """Return (1-t)²·first + 2t(1-t)·bend + t²·last; `t` is as in `interpolated`."""
    if not isinstance(t, torch.Tensor):
        sides = torch._foreach_add(torch._foreach_mul(first, (1 - t) ** 2), last, alpha=t**2)
        return torch._foreach_add(sides, bend, alpha=2 * t * (1 - t))
    parts = [torch._foreach_mul(*part) for part in ((first, (1 - t) ** 2), (last, t**2), (bend, 2 * t * (1 - t)))]
    return torch._foreach_add(torch._foreach_add(parts[0], parts[1]), parts[2])
