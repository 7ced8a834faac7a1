"""Random weights for a network at hand."""

import inspect
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


def draw_weights(model: "nn.Module") -> None:
    """Give all parameters of a network random values, in place; torch's global generators draw them.

    Layers draw theirs by their ``reset_parameters()``; parameters of others, and those that it leaves as they are, come
    from a normal distribution with the mean and deviation that they have.

    Raises
    ------
    UserError
        When a parameter is sparse, or of integers or truth values.
    """
    import torch

    for place, module in model.named_modules():
        weights = _weights_of(module, f"{type(model).__name__}: parameter {place}{'.' if place else ''}")
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and _takes_nothing(reset):
            before = {name: weight.clone() for name, weight in weights.items()}
            reset()
            # Equal values, such as the ones of a normalisation, are what it gives.
            weights = {
                name: weight
                for name, weight in _weights_of(module).items()
                if name in before and torch.equal(weight, before[name]) and (weight != weight.flatten()[0]).any()
            }
        for weight in weights.values():
            real = torch.view_as_real(weight) if weight.is_complex() else weight
            mean, deviation = real.mean().nan_to_num(), real.std(correction=0).nan_to_num()
            real.normal_(mean.item(), deviation.item())


def _weights_of(module: "nn.Module", place: str = "") -> "dict[str, torch.Tensor]":
    """Return a layer's own weights by name, without those that have no values yet."""
    import torch

    found = {}
    for name, parameter in module.named_parameters(recurse=False):
        if torch.nn.parameter.is_lazy(parameter) or not parameter.numel():
            continue
        if parameter.layout is not torch.strided or not (parameter.is_floating_point() or parameter.is_complex()):
            kind = parameter.dtype if parameter.layout is torch.strided else parameter.layout
            raise UserError(f"{place}{name} is {kind}, which has no random values to train: make it a buffer")
        found[name] = parameter.data
    return found


def _takes_nothing(method: Any) -> bool:
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):  # ValueError: it has no signature that Python knows
        return False
    return True
