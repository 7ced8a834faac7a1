"""Groups of units that change places together, where they lie in the weights, and how to permute them.

A permutation is an index: position i of the permuted network holds what was at ``permutation[i]``.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mmc_bench.errors import UserError

Permutations = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Place:
    """Where the units of one group lie on one axis of a weight or of an activation.

    The axis, from `start` on, is a run of shape (outer, units, inner) flattened: ``inner`` is, for example, the
    number of positions of a feature map that was flattened before a linear layer.

    Attributes
    ----------
    weight
        The parameter's or buffer's name in the model, or the activation's in the graph.
    rows
        None, but for the inner axis of a grouped convolution's weight: the first row and the number of the
        rows whose blocks these units serve; on `axis`, they are counted within their block.
    """

    weight: str
    axis: int
    start: int
    outer: int
    inner: int
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Group:
    """Units that change places together, all over the network.

    Attributes
    ----------
    name
        Of the first weight that produces them.
    size
        The number of units.
    places
        The axes of weights that the group's permutation reorders.
    blocks
        Name of the group of which every unit is a run of ``size / blocks.size`` units of this one, as in a
        grouped convolution: runs change places as those units do, and within a run everything is free.
    """

    name: str
    size: int
    places: tuple[Place, ...]
    blocks: str | None = None


@dataclass(frozen=True)
class Pinned:
    """An axis of a weight that is left as it is, though it has several units, and why."""

    weight: str
    axis: int
    size: int
    reason: str


class Groups(Sequence[Group]):
    """All groups of a network; blocks come before the groups that they are the blocks of."""

    def __init__(self, groups: Sequence[Group], pinned: Sequence[Pinned]) -> None:
        self._groups, self.pinned = tuple(groups), tuple(pinned)
        self.by_name = {group.name: group for group in groups}

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # an overload each for int and slice says no more
        return self._groups[index]

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def members(self, group: Group) -> list[Group]:
        """Return the groups whose blocks a group is."""
        return [other for other in self._groups if other.blocks == group.name]

    def trees(self) -> list[list[Group]]:
        """Return the groups that have to be permuted consistently, together; blocks first in each."""
        trees: dict[str, list[Group]] = {}
        for group in self._groups:
            tree = trees[group.blocks] if group.blocks is not None else []
            tree.append(group)
            trees[group.name] = tree
        return [trees[group.name] for group in self._groups if group.blocks is None]

    def check(self, permutations: Permutations) -> None:
        """Raise a `UserError` that names the first group whose permutation is none, or tears blocks apart."""
        for group in self._groups:
            permutation = permutations[group.name].cpu()
            if not torch.equal(permutation.sort().values, torch.arange(group.size)):
                raise UserError(f"group {group.name}: not a permutation of {group.size} units")
            if group.blocks is not None:
                blocks = permutations[group.blocks].cpu()
                width = group.size // len(blocks)
                if not torch.equal(permutation.view(-1, width) // width, blocks[:, None].expand(-1, width)):
                    raise UserError(f"group {group.name}: its permutation does not follow that of {group.blocks}")


def random_permutations(groups: Groups, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Draw a permutation for every group, uniformly among all that are allowed."""
    drawn: dict[str, torch.Tensor] = {}
    for group in groups:
        blocks = torch.zeros(1, dtype=torch.int64) if group.blocks is None else drawn[group.blocks]
        width = group.size // len(blocks)
        inner = torch.stack([torch.randperm(width, generator=generator) for _ in blocks])
        drawn[group.name] = (blocks[:, None] * width + inner).flatten()
    return drawn


def identity(groups: Groups) -> dict[str, torch.Tensor]:
    """Return the permutations that change nothing."""
    return {group.name: torch.arange(group.size) for group in groups}


def permuted_tensors(
    tensors: Mapping[str, torch.Tensor], groups: Groups, permutations: Permutations
) -> dict[str, torch.Tensor]:
    """Return those of a model's tensors that the permutations reorder, reordered."""
    places: dict[str, list[tuple[Place, str]]] = defaultdict(list)
    for group in groups:
        if group.name in permutations:
            for place in group.places:
                places[place.weight].append((place, group.name))
    result = {}
    for weight, of_weight in places.items():
        value = tensors[weight]
        # What is counted within blocks of rows goes last, when the rows are in their new places.
        for place, name in sorted(of_weight, key=lambda entry: entry[0].rows is not None):
            value = _permuted(value, place, permutations[name].to(value.device))
        result[weight] = value
    return result


def _permuted(value: torch.Tensor, place: Place, permutation: torch.Tensor) -> torch.Tensor:
    if place.rows is not None:
        return _permuted_within_rows(value, place, permutation)
    units, start = len(permutation), place.start
    index = torch.arange(value.shape[place.axis], device=value.device)
    run = index[start : start + place.outer * units * place.inner].view(place.outer, units, place.inner)
    index = torch.cat([index[:start], run[:, permutation].flatten(), index[start + run.numel() :]])
    return value.index_select(place.axis, index)


def _permuted_within_rows(value: torch.Tensor, place: Place, permutation: torch.Tensor) -> torch.Tensor:
    """Reorder axis 1 of a grouped convolution's weight, in every block of rows after that block's own order."""
    assert place.rows is not None
    first, count = place.rows
    width = value.shape[1]
    inner = permutation.view(-1, width) % width  # (blocks, width)
    inner = inner.repeat_interleave(count // len(inner), 0).view(count, width, *(1,) * (value.ndim - 2))
    value = value.clone()
    rows = value[first : first + count]
    value[first : first + count] = rows.gather(1, inner.expand_as(rows))
    return value


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's parameters and buffers by name, shared ones once, under their first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def permute(model: nn.Module, groups: Groups, permutations: Permutations) -> nn.Module:
    """Return a copy of a model, with units in another order that leaves its outputs as they are.

    Parameters
    ----------
    groups
        From `permutation_groups` of this architecture.
    permutations
        One for each group by its name, as `random_permutations` draws them; int64 of shape (units,).

    Raises
    ------
    UserError
        When a permutation is none, or does not follow its group's blocks.
    """
    groups.check(permutations)
    result = copy.deepcopy(model)
    tensors = tensors_of(result)
    for name, value in permuted_tensors(tensors, groups, permutations).items():
        tensors[name].copy_(value)
    return result
