"""Neural attention distillation: its maps and its two trainings, against loops in float64."""

import copy

import pytest
import timm
import torch
from helpers.pooling import CLEAN, WrittenOutSGD, assert_same_state, make_method, pooled_task
from mmc_bench_plugins.nad.method import attention, attention_distance, last_of_each_resolution
from torch import nn
from torch.nn import functional as F

from mmc_bench.errors import UserError


@pytest.fixture
def make_task(tiny_net, image_set):
    return lambda **replaced: pooled_task(tiny_net, image_set, **replaced)


def attention_by_hand(maps, power):
    """Return Σ_c |F_c|^p over its norm, pixel by pixel, for maps of one image, as nested lists (C, h, w)."""
    height, width = len(maps[0]), len(maps[0][0])
    summed = [sum(abs(c[i][j]) ** power for c in maps) for i in range(height) for j in range(width)]
    norm = sum(value**2 for value in summed) ** 0.5
    return [value / (norm + 1e-6) for value in summed]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_an_attention_map_is_that_of_the_formula(power):
    maps = torch.randn(4, 5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    others = torch.randn(4, 7, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [attention_by_hand(one, power) for one in maps.tolist()]
    for row, wanted in zip(attention(maps, power).tolist(), expected):
        assert row == pytest.approx(wanted, rel=1e-12)
    other = [attention_by_hand(one, power) for one in others.tolist()]
    squares = [(a - b) ** 2 for one, two in zip(expected, other) for a, b in zip(one, two)]
    assert attention_distance(maps, others, power).item() == pytest.approx(sum(squares) / 24, rel=1e-12)


def test_maps_are_taken_where_the_last_of_each_resolution_come_out(tiny_net, image_set):
    images = image_set(2).storage
    net = tiny_net().eval()
    assert last_of_each_resolution(net, images) == ["norm1", "norm2"]
    assert not any(module._forward_hooks for module in net.modules())


def test_a_network_without_feature_maps_is_refused(make_task):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(72, 5)

        def forward_features(self, x):
            return self.hidden(x.flatten(1))

    with pytest.raises(UserError, match="feature maps"):
        last_of_each_resolution(Flat(), torch.zeros(2, 2, 6, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("convnext_tiny", 64), ("edgenext_xx_small", 64), ("swin_tiny_patch4_window7_224", 224), ("pvt_v2_b0", 64)],
)
def test_a_network_that_works_on_tokens_or_on_maps_with_the_channels_last_is_refused(name, size):
    network = timm.create_model(name, depths=(1, 1, 1, 1), num_classes=2)
    with pytest.raises(UserError, match="take a network of convolutions alone"):
        last_of_each_resolution(network, torch.zeros(2, 3, size, size))


def test_a_vision_transformer_is_refused():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, qk_norm=True)
    with pytest.raises(UserError, match="take a network of convolutions alone"):
        last_of_each_resolution(network, torch.zeros(2, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"), [("resnet18", (65, 47)), ("vgg11", (33, 35)), ("mobilenetv3_small_050", (50, 70))]
)
def test_maps_of_sides_that_do_not_halve_evenly_are_taken(name, shape):
    places = last_of_each_resolution(timm.create_model(name, num_classes=2).eval(), torch.zeros(2, 3, *shape))
    assert len(places) >= 5


@pytest.mark.parametrize("shape", [(64, 32), (33, 96), (32, 32)])
def test_maps_of_a_fixed_size_or_without_padding_are_taken(shape):
    layers = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 9, stride=2), nn.AdaptiveAvgPool2d(7)

    class Pooled(nn.Sequential):
        def forward_features(self, x):
            return self(x).flatten(1)

    assert last_of_each_resolution(Pooled(*layers), torch.zeros(2, 3, *shape)) == ["0", "1", "2"]


def test_maps_that_a_network_makes_of_vectors_are_taken():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.fold, self.conv = nn.Unflatten(1, (1, 6, 12)), nn.Conv2d(1, 2, 3)

        def forward_features(self, x):
            return self.conv(self.fold(x)).flatten(1)

    assert last_of_each_resolution(Folded(), torch.zeros(2, 72)) == ["fold", "conv"]


def fine_tuned_by_hand(model, task, epochs, generator, loss_of):
    """Train on the clean set in batches of 4, and return the model; `loss_of` takes images and labels."""
    sgd = WrittenOutSGD(model, 0.02, 3 * epochs)
    for _ in range(epochs):
        order = torch.randperm(CLEAN, generator=generator).tolist()
        for rows in (order[:4], order[4:8], order[8:]):
            sgd.minimise(loss_of(task.clean.storage[rows], task.clean.labels[rows]))
    return model


def test_nad_equals_a_hand_written_loop(make_task):
    task, generator = make_task(), torch.Generator().manual_seed(7)
    teacher, student = copy.deepcopy(task.model), copy.deepcopy(task.model)
    fine_tuned_by_hand(teacher, task, 2, generator, lambda x, y: F.cross_entropy(teacher(x), y)).eval()

    def maps(net, x):
        first = net.norm1(net.stem(x))
        return first, net.norm2(net.conv(first.relu()))

    def distilled(x, y):
        own, wanted = maps(student, x), maps(teacher, x)
        logits = student.head(own[1].relu().mean((2, 3)))
        loss = -sum(row[label] for row, label in zip(logits.log_softmax(1), y)) / len(y)
        for beta, a, b in zip((50.0, 100.0), own, wanted):
            a, b = (
                m.square().sum(1) / (m.square().sum(1).square().sum((1, 2)).sqrt()[:, None, None] + 1e-6)
                for m in (a, b)
            )
            loss = loss + beta * (a - b.detach()).square().mean()
        return loss

    fine_tuned_by_hand(student, task, 3, generator, distilled)
    task = make_task()
    settings = {"teacher_epochs": 2, "epochs": 3, "batch_size": 4, "lr": 0.02, "beta": 100.0}
    assert_same_state(make_method("nad", **settings).fine_tune(task), student)
    assert not any(module._forward_hooks for module in task.model.modules())
