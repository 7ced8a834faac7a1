"""Scores from weights: weight matching (Ainsworth et al. 2023, "Git Re-Basin", algorithm 1).

The objective is the inner product of all parameters of the reference with the permuted ones of ours. Each step
takes one tree of groups, holds all others, and solves the assignment that the objective then is. A step that
does not raise the objective is not taken: where two axes of one weight move together the assignment is an
approximation, as it is in the source.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mmc_bench.landscape.alignment.assignment import Inner, best_permutations
from mmc_bench.landscape.alignment.groups import Group, Groups, Place, identity, permuted_tensors
from mmc_bench.system.devices import in_float64

#: A step must raise the objective by this share of the parameters' squared norm, which is above rounding.
LEAST_GAIN = 1e-9


class WeightMatching:
    """Two networks' parameters, ours in the order found so far.

    Attributes
    ----------
    permutations
        What was found so far, one for each group.
    """

    def __init__(self, reference: nn.Module, ours: nn.Module, groups: Groups) -> None:
        self.groups = groups
        self.reference = {name: value.detach().float() for name, value in reference.named_parameters()}
        self.ours = {name: value.detach().float() for name, value in ours.named_parameters()}
        self.permutations = identity(groups)
        self._groups_on: dict[str, set[str]] = {}
        for group in groups:
            for place in group.places:
                self._groups_on.setdefault(place.weight, set()).add(group.name)
        self._scale = sum(float(in_float64(value).square().sum()) for value in self.reference.values())

    def objective(self) -> float:
        """Return Σ ⟨reference, permuted ours⟩ over all parameters."""
        return sum(_inner_product(self.reference[name], value) for name, value in self.ours.items())

    def step(self, tree: list[Group], known: set[str] | None = None) -> bool:
        """Solve one tree of groups; tell whether that raised the objective and so was taken.

        Parameters
        ----------
        known
            Look at those weights only whose other groups are among these, and take the step in any case;
            all weights if None.
        """
        moves = best_permutations(self.groups, tree, lambda group, inner: self._score(group, inner, tree, known))
        before = {place.weight for group in tree for place in group.places} & self.ours.keys()
        changed = permuted_tensors({name: self.ours[name] for name in before}, self._only(tree), moves)
        gain = sum(
            _inner_product(self.reference[name], value) - _inner_product(self.reference[name], self.ours[name])
            for name, value in changed.items()
        )
        if known is None and gain <= LEAST_GAIN * self._scale:
            return False
        self.ours |= changed
        for name, move in moves.items():
            self.permutations[name] = self.permutations[name][move]
        return True

    def _only(self, tree: list[Group]) -> Groups:
        parameters = [
            Group(group.name, group.size, tuple(p for p in group.places if p.weight in self.ours), group.blocks)
            for group in tree
        ]
        return Groups(parameters, ())

    def _score(self, group: Group, inner: Inner, tree: list[Group], known: set[str] | None) -> np.ndarray:
        """Return what each pair of units is worth, all other groups held: (of the reference, of ours)."""
        total = np.zeros((group.size, group.size))
        for place in group.places:
            if place.weight not in self.ours or (known is not None and not self._is_known(place.weight, tree, known)):
                continue
            pair = self.reference[place.weight], self.ours[place.weight]
            across = _across(place, tree)
            if across is None:
                x, y = (_rows(value, place, group.size) for value in pair)
                total += (x @ y.T).cpu().double().numpy()
            elif across.name == group.blocks:  # one row for each block: nothing to assign on the other axis
                total += _score_in_blocks(*pair, place, group.size, np.zeros((across.size, across.size, 1), int))
            elif across.blocks == group.blocks and across.name in inner:
                total += _score_in_blocks(*pair, place, group.size, inner[across.name])
        return total

    def has_evidence(self, tree: list[Group], known: set[str]) -> bool:
        """Tell whether a tree reorders a weight matrix on which all other groups are known."""
        weights = {place.weight for group in tree for place in group.places} & self.ours.keys()
        return any(self.ours[name].ndim > 1 and self._is_known(name, tree, known) for name in weights)

    def _is_known(self, weight: str, tree: list[Group], known: set[str]) -> bool:
        return self._groups_on[weight] - {group.name for group in tree} <= known


def _across(place: Place, tree: list[Group]) -> Group | None:
    """Return the group on the other axis of a grouped convolution's weight, where it moves in step with this one."""
    for group in tree:
        for other in group.places:
            inner, rows = (place, other) if place.rows else (other, place)
            if other.weight != place.weight or inner.rows is None or rows.rows is not None:
                continue
            if (rows.axis, rows.start) == (0, inner.rows[0]):
                return group
    return None


def _inner_product(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((in_float64(one) * in_float64(other)).sum())


def _rows(value: torch.Tensor, place: Place, size: int) -> torch.Tensor:
    """Return a weight as a matrix with a row for each unit of a group."""
    if place.rows is not None:  # the units of one block alone: every row reads this block
        first, count = place.rows
        return value[first : first + count].movedim(1, 0).reshape(size, -1)
    run = value.narrow(place.axis, place.start, place.outer * size * place.inner)
    units: torch.Tensor = run.unflatten(place.axis, (place.outer, size, place.inner))
    return units.movedim(place.axis + 1, 0).reshape(size, -1)


def _score_in_blocks(
    reference: torch.Tensor, ours: torch.Tensor, place: Place, size: int, inner: np.ndarray
) -> np.ndarray:
    """Return scores of the units on one of a grouped convolution's two axes, given assignments on the other.

    Parameters
    ----------
    inner
        For blocks i of the reference and j of ours, the assignment on the other axis: (blocks, blocks, other).
    """
    blocks, _, other = inner.shape
    width = size // blocks
    first, count = place.rows or (place.start, size)

    def by_block(value: torch.Tensor) -> torch.Tensor:  # (blocks, width, other, kernel)
        if place.rows is None:
            return value[first : first + count].reshape(blocks, width, other, -1)
        return value[first : first + count].reshape(blocks, other, width, -1).transpose(1, 2)

    x, y = by_block(reference), by_block(ours)
    index = torch.from_numpy(inner).to(ours.device)
    scores = np.empty((blocks, width, blocks, width))
    for j in range(blocks):
        moved = y[j][:, index[:, j]]  # (width, blocks of the reference, other, kernel)
        scores[:, :, j] = torch.einsum("iuok,viok->iuv", x, moved).cpu().numpy()
    return scores.reshape(size, size)


def match_weights(
    reference: nn.Module, ours: nn.Module, groups: Groups, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return the permutations that coordinate descent finds, from the better of two starts.

    One start is the order that ours has, which is the one to keep when ours was fine-tuned from the reference.
    The other goes through the network once, from the input on, and matches each group on the weights whose
    other groups are matched already: without it, the descent from a network that was permuted begins among
    layers whose inputs are all out of order.

    Parameters
    ----------
    generator
        Draws the order in which each round takes the groups.
    """
    matching = WeightMatching(reference, ours, groups)
    through = WeightMatching(reference, ours, groups)
    start_through(through)
    if through.objective() > matching.objective():
        matching = through
    descend(matching, generator)
    return matching.permutations


def start_through(matching: WeightMatching) -> None:
    """Match every tree of groups once, always one with a weight matrix all whose other groups are matched."""
    known: set[str] = set()
    left = matching.groups.trees()
    while left:
        tree = next((tree for tree in left if matching.has_evidence(tree, known)), left[0])
        left.remove(tree)
        matching.step(tree, known)
        known |= {group.name for group in tree}


def descend(matching: WeightMatching, generator: torch.Generator) -> None:
    """Take the trees of groups in random order, round by round, until no step raises the objective.

    A tree none of whose weights has changed since its last step need not be taken again.
    """
    trees = matching.groups.trees()
    weights = [{place.weight for group in tree for place in group.places} for tree in trees]
    stale = set(range(len(trees)))
    while stale:
        for index in torch.randperm(len(trees), generator=generator).tolist():
            if index in stale:
                stale.discard(index)
                if matching.step(trees[index]):
                    stale |= {other for other in range(len(trees)) if weights[other] & weights[index]}
