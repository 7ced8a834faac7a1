"""Activation patterns of two networks, and how far apart they are (definitions 6 and 7 and remark 2, App. F.3)."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from mmc_bench.data.splits import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.probe import features


def activation_patterns(model: nn.Module, images: CuedImages) -> torch.Tensor:
    """Return which of the last hidden layer's neurons are active for which image (definition 6).

    φ′(Wᵀx)[j] = 1 where neuron j's output is above 0, in eval mode; the model's mode is restored after.

    Returns
    -------
    torch.Tensor
        bool of shape (M, N): images, neurons.
    """
    with eval_mode(model):
        return features(model, images) > 0


def wasserstein_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Wasserstein-1 distance between two networks' activation patterns on the same images (remark 2).

    For one image x the paper takes each network's pattern as a Bernoulli distribution, whose p is the share of
    neurons that are active; the distance of two such is |p - q|:

        W₁(x) = (1/N) |1ᵀφ′(W_α^T x) - 1ᵀφ′(W_β^T x)|.

    Returned is its mean over the images, in [0, 1]. Renumbering neurons does not change it. It is 0 when the
    patterns match (definition 7), but also when equally many other neurons are active: `matching_distance`
    tells those apart.

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
    return (first.double().mean(1) - second.double().mean(1)).abs().mean().item()


def matching_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return how far two networks are from matching in activation patterns (definition 7).

        min over permutations π of (1/MN) Σ_x Σ_j |φ′(W_α^T x)[j] - φ′(π(W_β)^T x)[j]|

    In [0, 1]; 0 means that some renumbering of neurons makes the patterns equal for every image. It is never
    below `wasserstein_distance`. The permutation is found exactly, as an assignment.

    Parameters
    ----------
    first, second
        Patterns of shape (M, N).

    Raises
    ------
    UserError
        When the patterns are not of equally many images and neurons.
    """
    if first.shape != second.shape:
        raise UserError(
            f"patterns of shape {tuple(first.shape)} and {tuple(second.shape)} cannot be matched neuron by neuron"
        )
    a, b = first.double(), second.double()
    differing = a.T @ (1 - b) + (1 - a).T @ b  # (N, N): images in which two neurons differ
    rows, columns = linear_sum_assignment(differing.cpu().numpy())
    return differing[rows, columns].sum().item() / first.numel()
