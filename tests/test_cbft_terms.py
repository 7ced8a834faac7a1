"""CBFT's invariance term and its law of path positions, against loops and SciPy."""

import math

import pytest
import torch
from mmc_bench_plugins.cbft.method import draw_path_positions, invariance_loss
from scipy.stats import kstest, truncnorm

from mmc_bench.plugin.parameters import parameters_of
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.search import search_space


def invariance_by_hand(f_c, y_c, f_nc, y_nc, num_classes):
    total = 0.0
    for k in range(num_classes):
        rows_c = [row for row, label in zip(f_c.tolist(), y_c.tolist()) if label == k]
        rows_nc = [row for row, label in zip(f_nc.tolist(), y_nc.tolist()) if label == k]
        if rows_c and rows_nc:
            units = []
            for rows in (rows_c, rows_nc):
                mean = [sum(column) / len(rows) for column in zip(*rows)]
                length = math.sqrt(sum(value**2 for value in mean))
                units.append([value / length for value in mean])
            total += sum((a - b) ** 2 for a, b in zip(*units))
    return total / num_classes


@pytest.mark.parametrize(
    ("y_c", "y_nc"),
    [
        ([0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3]),  # every class in both
        ([0, 1, 2, 0, 1, 2], [3, 2, 1, 0, 3]),  # class 3 in one batch only
        ([0, 0, 2, 0, 2, 2], [1, 2, 1, 1, 3]),  # only class 2 in both
        ([0, 0, 0, 0, 0, 0], [1, 2, 1, 1, 3]),  # none in both
    ],
)
def test_the_invariance_loss_equals_a_loop_over_classes(y_c, y_nc):
    generator = torch.Generator().manual_seed(0)
    f_c, f_nc = (torch.randn(len(y), 7, generator=generator, dtype=torch.float64) for y in (y_c, y_nc))
    y_c, y_nc = torch.tensor(y_c), torch.tensor(y_nc)
    expected = invariance_by_hand(f_c, y_c, f_nc, y_nc, 4)
    assert invariance_loss(f_c, y_c, f_nc, y_nc, 4).item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_the_invariance_losss_gradient_reaches_both_batches_and_is_finite():
    torch.manual_seed(0)
    f_c, f_nc = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    y_c, y_nc = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 2, 2])
    assert torch.autograd.gradcheck(lambda a, b: invariance_loss(a, y_c, b, y_nc, 4), (f_c, f_nc))
    invariance_loss(f_c, y_c, f_nc, y_nc, 4).backward()
    assert f_c.grad[:2].abs().sum() > 0 and f_nc.grad[0].abs().sum() > 0
    assert torch.equal(f_c.grad[2:], torch.zeros(2, 3)) and torch.equal(f_nc.grad[1:], torch.zeros(3, 3))


def test_truncated_path_positions_follow_the_truncated_normal_law():
    generator = torch.Generator().manual_seed(0)
    drawn = draw_path_positions("truncated", 4000, generator)
    assert min(drawn) >= 0 and max(drawn) <= 1
    assert kstest(drawn, truncnorm(-1, 1, loc=0.5, scale=0.5).cdf).pvalue > 0.001


def test_clipped_path_positions_lie_within_a_quarter_of_the_middle_and_mostly_at_the_ends():
    generator = torch.Generator().manual_seed(0)
    drawn = draw_path_positions("clipped", 4000, generator)
    ends = [sum(t == end for t in drawn) / len(drawn) for end in (0.25, 0.75)]
    assert min(drawn) == 0.25 and max(drawn) == 0.75
    assert ends == pytest.approx([0.3085, 0.3085], abs=0.03)  # P(Z > .5) each
    inner = [t for t in drawn if 0.25 < t < 0.75]
    assert kstest(inner, truncnorm(-0.5, 0.5, loc=0.5, scale=0.5).cdf).pvalue > 0.001


@pytest.mark.parametrize(("name", "searched"), [("cbft", True), ("cbft-no-invariance", False)])
def test_a_search_over_the_ablation_without_invariance_leaves_it_off(name, searched):
    offer = Registry.discover().get("method", name)
    space = search_space(parameters_of(offer.load()), offer.spec.defaults)
    assert ("invariance_weight" in space.draw(1)) == searched
    assert offer.configure(space.draw(1)).invariance_weight == (space.draw(1)["invariance_weight"] if searched else 0)
