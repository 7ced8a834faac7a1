"""The assignment of units to units that maximises a sum of scores, exactly, block structure included."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from mmc_bench.landscape.alignment.groups import Group, Groups

#: For every pair of blocks (i of the reference, j of ours), the assignment within: (blocks, blocks, width).
Inner = Mapping[str, np.ndarray]
ScoreOf = Callable[[Group, Inner], np.ndarray]


def best_permutations(groups: Groups, tree: list[Group], score_of: ScoreOf) -> dict[str, torch.Tensor]:
    """Return the permutations of one tree of groups that maximise Σ score[i, permutation[i]].

    From the leaves up: for every pair of blocks the best assignment of the units within, whose value is what
    the pair of blocks is worth, on top of the blocks' own score; then one assignment of the blocks, which picks
    the inner ones. As units of different blocks do not compete, this is exact.

    Parameters
    ----------
    tree
        A group that follows no blocks, and all whose blocks it is, directly or not.
    score_of
        Returns a group's scores (units of the reference, units of ours). It is given the inner assignments
        found so far for other groups of the tree: where two groups share a weight, scores depend on them.
    """
    solver = _Solver(groups, score_of)
    total = solver.total(tree[0])
    return dict(solver.descend(tree[0], _best(total)))


def _best(scores: np.ndarray) -> np.ndarray:
    """Return the column of each row of square scores, such that their sum is largest."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and most runs match nothing

    columns: np.ndarray = linear_sum_assignment(scores, maximize=True)[1]
    return columns


class _Solver:
    def __init__(self, groups: Groups, score_of: ScoreOf) -> None:
        self.groups, self.score_of = groups, score_of
        self.inner: dict[str, np.ndarray] = {}
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # scores within a group, values of its blocks

    def total(self, group: Group) -> np.ndarray:
        """Return a group's scores, including what those within its units are worth."""
        members = self.groups.members(group)
        for member in members[:-1]:  # the last one's inner assignments may change the first one's scores
            self.value_of_blocks(member, group.size)
        values = [self.value_of_blocks(member, group.size) for member in reversed(members)]
        return sum(values, self.score_of(group, self.inner).astype(np.float64))

    def value_of_blocks(self, member: Group, blocks: int) -> np.ndarray:
        """Return what the best assignment within each pair of blocks is worth, (blocks, blocks), and note it."""
        scores = self.total(member)
        if member.name in self._known and np.array_equal(self._known[member.name][0], scores):
            return self._known[member.name][1]
        width = member.size // blocks
        pairs = scores.reshape(blocks, width, blocks, width).transpose(0, 2, 1, 3)  # (i, j, within i, within j)
        found = np.empty((blocks, blocks, width), dtype=np.int64)
        value = np.empty((blocks, blocks))
        for i in range(blocks):
            for j in range(blocks):
                found[i, j] = _best(pairs[i, j])
                value[i, j] = pairs[i, j][np.arange(width), found[i, j]].sum()
        self.inner[member.name] = found
        self._known[member.name] = scores, value
        return value

    def descend(self, group: Group, permutation: np.ndarray) -> list[tuple[str, torch.Tensor]]:
        """Return a group's permutation and those it picks for all that follow it."""
        picked = [(group.name, torch.from_numpy(permutation.astype(np.int64)))]
        for member in self.groups.members(group):
            found = self.inner[member.name]  # (blocks, blocks, width)
            within = found[np.arange(len(permutation)), permutation]  # (blocks, width)
            follows = permutation[:, None] * found.shape[-1] + within
            picked += self.descend(member, follows.reshape(-1))
        return picked
