"""Aligning two networks of one architecture by permuting hidden units, whatever the architecture.

Hidden units can be renumbered without changing what a network computes, provided that everybody who
produces or reads them is renumbered alike. `permutation_groups` finds out who that is from the traced graph
(`labels` says how), `align` finds the numbering that makes one network most like another, by what units do
(correlations or inner products of activations) or by their weights, and `permute` applies it.

What reaches an operator that `rules` does not know stays as it is, and is reported.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.errors import UserError, message_of
from mmc_bench.landscape.alignment.activations import CHUNK, Observer, Side, joint_moments, match_activations
from mmc_bench.landscape.alignment.graph import INPUT, OUTPUT
from mmc_bench.landscape.alignment.groups import (
    Group,
    Groups,
    Permutations,
    Pinned,
    Place,
    identity,
    permute,
    random_permutations,
    tensors_of,
)
from mmc_bench.landscape.alignment.weights import match_weights
from mmc_bench.results.settings import Matching
from mmc_bench.system.devices import float64_device, in_float64
from mmc_bench.training import full_precision
from mmc_bench.training.checks import check_same_architecture

__all__ = [
    "Alignment",
    "Group",
    "Groups",
    "Permutations",
    "Pinned",
    "Place",
    "align",
    "identity",
    "output_difference",
    "permutation_groups",
    "permute",
    "random_permutations",
]

#: In float64, outputs before and after a permutation differ by rounding alone: about 1e-14 of their size.
TOLERANCE = 1e-9

CHECKED_INPUTS = 4


@dataclass(frozen=True)
class Alignment:
    """One network permuted to resemble another.

    Attributes
    ----------
    model
        The permuted copy.
    groups
        Which units change places together, and where they lie; ``groups.pinned`` lists the axes of weights
        that stay as they are, each with the reason: the network's input or output, or an operator.
    permutations
        Of every group, by its name: int64, unit i of the copy was unit ``permutation[i]``.
    unseen
        Groups left as they are because no place in the network shows their units.
    difference
        Largest difference between the outputs before and after, over random inputs, in float64, relative to
        the largest output.
    verified
        Whether that is no more than rounding.
    """

    model: nn.Module
    groups: Groups
    permutations: Permutations
    unseen: tuple[str, ...]
    difference: float
    verified: bool


def permutation_groups(model: nn.Module, input_shape: tuple[int, ...]) -> Groups:
    """Return all groups of units that can change places without changing what a network computes.

    Parameters
    ----------
    input_shape
        Of one input, without the batch axis.

    Raises
    ------
    UserError
        When no unit can, naming the operators that stand in the way, or when the network cannot be traced.
    """
    like = next((value for value in tensors_of(model).values() if value.is_floating_point()), torch.zeros(()))
    return _observer(model, torch.zeros(2, *input_shape, dtype=like.dtype, device=like.device)).groups


def _observer(model: nn.Module, x: torch.Tensor) -> Observer:
    observer = Observer(model, x)
    if not len(observer.groups):
        reasons = sorted({pinned.reason for pinned in observer.groups.pinned} - {INPUT, OUTPUT})
        cause = f"{', '.join(reasons)} tells its positions apart" if reasons else "it has no hidden ones"
        raise UserError(f"no unit of the network can change places: {cause}, so there is nothing to align")
    return observer


@torch.no_grad()
def align(
    model: nn.Module,
    reference: nn.Module,
    images: CuedImages | Iterable[torch.Tensor],
    *,
    criterion: Matching = "correlations-before-relu",
    seed: int = 0,
) -> Alignment:
    """Permute the units of a network so that they match another's.

    Parameters
    ----------
    model
        The network to permute; it is left as it is.
    reference
        A network of the same architecture, on the same device.
    images
        What to compare activations on, such as the cue-free training images; or batches of inputs (N, …). With
        the weights as the criterion, their shape alone is used.
    criterion
        ``"correlations-before-relu"``: between units over the images, before the nonlinearity.
        ``"correlations-after-relu"``: the same after it, as in the authors' code; units that are silent on the images
        match any other such unit.
        ``"inner-products"``: of activations after it, which brings those of the two networks closest (eq. 6).
        ``"weights"``: inner products of weights (Ainsworth et al., 2022).
    seed
        Of the order in which weight matching goes through the groups.

    Raises
    ------
    UserError
        When the architectures differ, when there is nothing to align, or no image to align on.
    """
    check_same_architecture(reference, model)
    batches = iter(_batches(images))
    first = next(batches, None)
    if first is None:
        raise UserError("there are no images to align the networks on")
    unseen: tuple[str, ...] = ()
    with full_precision(first.device):
        observer = _observer(reference, first[:CHUNK])
        groups = observer.groups
        if criterion == "weights":
            permutations = match_weights(reference, model, groups, torch.Generator().manual_seed(seed))
        else:
            side: Side = "before" if criterion == "correlations-before-relu" else "after"
            moments = joint_moments(reference, model, observer, chain([first], batches), side)
            score = moments.inner_product if criterion == "inner-products" else moments.correlation
            permutations, unseen = match_activations(groups, score), moments.unseen
    permuted = permute(model, groups, permutations)
    difference = output_difference(model, permuted, tuple(first.shape[1:]), first[:CHECKED_INPUTS])
    return Alignment(permuted, groups, permutations, unseen, difference, verified=difference <= TOLERANCE)


def _batches(images: CuedImages | Iterable[torch.Tensor]) -> Iterable[torch.Tensor]:
    return (x for x, _ in images.in_order()) if isinstance(images, CuedImages) else images


def output_difference(
    one: nn.Module, other: nn.Module, input_shape: tuple[int, ...], images: torch.Tensor | None = None
) -> float:
    """Return the largest difference between two networks' outputs, relative to the largest output.

    Computed on copies in float64 and eval mode, so that what a permutation may change by rounding is far below
    what a mistake changes; on fixed random inputs, and on `images` (N, …), where units fire that noise leaves silent.

    Raises
    ------
    UserError
        When the networks do not run in float64, or return something else than a tensor.
    """
    device = float64_device(next(iter(tensors_of(one).values())).device)
    noise = torch.randn(CHECKED_INPUTS, *input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = [noise.to(device), *([] if images is None else [in_float64(images)])]
    copies = [copy.deepcopy(model).to(device).double().eval() for model in (one, other)]
    try:
        with torch.no_grad():
            first, second = (torch.cat([model(x) for x in inputs]) for model in copies)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the permuted network cannot be compared with its original in float64: {message_of(error)}"
        ) from error
    return float((first - second).abs().max() / first.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
