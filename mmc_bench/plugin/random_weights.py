"""Random weights for a network at hand."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def draw_weights(model: "nn.Module") -> None:
    """Give all parameters of a network random values, in place; torch's global generators draw them.

    Layers draw theirs by their ``reset_parameters()``; parameters of others come from a normal distribution with the
    mean and deviation that they have.
    """
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
            continue
        for weight in (weight.data for weight in module.parameters(recurse=False) if weight.numel()):
            mean, deviation = weight.mean().nan_to_num(), weight.std(correction=0).nan_to_num()
            weight.normal_(mean.item(), deviation.item())
