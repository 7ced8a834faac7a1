"""What alignment maximises: correlations and weight products against loops in float64, assignments by brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.alignment import batch, shuffled, trained, undone
from torch import nn

from mmc_bench.landscape.alignment import Group, Groups, Place, align, permutation_groups, permute
from mmc_bench.landscape.alignment.activations import Moments, Observer, joint_moments
from mmc_bench.landscape.alignment.assignment import best_permutations
from mmc_bench.landscape.alignment.weights import WeightMatching, descend, match_weights, start_through


def correlation_by_hand(xs, ys):
    """Return Pearson's correlation of two lists of numbers; 0 where one does not vary."""
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    product = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys))
    x_square, y_square = sum((x - x_mean) ** 2 for x in xs), sum((y - y_mean) ** 2 for y in ys)
    return product / math.sqrt(x_square * y_square) if x_square * y_square > 1e-12 else 0.0


def by_hand(reference, ours):
    """Return the correlations of all pairs of channels of activations (N, C, H, W)."""
    xs, ys = (value.double().transpose(0, 1).flatten(1).tolist() for value in (reference, ours))
    return np.array([[correlation_by_hand(x, y) for y in ys] for x in xs])


class Residual(nn.Module):
    """A stream that is seen twice, and a hidden layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, m, 3, padding=1) for n, m in ((3, 4), (4, 5), (5, 4)))
        self.norm, self.d = nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x):
        stream = self.norm(self.a(x))
        last = stream + self.c(self.b(stream.relu()).relu_())
        return self.d(last.relu().mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution with two channels in and three out in each of four blocks."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4)
        self.c, self.d = nn.Conv2d(12, 6, 3), nn.Linear(6, 10)

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x).relu()).relu()).relu().mean((2, 3)))


SMALL = (3, 8, 8)


def make(kind, seed):
    torch.manual_seed(seed)
    return trained(kind(), batch(16, SMALL))


# --- correlations


@pytest.mark.slow
def test_correlations_equal_a_loop_over_values_summed_over_the_places_where_a_stream_is_seen():
    reference, ours, images = make(Residual, 0), make(Residual, 1), batch(11, SMALL)

    def seen(model):
        stream = model.norm(model.a(images))
        hidden = model.b(stream.relu())
        return {"a.weight": [stream, stream + model.c(hidden.relu())], "b.weight": [hidden]}

    with torch.no_grad():
        expected = {
            name: sum(by_hand(x, y) for x, y in zip(xs, seen(ours)[name])) for name, xs in seen(reference).items()
        }
    observer = Observer(reference, images[:4])
    found = joint_moments(reference, ours, observer, [images[:4], images[4:8], images[8:]])  # the last batch is smaller
    for group in observer.groups:
        assert np.abs(found.correlation(group) - expected[group.name]).max() < 1e-5
    assert len(expected) == len(observer.groups) == 2


@pytest.mark.slow
def test_units_that_never_change_correlate_with_nobody_and_are_no_nan():
    model, images = make(Residual, 0), batch(16, SMALL)
    with torch.no_grad():
        model.b.weight[2], model.b.bias[2] = 0.0, 1.7  # constant
        model.b.weight[4], model.b.bias[4] = 0.0, 0.0  # dead
    observer = Observer(model, images)
    score = joint_moments(model, model, observer, [images]).correlation(observer.groups.by_name["b.weight"])
    assert np.isfinite(score).all()
    assert not score[[2, 4]].any() and not score[:, [2, 4]].any()
    assert np.allclose(np.diag(score)[[0, 1, 3]], 1, atol=1e-5)
    assert align(model, make(Residual, 1), [images]).verified


def test_correlations_stay_exact_where_the_mean_is_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 3, generator=generator) + 1000 for _ in range(2))
    sums = Moments.empty(x, y)
    sums.add(x[:200], y[:200])
    sums.add(x[200:], y[200:])
    assert np.abs(sums.correlations() - by_hand(x[:, :, None, None], y[:, :, None, None])).max() < 1e-5


def test_inner_products_are_the_mean_products_of_what_units_answer_wherever_the_sums_are_shifted_to():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 3, generator=generator) + mean for mean in (2, -3))
    sums = Moments.empty(x, y)
    sums.add(x[:200], y[:200])
    sums.add(x[200:], y[200:])
    expected = [[sum(float(a) * float(b) for a, b in zip(x[:, i], y[:, j])) / 500 for j in range(3)] for i in range(3)]
    assert np.abs(sums.inner_products() - np.array(expected)).max() < 1e-5


@pytest.mark.slow
def test_inner_products_bring_activations_closest_of_all_permutations():
    reference, ours, images = make(Residual, 0), make(Residual, 1), batch(16, SMALL)
    with torch.no_grad():
        reference.b.weight[:2] *= 50  # large units decide, where correlations count all alike
        hidden, other = (model.b(model.norm(model.a(images)).relu()).relu() for model in (reference, ours))
    distance = {
        order: float((hidden - other[:, list(order)]).square().sum()) for order in itertools.permutations(range(5))
    }
    found = align(ours, reference, [images], criterion="inner-products").permutations["b.weight"]
    assert tuple(found.tolist()) == min(distance, key=distance.__getitem__)


@pytest.mark.slow
def test_large_batches_run_in_chunks_that_give_the_same_correlations():
    reference, ours, images = make(Residual, 0), make(Residual, 1), batch(200, SMALL)
    observer = Observer(reference, images[:100])
    whole = joint_moments(reference, ours, observer, [images])
    halves = joint_moments(reference, ours, observer, [images[:100], images[100:]])
    for group in observer.groups:
        assert np.abs(whole.correlation(group) - halves.correlation(group)).max() < 1e-5


# --- assignments


def tree_of_blocks(blocks, widths):
    """Return a group of blocks with groups of these many units in each."""
    members = [Group(f"m{width}", blocks * width, (Place(f"m{width}", 0, 0, 1, 1),), "blocks") for width in widths]
    return Groups([Group("blocks", blocks, ()), *members], ())


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_of_blocks_and_of_units_within_them_is_the_best_of_all(seed):
    generator = np.random.default_rng(seed)
    groups = tree_of_blocks(3, (2, 3))
    scores = {group.name: generator.normal(size=(group.size, group.size)) for group in groups}

    def value(permutations):
        return sum(scores[name][np.arange(len(p)), p].sum() for name, p in permutations.items())

    best = -math.inf
    for blocks in itertools.permutations(range(3)):
        total = scores["blocks"][np.arange(3), list(blocks)].sum()
        for width in (2, 3):
            for i, j in enumerate(blocks):
                inner = itertools.permutations(range(width))
                within = scores[f"m{width}"][i * width : (i + 1) * width, j * width : (j + 1) * width]
                total += max(sum(within[row, column] for row, column in enumerate(p)) for p in inner)
        best = max(best, total)
    found = best_permutations(groups, list(groups), lambda group, _: scores[group.name])
    groups.check(found)
    assert value({name: p.numpy() for name, p in found.items()}) == pytest.approx(best)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Residual, Grouped])
def test_small_networks_are_brought_back_exactly_from_any_seed(kind):
    for seed in range(3):
        reference = make(kind, seed)
        groups = permutation_groups(reference, SMALL)
        model, permutations = shuffled(reference, groups, seed=10 + seed)
        for criterion in ("correlations-before-relu", "correlations-after-relu", "inner-products", "weights"):
            found = align(model, reference, [batch(16, SMALL)], criterion=criterion)
            assert undone(found.permutations, permutations, groups) == []


# --- weight matching


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Residual, Grouped])
def test_weight_matching_never_lowers_its_objective_and_ends_where_no_step_raises_it(kind):
    reference, ours = make(kind, 0), make(kind, 1)
    groups = permutation_groups(reference, SMALL)
    matching = WeightMatching(reference, ours, groups)
    before = matching.objective()
    values = [before]
    for _ in range(3):
        for tree in groups.trees():
            matching.step(tree)
            values.append(matching.objective())
    assert all(later >= earlier for earlier, later in itertools.pairwise(values)) and values[-1] > before
    descend(matching, torch.Generator().manual_seed(0))
    assert matching.objective() >= values[-1]
    assert not any(matching.step(tree) for tree in groups.trees())
    groups.check(matching.permutations)


def test_the_objective_is_the_inner_product_of_the_reference_with_the_permuted_network():
    reference, ours = make(Grouped, 0), make(Grouped, 1)
    groups = permutation_groups(reference, SMALL)
    matching = WeightMatching(reference, ours, groups)
    start_through(matching)
    descend(matching, torch.Generator().manual_seed(0))
    permuted = permute(ours, groups, matching.permutations)
    pairs = zip(reference.parameters(), permuted.parameters())
    by_loop = sum(a * b for x, y in pairs for a, b in zip(x.flatten().tolist(), y.flatten().tolist()))
    assert matching.objective() == pytest.approx(by_loop, rel=1e-5)


def test_a_single_group_is_matched_as_brute_force_matches_it():
    torch.manual_seed(0)
    reference, ours = (nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(2))
    groups = permutation_groups(reference, (3,))

    @torch.no_grad()
    def objective(order):
        order = list(order)
        return float(
            (reference[0].weight * ours[0].weight[order]).sum()
            + (reference[0].bias * ours[0].bias[order]).sum()
            + (reference[2].weight * ours[2].weight[:, order]).sum()
        )

    best = max(itertools.permutations(range(5)), key=objective)
    found = match_weights(reference, ours, groups, torch.Generator())
    assert found["0.weight"].tolist() == list(best)
