"""The plain way to match two VGG-13s: layer after layer, by correlations before the ReLU.

The order is that of the authors' code, which correlates after the ReLU; the paper's eq. 6 is an unnormalised distance.

For every layer both networks run anew up to that layer, the similarity of every pair of units is a broadcast
cosine over the whole activation (centred, so that it is the correlation), and the next layer's weights are
permuted before going on.
"""

import copy

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F


@torch.no_grad()
def match(model: nn.Module, reference: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the assignment of every convolution's units: unit i of the reference is unit ``found[i]`` of the model.

    Parameters
    ----------
    model, reference
        VGG-13s whose ``layers`` are a sequence of convolution, BatchNorm and ReLU, ten times, with a linear ``head``.
    images
        One batch, (N, C, H, W).
    """
    ours, theirs = copy.deepcopy(model).eval(), reference.eval()
    layers: list[nn.Module] = list(ours.layers)  # type: ignore[arg-type]
    found = []
    for start in range(0, len(layers), 3):
        x, y = (_units(network, images, start + 2) for network in (theirs, ours))
        similarity = F.cosine_similarity(x[:, None], y[None], dim=2)  # (units, units), by way of (units, units, values)
        order = torch.from_numpy(linear_sum_assignment(similarity.cpu().numpy(), maximize=True)[1]).to(images.device)
        _permute_outputs(layers[start], layers[start + 1], order)
        reader = layers[start + 3] if start + 3 < len(layers) else ours.head
        reader.weight.copy_(reader.weight[:, order])  # type: ignore[operator, index, union-attr]
        found.append(order)
    return found


def _units(network: nn.Module, images: torch.Tensor, depth: int) -> torch.Tensor:
    """Return the values of a layer's units after BatchNorm, less their means, (units, values)."""
    x = images
    for layer in list(network.layers)[:depth]:  # type: ignore[arg-type]
        x = layer(x)
    x = x.transpose(0, 1).flatten(1)
    return x - x.mean(1, keepdim=True)


def _permute_outputs(convolution: nn.Module, norm: nn.Module, order: torch.Tensor) -> None:
    for tensor in (convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.copy_(tensor[order])  # type: ignore[operator, index]
