"""Scores from activations: how units of two networks correlate over the same images (Lubana et al. 2023, B.2).

One pass runs both networks side by side. At every place where units are seen (`graph.observed`), the sums that
a correlation needs are taken as matrix products, and the activations are dropped. A group's score is the
sum over all places at which it is seen: a residual stream is one group, seen after every addition.

Units that the images do not tell apart, being constant on all of them or multiples of one another, are
assigned as it comes. In a trained network they are few; where BatchNorm statistics lag behind the weights, whole
layers can be so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from mmc_bench.landscape.alignment.assignment import Inner, best_permutations
from mmc_bench.landscape.alignment.graph import groups_of, label, observed, trace
from mmc_bench.landscape.alignment.groups import Group, Groups, Place, tensors_of

#: Images that run at once: 128 keep two networks' activations small, whatever the batches that come in.
CHUNK = 128

#: A unit whose variance is below this share of its second moment is constant but for rounding.
CONSTANT = 1e-10


@dataclass
class Correlation:
    """Running sums for the correlations of n units of two networks, seen in one place.

    Values are taken relative to the first one seen, which keeps float32 sums exact for units that never
    change, and accurate for those whose mean is far from 0.

    Attributes
    ----------
    shift
        Shape (2, n): the first values.
    count
        Values seen.
    first, second
        Sums of the values and of their squares, float64, shape (2, n).
    product
        Σ x yᵀ, float64, shape (n of the reference, n of ours).
    """

    shift: torch.Tensor
    count: int
    first: torch.Tensor
    second: torch.Tensor
    product: torch.Tensor

    @classmethod
    def empty(cls, reference: torch.Tensor, ours: torch.Tensor) -> Correlation:
        """Return sums over nothing, shifted by the first of these values."""
        shift = torch.stack([reference[0], ours[0]])
        zeros = torch.zeros_like(shift, dtype=torch.float64)
        n = shift.shape[1]
        return cls(shift, 0, zeros, zeros.clone(), zeros.new_zeros(n, n))

    def add(self, reference: torch.Tensor, ours: torch.Tensor) -> None:
        """Add values, both of shape (values, n)."""
        x, y = reference - self.shift[0], ours - self.shift[1]
        self.count += len(x)
        self.first += torch.stack([x.sum(0), y.sum(0)])
        self.second += torch.stack([torch.linalg.vector_norm(z, dim=0).square() for z in (x, y)])
        self.product += x.T @ y

    def matrix(self) -> np.ndarray:
        """Return the correlations, float64 of shape (n, n); 0 for units that never change."""
        mean, moment = self.first / self.count, self.second / self.count
        variance = moment - mean.square()
        dead = variance <= CONSTANT * moment
        scale = variance.masked_fill(dead, torch.inf).rsqrt()
        covariance = self.product / self.count - mean[0][:, None] * mean[1]
        return (scale[0][:, None] * covariance * scale[1]).cpu().numpy()


class Correlations:
    """The correlations of all groups of two networks."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._sums: dict[tuple[str, Place], Correlation] = {}

    def add(self, group: str, place: Place, reference: torch.Tensor, ours: torch.Tensor) -> None:
        """Add what was seen of a group's units in one place: both networks' values of the whole activation."""
        x, y = (_units(value, place, self.groups.by_name[group].size) for value in (reference, ours))
        key = (group, place)
        if key not in self._sums:
            self._sums[key] = Correlation.empty(x, y)
        self._sums[key].add(x, y)

    def score(self, group: Group, _: Inner | None = None) -> np.ndarray:
        """Return the sum of a group's correlations over all places, (units of the reference, units of ours)."""
        matrices = [sums.matrix() for (name, _), sums in self._sums.items() if name == group.name]
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
        self._seen: Mapping[fx.Node, list[tuple[Place, str]]] = {
            node: [(place, names[units]) for place, units in entries if units in names]
            for node, entries in observed(labelled).items()
        }

    def run(self, networks: list[dict[str, torch.Tensor]], x: torch.Tensor, correlations: Correlations) -> None:
        """Run two networks over one batch and add what is seen to their correlations."""

        def see(node: fx.Node, values: list[torch.Tensor]) -> None:
            for place, group in self._seen.get(node, ()):
                correlations.add(group, place, *values)

        self.graph.run(networks, x, see)


@torch.no_grad()
def correlate(
    reference: nn.Module, ours: nn.Module, observer: Observer, batches: Iterable[torch.Tensor]
) -> Correlations:
    """Run two networks over the same images once and return the correlations of their units.

    Parameters
    ----------
    observer
        Of this architecture; batches of another shape than its own are traced anew.
    batches
        Inputs of shape (N, …), on the networks' device.
    """
    correlations = Correlations(observer.groups)
    networks = [tensors_of(reference), tensors_of(ours)]
    observers = {observer.shape: observer}
    for batch in batches:
        for x in batch.split(CHUNK):
            if x.shape not in observers:
                observers[x.shape] = Observer(reference, x)
            observers[x.shape].run(networks, x, correlations)
    return correlations


def match_activations(correlations: Correlations) -> dict[str, torch.Tensor]:
    """Return the permutation of every group that maximises the sum of the matched units' correlations."""
    found: dict[str, torch.Tensor] = {}
    for tree in correlations.groups.trees():
        found |= best_permutations(correlations.groups, tree, correlations.score)
    return found
