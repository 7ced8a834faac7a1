"""Quadratic paths: their shape, how their bend is trained, and what BatchNorm re-estimation does to barriers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmc_bench.landscape.barriers import barrier
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.landscape.paths import evaluate_path, linear_path, parameters_of, quadratic_path, set_parameters
from mmc_bench.landscape.quadratic import train_bend
from mmc_bench.results.settings import QuadraticSettings
from mmc_bench.training import Progress, Training, evaluate


def bend_of(first, last, images, **settings):
    settings = QuadraticSettings(**{"epochs": 1, "batch_size": 5, **settings})
    return train_bend(first, last, images, settings, torch.Generator().manual_seed(3), Progress())


def pairwise(*models):
    return zip(*(parameters_of(model) for model in models), strict=True)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_a_quadratic_path_is_the_bezier_curve_of_its_three_points(tiny_net, t):
    start, middle, end = (tiny_net(seed) for seed in range(3))
    at = quadratic_path(start, parameters_of(middle), end)(t)
    for value, (a, b, c) in zip(at, pairwise(start, middle, end), strict=True):
        assert torch.allclose(value, (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c, rtol=1e-12, atol=1e-15)


def test_a_step_follows_the_loss_at_a_random_point_with_the_chain_rules_factor(tiny_net, image_set):
    """By hand, in float64: two steps of SGD with momentum and weight decay on θ₁₂."""
    import random

    start, end, images = tiny_net(0).eval(), tiny_net(1).eval(), image_set(10)
    found = bend_of(start, end, images, lr=0.05, lr_drops=())
    generator, law = torch.Generator().manual_seed(3), random.Random(3)
    bend = [(a + c) / 2 for a, c in pairwise(start, end)]
    momentum = [torch.zeros_like(value) for value in bend]
    for x, y in images.shuffled(5, generator):
        t = law.random()
        between = copy.deepcopy(start).train()
        gamma = [(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for (a, c), b in zip(pairwise(start, end), bend)]
        set_parameters(between, gamma)
        gradients = torch.autograd.grad(F.cross_entropy(between(x), y), list(between.parameters()))
        for index, gradient in enumerate(gradients):
            step = 2 * t * (1 - t) * gradient + 1e-4 * bend[index]
            momentum[index] = 0.9 * momentum[index] + step
            bend[index] = bend[index] - 0.05 * momentum[index]
    for ours, theirs in zip(found, bend, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_training_a_bend_leaves_both_models_as_they_were(tiny_net, image_set):
    start, end = tiny_net(0).eval(), tiny_net(1).eval()
    before = [copy.deepcopy(model.state_dict()) for model in (start, end)]
    bend_of(start, end, image_set(10), epochs=2)
    for model, state in zip((start, end), before):
        assert not model.training
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_random_start_is_neither_the_middle_nor_the_same_for_another_seed(tiny_net, image_set):
    start, end = tiny_net(0), tiny_net(1)
    bends = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        bends.append(bend_of(start, end, image_set(10), start="random", lr=1e-9)[0])
    assert torch.equal(bends[0], bends[1]) and not torch.allclose(bends[0], bends[2])
    middle = (parameters_of(start)[0] + parameters_of(end)[0]) / 2
    assert not torch.allclose(bends[0], middle, atol=1e-3)
    assert torch.allclose(bend_of(start, end, image_set(10), lr=1e-9)[0], middle, atol=1e-6)


def test_a_random_start_keeps_no_parameter_of_the_first_model(image_set):
    class Transformer(nn.Module):
        """One layer of attention, with parameters that are no layer's."""

        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 6))
            self.attention, self.head = nn.MultiheadAttention(6, 1, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(1, 2)], 1)
            return self.head(self.attention(x, x, x, need_weights=False)[0][:, 0])

    torch.manual_seed(0)
    start, end = Transformer().double(), Transformer().double()
    bend = bend_of(start, end, image_set(10), start="random", lr=1e-9)
    for (name, own), value in zip(start.named_parameters(), bend, strict=True):
        assert name.endswith("bias") or not torch.allclose(value, own, atol=1e-3), name


def trained(net, images, seed):
    generator = torch.Generator().manual_seed(seed)
    training = Training(net, images, lr=0.1, epochs=40, batch_size=20, generator=generator, progress=Progress())
    return training.fit().eval()


@pytest.mark.slow
def test_a_trained_bend_lowers_the_barrier_of_the_straight_path(tiny_net, image_set):
    images = image_set(80)
    start, end = (trained(tiny_net(seed), images, seed) for seed in (0, 1))
    ends = {"train": evaluate(start, images)}, {"train": evaluate(end, images)}
    bend = bend_of(start, end, images, epochs=40, batch_size=20, lr=0.05)
    heights = []
    for path in (linear_path(start, end), quadratic_path(start, bend, end)):
        ts, scores = evaluate_path(path, end, {"train": images}, images, 9, ends)
        heights.append(barrier(ts, scores["train"]).loss)
    assert heights[0] > 0.1 and heights[1] < 0.5 * heights[0]


@pytest.mark.slow
def test_without_reestimated_statistics_a_barrier_is_overstated(tiny_net, image_set):
    """What the ends' own running statistics, or their average, make of the models between."""
    images = image_set(80)
    start, end = (trained(tiny_net(seed), images, seed) for seed in (0, 1))
    ends = {"train": evaluate(start, images)}, {"train": evaluate(end, images)}
    ts, scores = evaluate_path(linear_path(start, end), end, {"train": images}, images, 9, ends)
    honest = barrier(ts, scores["train"]).loss
    stale = [ends[0]["train"]]
    for t in ts[1:-1]:
        between = copy.deepcopy(start)
        set_parameters(between, linear_path(start, end)(t))
        for name, buffer in between.named_buffers():
            if buffer.is_floating_point():
                buffer.lerp_(end.get_buffer(name), t)
        stale.append(evaluate(between, images))
    assert barrier(ts, [*stale, ends[1]["train"]]).loss > honest + 0.05


def test_the_reestimated_average_weighs_every_image_alike(tiny_net, image_set):
    """One pass with an uneven last batch gives the statistics of one batch of all images, in the first layer."""
    images, model = image_set(23), tiny_net().eval()
    reestimate_batchnorm(model, images, batch_size=10)
    inputs = model.stem(images.storage)
    assert torch.allclose(model.norm1.running_mean, inputs.mean((0, 2, 3)), rtol=1e-9)
