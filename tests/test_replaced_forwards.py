"""Networks of which an attribute, not the class, is the forward pass: what identifies them, and which are refused."""

import linecache
import sys
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


def version_of(net):
    return backbone_offer(Architecture(net)).version


@pytest.mark.parametrize("holder", ["0", ""])
def test_an_architecture_whose_forward_was_replaced_is_identified_by_that_and_not_by_its_weights(holder):
    def version(seed, factor):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        net.get_submodule(holder).forward = types.MethodType(scaled_by(factor), net[0])
        return version_of(net)

    assert version(0, 2) == version(1, 2) != version(0, 3)


@pytest.fixture
def notebook(monkeypatch):
    """Return a function that runs a cell in a notebook's module, which has no file, and the module."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)

    def run(cell):
        name = f"<cell {id(run)} {len(linecache.cache)}>"
        linecache.cache[name] = len(cell), None, cell.splitlines(keepends=True), name
        exec(compile(cell, name, "exec"), vars(module))

    run("import functools, types\nfrom torch import nn\nclass Net(nn.Linear):\n    pass\n")
    return run, module


@pytest.mark.parametrize("family", ["Net", "nn.Linear"])
@pytest.mark.parametrize(
    "value",
    [
        "lambda x: x {}",
        "[lambda x: x {}]",
        "functools.partial(lambda x: x {})",
        "types.MethodType(lambda self, x: x {}, net)",
        "lambda x: x + rate",
    ],
)
def test_a_lambda_on_the_line_that_makes_the_network_counts(notebook, family, value):
    run, module = notebook

    def version(number, more):
        run(f"rate = {number}\n")
        run(f"net = {family}(3, 3); net.act = {value.format(more)}\n")
        return version_of(module.net)

    assert version(1, "+ 1") == version(1, "+ 1") != version(2, "+ 2")


@pytest.mark.parametrize(
    "code",
    [
        "def it(x):\n    return {} * x\n",
        "class it:\n    rate = {}\n",
        "class It:\n    pass\no = It()\no.rate = {}\ndef it():\n    return o\n",
        "rate = {}\ndef it(x):\n    return rate * x\n",
    ],
    ids=["function", "class", "object", "number"],
)
@pytest.mark.parametrize("family", ["Net", "nn.Linear"])
def test_what_a_notebook_sets_on_a_network_counts_with_its_content(notebook, family, code):
    run, module = notebook

    def version(number):
        run(code.format(number))
        run(f"net = {family}(3, 3)\nnet.act = it\n")
        return version_of(module.net)

    assert version(2) == version(2) != version(3)


def replaced(net, how):
    """Replace a network's forward by one that keeps a part of this network."""
    old, layer, weight, layers = net.forward, net[0], net[0].weight, [net[0]]
    net.layers = layers
    net.forward = {
        "its method": lambda x: 2 * old(x),
        "a layer": lambda x: layer(x),
        "a list of layers that the network has, too": lambda x: layers[0](x),
        "a weight, as default": lambda x, weight=weight: x @ weight,
        "a weight's own method": weight.mul,
        "in a function of a function": (lambda inner: lambda x: inner(x))(lambda x: layer(x)),
        "beside itself": types.MethodType(lambda self, x: layer(x), net),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "its method",
        "a layer",
        "a list of layers that the network has, too",
        "a weight, as default",
        "a weight's own method",
        "in a function of a function",
        "beside itself",
    ],
)
def test_a_network_of_which_a_copy_would_use_the_first_one_s_parts_is_refused(how):
    net = nn.Sequential(nn.Linear(3, 3))
    replaced(net, how)
    with pytest.raises(UserError, match=r"function that the network holds keeps .*, which every copy"):
        version_of(net)


@pytest.mark.parametrize("lazy", [nn.LazyLinear(2), nn.LazyBatchNorm1d(affine=False)])
def test_a_network_whose_weights_have_no_shapes_yet_is_refused(lazy):
    with pytest.raises(UserError, match="no shapes yet: call it once on images"):
        version_of(nn.Sequential(nn.Flatten(), lazy))
