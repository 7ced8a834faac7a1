"""Activation patterns and their distances, against SciPy's and against every permutation."""

import pytest
import torch
from scipy import stats
from torch import nn

from mmc_bench import UserError
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.landscape.patterns import activation_patterns, pattern_distance, wasserstein_distance


def patterns(images=12, neurons=5, seed=0, share=0.5):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(images, neurons, generator=generator) < share


def bernoulli_distance(p, q):
    """Return SciPy's W₁ of two Bernoulli distributions."""
    return stats.wasserstein_distance([0, 1], [0, 1], [1 - p, p], [1 - q, q])


class Neurons(nn.Module):
    """Three neurons with a read-out, and dropout that only eval mode silences."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head, self.drop = nn.Linear(2, 3), nn.Linear(3, 2), nn.Dropout(0.9)

    def forward_features(self, x):
        return self.drop(self.hidden(x).relu())

    def forward_head(self, x, pre_logits=False):
        return x if pre_logits else self.head(x)


def vectors(x):
    n = len(x)
    return CuedImages(x, torch.arange(n), torch.zeros(n).long(), torch.zeros(n), lambda images, cue: images)


def test_a_pattern_says_which_neurons_are_above_zero():
    model = Neurons().train()
    with torch.no_grad():
        model.hidden.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        model.hidden.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
    x = torch.tensor([[1.0, -1.0], [0.0, 2.0], [-3.0, 0.0], [0.25, 0.25]])
    expected = [[True, False, True], [False, True, False], [False, False, True], [True, True, False]]
    assert activation_patterns(model, vectors(x)).tolist() == expected
    assert model.training and model.drop.training


@pytest.mark.parametrize("seed", range(4))
def test_the_wasserstein_distance_is_the_mean_of_scipy_s_between_two_bernoullis(seed):
    first, second = patterns(neurons=5, seed=seed), patterns(neurons=8, seed=seed + 10, share=0.2)
    by_hand = [bernoulli_distance(sum(a) / 5, sum(b) / 8) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert wasserstein_distance(first, second) == pytest.approx(sum(by_hand) / 12, abs=1e-12)


def test_neurons_that_are_active_for_other_images_do_not_cancel():
    first = torch.tensor([[True, True], [False, False]])
    assert wasserstein_distance(first, ~first) == 1.0


def test_renumbered_neurons_are_at_no_distance():
    first = patterns(images=50, neurons=8)
    renumbered = first[:, torch.randperm(8, generator=torch.Generator().manual_seed(1))]
    assert not torch.equal(first, renumbered)
    assert wasserstein_distance(first, renumbered) == 0


def test_two_networks_are_as_far_apart_as_their_patterns():
    torch.manual_seed(0)
    first, second, images = Neurons(), Neurons(), vectors(torch.randn(20, 2))
    shares = [activation_patterns(model, images).double().mean(1) for model in (first, second)]
    expected = sum(abs(a - b) for a, b in zip(*(share.tolist() for share in shares))) / 20
    assert pattern_distance(first, second, images) == pytest.approx(expected) and expected > 0


def test_pooled_features_have_no_activation_pattern(tiny_net, image_set):
    assert pattern_distance(tiny_net(0), tiny_net(1), image_set(4)) is None


def test_patterns_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="12 and of 11 images"):
        wasserstein_distance(patterns(), patterns(images=11))
