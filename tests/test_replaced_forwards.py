"""Networks of which an attribute, not the class, is the forward pass: what identifies them, and which are refused."""

import types

import pytest
import torch
from torch import nn

from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory_backbones import Architecture, backbone_offer


def scaled_by(factor):
    def forward(net, x):
        return factor * nn.Linear.forward(net, x)

    return forward


@pytest.mark.parametrize("holder", ["0", ""])
def test_an_architecture_whose_forward_was_replaced_is_identified_by_that_and_not_by_its_weights(holder):
    def version(seed, factor):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        net.get_submodule(holder).forward = types.MethodType(scaled_by(factor), net[0])
        return backbone_offer(Architecture(net)).version

    assert version(0, 2) == version(1, 2) != version(0, 3)


def replaced(net, how):
    """Replace a network's forward by one that keeps a part of this network."""
    old, layer, weight = net.forward, net[0], net[0].weight
    net.forward = {
        "its method": lambda x: 2 * old(x),
        "a layer": lambda x: layer(x),
        "a weight, as default": lambda x, weight=weight: x @ weight,
        "in a function of a function": (lambda inner: lambda x: inner(x))(lambda x: layer(x)),
        "beside itself": types.MethodType(lambda self, x: layer(x), net),
    }[how]


@pytest.mark.parametrize(
    "how", ["its method", "a layer", "a weight, as default", "in a function of a function", "beside itself"]
)
def test_a_network_of_which_a_copy_would_use_the_first_one_s_parts_is_refused(how):
    net = nn.Sequential(nn.Linear(3, 3))
    replaced(net, how)
    with pytest.raises(UserError, match=r"function that the network holds keeps .*, which every copy"):
        backbone_offer(Architecture(net))
