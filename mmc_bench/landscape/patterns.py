"""Activation patterns of two networks, and how far apart they are (definition 6 and remark 2, App. F.3)."""

import torch

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.system.devices import in_float64
from mmc_bench.training.backbone import Backbone
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.probe import frozen_features


def activation_patterns(model: Backbone, images: CuedImages) -> torch.Tensor:
    """Return which of the last hidden layer's neurons are active for which image (definition 6).

    φ′(Wᵀx)[j] = 1 where neuron j's output is above 0, in eval mode; the model's mode is restored after.

    Returns
    -------
    torch.Tensor
        bool of shape (M, N): images, neurons.
    """
    with eval_mode(model):
        return frozen_features(model, images) > 0


def pattern_distance(first: Backbone, second: Backbone, images: CuedImages) -> float | None:
    """Return the Wasserstein-1 distance between two networks' activation patterns on these images.

    None where the network's `forward_features` puts out maps or tokens: the last linear layer sees means over positions
    then, which are above 0 nearly always, and no neuron's being active can be read from them. A network that pools
    within `forward_features`, as every one does that lacks timm's interface, has a distance all the same; it means
    little where it pools.
    """
    x, _ = images.batch(slice(0, 2))
    with eval_mode(first), torch.no_grad():
        hidden = first.forward_features(x)
    if hidden.ndim != 2:
        return None
    return wasserstein_distance(*(activation_patterns(model, images) for model in (first, second)))


def wasserstein_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Wasserstein-1 distance between two networks' activation patterns on the same images (remark 2).

    For one image x the paper takes each network's pattern as a Bernoulli distribution, whose p is the share of
    neurons that are active; the distance of two such is |p - q|:

        W₁(x) = (1/N) |1ᵀφ′(W_α^T x) - 1ᵀφ′(W_β^T x)|.

    Returned is its mean over the images, in [0, 1]. Renumbering neurons does not change it. It is 0 when the
    patterns match (definition 7), but also when equally many other neurons are active.

    Parameters
    ----------
    first, second
        Patterns of shapes (M, N) and (M, N′).

    Raises
    ------
    UserError
        When the patterns are not of equally many images.
    """
    if len(first) != len(second):
        raise UserError(f"patterns of {len(first)} and of {len(second)} images cannot be compared")
    return (in_float64(first).mean(1) - in_float64(second).mean(1)).abs().mean().item()
