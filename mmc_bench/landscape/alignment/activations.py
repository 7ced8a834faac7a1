"""Scores from activations: how alike units of two networks are over the same images (Lubana et al. 2023, B.2).

One pass runs both networks side by side. At every place where units are seen (`graph.observed`), the sums that
a likeness needs are taken as matrix products, and the activations are dropped. A group's score is the
sum over all places at which it is seen: a residual stream is one group, seen after every addition.

Two likenesses come from the same sums. Correlations count every unit alike; the authors' code takes them after the
nonlinearity, and they can be taken before it. Inner products, after the nonlinearity, are eq. 6 as it stands:
‖a - πb‖² is least where Σ⟨a, πb⟩ is largest, so units that are large decide, and a unit's mean counts.

Units that the images do not tell apart, being constant on all of them or multiples of one another, are
assigned as it comes. In a trained network they are few; where BatchNorm statistics lag behind the weights, whole
layers can be so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import fx, nn

from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.landscape.alignment.assignment import Inner, ScoreOf, best_permutations
from mmc_bench.landscape.alignment.graph import activated, groups_of, label, observed, trace
from mmc_bench.landscape.alignment.groups import Group, Groups, Place, tensors_of
from mmc_bench.landscape.alignment.labels import Units
from mmc_bench.system.devices import in_float64

Side = Literal["before", "after"]

#: Of the largest score; differences of scores below it are rounding.
NEGLIGIBLE = 1e-9

#: Images that run at once: 128 keep two networks' activations small, whatever the batches that come in.
CHUNK = 128

#: A unit whose variance is below this share of its second moment is constant but for rounding.
CONSTANT = 1e-10


@dataclass
class Moments:
    """Running sums for how alike n units of two networks are, seen in one place.

    Values are taken relative to the first one seen, which keeps float32 sums exact for units that never
    change, and accurate for those whose mean is far from 0.

    Attributes
    ----------
    shift
        Shape (2, n): the first values.
    count
        Values seen.
    first, second
        Sums of the values and of their squares, float64, shape (2, n); on the CPU where the device has no float64.
    product
        Σ x yᵀ, likewise, shape (n of the reference, n of ours).
    """

    shift: torch.Tensor
    count: int
    first: torch.Tensor
    second: torch.Tensor
    product: torch.Tensor

    @classmethod
    def empty(cls, reference: torch.Tensor, ours: torch.Tensor) -> Moments:
        """Return sums over nothing, shifted by the first of these values."""
        shift = torch.stack([reference[0], ours[0]])
        zeros = in_float64(torch.zeros_like(shift))
        n = shift.shape[1]
        return cls(shift, 0, zeros, zeros.clone(), zeros.new_zeros(n, n))

    def add(self, reference: torch.Tensor, ours: torch.Tensor) -> None:
        """Add values, both of shape (values, n)."""
        x, y = reference - self.shift[0], ours - self.shift[1]
        self.count += len(x)
        place = self.product.device
        self.first += torch.stack([x.sum(0), y.sum(0)]).to(place)
        self.second += torch.stack([torch.linalg.vector_norm(z, dim=0).square() for z in (x, y)]).to(place)
        self.product += (x.T @ y).to(place)

    def correlations(self) -> np.ndarray:
        """Return the correlations, float64 of shape (n, n); 0 for units that never change."""
        mean, moment = self.first / self.count, self.second / self.count
        variance = moment - mean.square()
        dead = variance <= CONSTANT * moment
        scale = variance.masked_fill(dead, torch.inf).rsqrt()
        covariance = self.product / self.count - mean[0][:, None] * mean[1]
        correlation: np.ndarray = (scale[0][:, None] * covariance * scale[1]).cpu().numpy()
        return correlation

    def inner_products(self) -> np.ndarray:
        """Return the mean products of two units' values, float64 of shape (n, n)."""
        x, y = in_float64(self.shift)
        mean = self.first / self.count
        shifted = self.product / self.count
        products: np.ndarray = (shifted + mean[0][:, None] * y + x[:, None] * mean[1] + x[:, None] * y).cpu().numpy()
        return products


class GroupMoments:
    """The moments of all groups of two networks."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._sums: dict[tuple[str, Place], Moments] = {}

    def add(self, group: str, place: Place, reference: torch.Tensor, ours: torch.Tensor) -> None:
        """Add what was seen of a group's units in one place: both networks' values of the whole activation."""
        x, y = (_units(value, place, self.groups.by_name[group].size) for value in (reference, ours))
        key = (group, place)
        if key not in self._sums:
            self._sums[key] = Moments.empty(x, y)
        self._sums[key].add(x, y)

    def correlation(self, group: Group, _: Inner | None = None) -> np.ndarray:
        """Return the sum of a group's correlations over all places, (units of the reference, units of ours)."""
        return self._over_places(group, Moments.correlations)

    def inner_product(self, group: Group, _: Inner | None = None) -> np.ndarray:
        """Return the sum of a group's mean inner products over all places, shaped like `correlation`."""
        return self._over_places(group, Moments.inner_products)

    def _over_places(self, group: Group, likeness: Callable[[Moments], np.ndarray]) -> np.ndarray:
        matrices = [likeness(sums) for (name, _), sums in self._sums.items() if name == group.name]
        return sum(matrices, np.zeros((group.size, group.size)))

    @property
    def unseen(self) -> tuple[str, ...]:
        """The groups that were seen nowhere; blocks are seen in those who follow them."""
        seen = {name for name, _ in self._sums} | {group.blocks for group in self.groups}
        return tuple(group.name for group in self.groups if group.name not in seen)


def _units(value: torch.Tensor, place: Place, size: int) -> torch.Tensor:
    """Return the values of units on one axis as a matrix (values, units); no copy where channels come last."""
    value = value.movedim(place.axis, -1)
    if value.shape[-1] != size:
        value = value[..., place.start : place.start + place.outer * size * place.inner]
        value = value.unflatten(-1, (place.outer, size, place.inner)).movedim(-2, -1)
    return value.reshape(-1, size).float()


class Observer:
    """A network's groups, and where their units are seen, traced for batches of one shape.

    Parameters
    ----------
    model
        Any network of the architecture.
    x
        A batch of inputs, (N, …).
    """

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        self.shape = x.shape
        self.graph = trace(model, x)
        labelled = label(self.graph)
        self.groups, names = groups_of(labelled)
        before = observed(labelled)
        sides: dict[Side, dict[fx.Node, list[tuple[Place, Units]]]] = {"before": before, "after": activated(before)}
        self._seen: dict[Side, Mapping[fx.Node, list[tuple[Place, str]]]] = {
            side: {
                node: [(place, names[units]) for place, units in entries if units in names]
                for node, entries in seen.items()
            }
            for side, seen in sides.items()
        }

    def run(self, networks: list[dict[str, torch.Tensor]], x: torch.Tensor, moments: GroupMoments, side: Side) -> None:
        """Run two networks over one batch and add what is seen on this side of nonlinearities to their moments."""
        seen = self._seen[side]

        def see(node: fx.Node, values: list[torch.Tensor]) -> None:
            for place, group in seen.get(node, ()):
                moments.add(group, place, *values)

        self.graph.run(networks, x, see)


@torch.no_grad()
def joint_moments(
    reference: nn.Module, ours: nn.Module, observer: Observer, batches: Iterable[torch.Tensor], side: Side = "before"
) -> GroupMoments:
    """Run two networks over the same images once and return the joint moments of their units.

    Parameters
    ----------
    observer
        Of this architecture; batches of another shape than its own are traced anew.
    batches
        Inputs of shape (N, …), on the networks' device.
    side
        Whether units are seen before or after the nonlinearity that follows them.
    """
    moments = GroupMoments(observer.groups)
    networks = [tensors_of(reference), tensors_of(ours)]
    observers = {observer.shape: observer}
    for batch in batches:
        for x in batch.split(CHUNK // micro_batches()):
            if x.shape not in observers:
                observers[x.shape] = Observer(reference, x)
            observers[x.shape].run(networks, x, moments, side)
    return moments


def match_activations(groups: Groups, score: ScoreOf) -> dict[str, torch.Tensor]:
    """Return the permutation of every group that maximises the sum of the matched units' scores.

    Units that the scores do not tell apart, such as silent ones, stay in their places.
    """

    def preferring_places(group: Group, inner: Inner) -> np.ndarray:
        scores = score(group, inner)
        preferred: np.ndarray = scores + NEGLIGIBLE * np.abs(scores).max(initial=0) * np.eye(len(scores))
        return preferred

    found: dict[str, torch.Tensor] = {}
    for tree in groups.trees():
        found |= best_permutations(groups, tree, preferring_places)
    return found
