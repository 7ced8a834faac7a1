"""Which modules of a network are the stages that probes read the cue from."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.mechanisms.attribution import saliencies
from mmc_bench.mechanisms.stages import stage_features, stages_of
from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Backbone
from mmc_bench.training.adapted import with_interface

CLASSES = 3


def images(size=32):
    rows = torch.arange(4)
    pixels = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    return CuedImages(pixels, rows, rows % CLASSES, rows, lambda x, cue: x)


class Net(Backbone):
    """Modules one after the other, and a linear layer on the means of what they put out."""

    def __init__(self, **modules):
        super().__init__()
        torch.manual_seed(0)
        self.num_classes, self.num_features = CLASSES, 4
        self.body, self.head = nn.ModuleDict(modules), nn.Linear(4, CLASSES)

    def forward_features(self, x):
        for module in self.body.values():
            x = module(x)
        return x

    def forward_head(self, x, pre_logits=False):
        x = x.flatten(2).mean(2)
        return x if pre_logits else self.head(x)


class Block(nn.Module):
    """A branch, and a shortcut that passes it by."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


class Halves(nn.Module):
    """A convolution, and the product of the halves of its channels, (n, C, H·W)."""

    def __init__(self):
        super().__init__()
        self.conv, self.own = nn.Conv2d(4, 8, 3, padding=1), nn.Identity()

    def forward(self, x):
        first, second = self.conv(x).chunk(2, 1)
        return (self.own(first) * second).flatten(2)


class ChannelsLast(nn.Module):
    """A linear layer on maps (n, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Pair(nn.Module):
    """Puts out two tensors."""

    def forward(self, x):
        return x, x.relu()


class Second(nn.Module):
    """The second of a pair."""

    def __init__(self):
        super().__init__()
        self.pair = Pair()

    def forward(self, x):
        return self.pair(x)[1]


@pytest.mark.parametrize(
    ("block", "names"), [(BasicBlock, ["relu", "layer1.1"]), (Bottleneck, ["relu", "layer1.1", "layer2.0"])]
)
def test_a_stage_of_a_resnet_ends_after_its_last_addition(block, names):
    torch.manual_seed(0)
    model = with_interface(torchvision.models.ResNet(block, [2, 1, 1, 1], num_classes=CLASSES), CLASSES, (3, 32, 32))
    stages = stages_of(model, images(64))
    assert stages[: len(names)] == names and stages[-1] == "layer4.0" and len(stages) == 5


def test_what_a_shortcut_alone_carries_is_in_a_stage_s_features():
    block = Block(nn.Conv2d(3, 3, 3, padding=1))
    nn.init.zeros_(block.branch.weight)
    model = Net(block=block, out=nn.Conv2d(3, 4, 2, stride=2))
    assert stages_of(model, images()) == ["body.block", "body.out"]
    found = stage_features(model, images(), ["body.block"])["body.block"].unflatten(1, (3, 4, 4))
    expected = F.avg_pool2d(images().storage, 8) + block.branch.bias[:, None, None]
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_module_that_sees_one_half_of_the_channels_is_no_stage():
    net = Net(stem=nn.Conv2d(3, 4, 2, stride=2), halves=Halves())
    assert stages_of(net, images()) == ["body.halves.conv"]


def test_a_network_may_change_its_input_in_place():
    net = Net(relu=nn.ReLU(inplace=True), conv=nn.Conv2d(3, 4, 2, stride=2))
    assert stages_of(net, images()) == ["body.relu", "body.conv"]
    x, _ = images().batch(slice(0, 2))
    before = x.clone()
    assert saliencies(net, x).abs().sum() > 0 and torch.equal(x, before)


def test_a_module_that_runs_twice_is_no_stage():
    relu = nn.ReLU()
    net = Net(stem=nn.Conv2d(3, 4, 1), first=relu, conv=nn.Conv2d(4, 4, 2, stride=2), second=relu)
    assert stages_of(net, images()) == ["body.stem", "body.conv"]


def test_maps_with_the_channels_last_are_no_stages_and_others_of_their_network_are():
    net = Net(stem=nn.Conv2d(3, 4, 2, stride=2), block=Block(ChannelsLast()), last=ChannelsLast())
    assert stages_of(net, images()) == ["body.last"]


@pytest.mark.parametrize(("width", "stages"), [(16, ["features.0.0"]), (8, [])])
def test_maps_of_as_many_channels_as_pixels_tell_no_layout(width, stages):
    """Where the channels come last, maps of 8x8 pixels and 8 channels look like others."""
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer([4, 4], width, [1, 1], [1, 1], [4, 4], num_classes=CLASSES)
    assert stages_of(with_interface(swin, CLASSES, (3, 32, 32)), images()) == stages


def test_modules_that_timm_lists_are_stages_as_far_as_they_put_out_a_tensor():
    net = Net(stem=nn.Conv2d(3, 4, 1), pair=Second(), pool=nn.MaxPool2d(2))
    net.unused = nn.ModuleList([nn.ReLU()])
    net.feature_info = [{"module": name} for name in ("unused", "body.stem", "body.pair.pair", "missing")]
    assert stages_of(net, images()) == ["body.stem"]
    net.feature_info = [{"module": "unused"}]
    assert stages_of(net, images()) == ["body.pair", "body.pool"]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet8", ["act1", "layer1", "layer2", "layer3"]),
        ("vgg13", ["layers.2", "layers.8", "layers.14", "layers.20", "layers.29"]),
        ("two-layer", []),
    ],
)
def test_built_in_networks_have_the_stages_that_records_name(name, stages):
    offer = Registry.discover().get("backbone", name)
    network = offer.make(offer.configure({}), num_classes=CLASSES, input_shape=(3, 32, 32))
    assert stages_of(network, images()) == stages
