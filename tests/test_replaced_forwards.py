"""Networks of which an attribute, not the class, is the forward pass: what identifies them, and which are refused."""

import copy
import importlib
import linecache
import sys
import types
from pathlib import Path

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


@pytest.fixture(params=["notebook", "script"])
def notebook(request, monkeypatch, tmp_path):
    """Return a function that runs code in the module of a notebook, which has no file, or of a script; and this."""
    module = types.ModuleType("__main__")
    if request.param == "script":
        module.__file__ = str(tmp_path / "script.py")
        Path(module.__file__).touch()
    monkeypatch.setitem(sys.modules, "__main__", module)

    def run(cell):
        name = f"<cell {id(run)} {len(linecache.cache)}>"
        linecache.cache[name] = len(cell), None, cell.splitlines(keepends=True), name
        exec(compile(cell, name, "exec"), vars(module))

    run("import functools, types\nimport torch\nfrom torch import nn\nclass Net(nn.Linear):\n    pass\n")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "def it(x):\n    return {} * x\n",
        "class it:\n    rate = {}\n",
        "class It:\n    pass\no = It()\no.rate = {}\ndef it():\n    return o\n",
        "rate = {}\ndef it(x):\n    return rate * x\n",
        "class Rate:\n    x = {}\nclass it:\n    rate = Rate\n    def f(self):\n        return rate\nrate = Rate()\n",
        "class Kind(type):\n    def f(self):\n        return {}\nclass it(metaclass=Kind):\n    pass\n",
        "def it(x, k=net[0].in_features):\n    return {} * k * x\n",
        "def it(x: type(net)):\n    return {} * x\n",
        "@(lambda n: lambda f: f)(net[0].in_features)\ndef it(x):\n    return {} * x\n",
        "a, b = (functools.wraps(len)(f) for f in (lambda x: x + 2, lambda x: x + 3))\nit = a if {} == 2 else b\n",
        "@torch.jit.script\ndef f(x):\n    return {} * x\ndef it(x):\n    return f(x)\n",
        "relu = torch.ops.aten.relu\ndef it(x):\n    return {} * relu(x)\n",
    ],
    ids=[
        *("function", "class", "object", "number", "class's function", "metaclass", "default", "annotation"),
        *("decorator", "renamed lambda", "script", "operator"),
    ],
)
@pytest.mark.parametrize("family", ["Net", "nn.Linear"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_what_a_notebook_sets_on_a_network_counts_with_its_content(notebook, family, code):
    run, module = notebook

    def version(number):
        run(f"net = nn.Sequential({family}(3, 3))\n")
        run(code.format(number))
        run("net.act = net[0]._act = it\n")
        return version_of(module.net)

    assert version(2) == version(2) != version(3)


def test_names_that_a_class_gives_a_value_itself_are_not_the_network(notebook):
    run, module = notebook
    run(
        "class Net(nn.Linear):\n    size = 3\n    double = 2 * size\n"
        "    @property\n    def model(self):\n        return 1\n"
        "    @model.setter\n    def model(self, value):\n        pass\nmodel = size = Net(3, 3)\n"
    )
    before = version_of(module.model)
    run("model = size = Net(3, 3)\n")
    assert version_of(module.model) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_what_torchscript_made_is_the_same_whatever_its_weights_are_and_where_it_cannot_be_saved(notebook):
    run, module = notebook
    run(
        "class Net(nn.Linear):\n    @torch.jit.ignore\n    def log(self, x: torch.Tensor) -> None:\n        print(x)\n"
        "    def forward(self, x):\n        self.log(x)\n        return x\n"
    )
    nets = [torch.jit.script(nn.Linear(3, 3)) for _ in range(4)]
    nets[1].half(), nets[2].train(False), nets[3].weight.requires_grad_(False)
    assert len({version_of(net) for net in nets}) == 1
    assert version_of(torch.jit.script(module.Net(3, 3))) == version_of(torch.jit.script(module.Net(3, 3)))


@pytest.mark.parametrize("name", ["rate", "_rate", "_flags"])
def test_plain_data_of_a_layer_count_whatever_their_name(name):
    def version(value):
        net = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3))
        setattr(net[0], name, value)
        return version_of(net)

    assert version(2) == version(2) != version(3)


class Hooked(nn.Linear):
    """A layer with a hook of its own, which keeps its handle."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self._handles = [self.register_forward_hook(print_nothing)]


def print_nothing(*given):
    """Do nothing in a hook."""


def normalised(*sizes):
    """Return a recurrent layer one of whose weights is computed from others."""
    return nn.utils.parametrizations.weight_norm(nn.LSTM(*sizes), "weight_hh_l0")


@pytest.mark.parametrize("made", [nn.LSTM, nn.GRU, nn.TransformerEncoderLayer, Hooked, normalised])
def test_a_copy_and_a_network_that_was_used_are_identified_as_the_first_one(made):
    net = nn.Sequential(made(4, 4))
    Hooked(1, 1)  # hooks are numbered
    before = version_of(net)
    net.compile(backend="eager")
    with torch.no_grad():
        nn.Sequential.forward(net, torch.ones(1, 2, 4))
        copied = copy.deepcopy(net)
        for weight in copied.parameters():
            weight.add_(1)
    assert version_of(net) == version_of(copied) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize(
    ("made", "where"),
    [
        *(
            (made, where)
            for made in ("script", "script of a layer")
            for where in ("number", "setting", "method", "text")
        ),
        *((made, where) for made in ("trace", "fx") for where in ("number", "setting")),
    ],
)
def test_the_code_of_a_compiled_network_counts(tmp_path, monkeypatch, made, where):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def version(factor):
        of = {place: factor if place == where else 1 for place in ("number", "setting", "method", "text")}
        lines = ("import torch", "from torch import nn", "class Net(nn.Module):", "    def __init__(self):")
        lines += (
            "        super().__init__()",
            "        self.fc = nn.Linear(3, 3)",
            f"        self.n = {of['setting']}",
        )
        lines += ("    def forward(self, x):",)
        lines += (f"        assert x.ndim == 2, 'a # {of['text']}'",) if "script" in made else ()
        lines += (f"        return self.fc(self.scaled(x)) * {of['number']}",)
        lines += ("    def scaled(self, x):", "        return self.n * x")
        lines += ("    @torch.jit.export", "    def more(self, x):", f"        return {of['method']} * x")
        (tmp_path / "compiled.py").write_text("\n".join(lines))
        sys.modules.pop("compiled", None)
        importlib.invalidate_caches()
        net, x = importlib.import_module("compiled").Net(), torch.zeros(1, 3)  # of other weights each time
        net = {
            "script": lambda: torch.jit.script(net),
            "trace": lambda: torch.jit.trace(net, x),
            "script of a layer": lambda: nn.Sequential(torch.jit.script(net)),
            "fx": lambda: torch.fx.symbolic_trace(net),
        }[made]()
        del sys.modules["compiled"]
        return version_of(net)

    assert version(2) == version(2) != version(3)


#: Code that replaces the forward pass of `net`, and keeps a part of it.
SHARING = {
    "its method": "old = net.forward\nnet.forward = lambda x: 2 * old(x)",
    "a layer": "layer = net[0]\nnet.forward = lambda x: layer(x)",
    "a list of layers that the network has, too": "net.parts = parts = [net[0]]\nnet.forward = lambda x: parts[0](x)",
    "a weight, as default": "net.forward = lambda x, weight=net[0].weight: x @ weight",
    "a weight's own method": "net.forward = net[0].weight.mul",
    "a weight without its gradient": "weight = net[0].weight.detach()\nnet.forward = lambda x: x @ weight",
    "a row of a weight": "row = net[0].weight[0]\nnet.forward = lambda x: x @ row",
    "the state": "state = net.state_dict()\nnet.forward = lambda x: x @ state['0.weight']",
    "in a function of a function": "net.forward = (lambda layer: lambda x: (lambda y: layer(y))(x))(net[0])",
    "beside itself": "layer = net[0]\nnet.forward = types.MethodType(lambda self, x: layer(x), net)",
    "under a private name": "layer = net[0]\nnet._forward = lambda x: layer(x)",
    "in a property": "layer = net[0]\nnet.parts = [property(lambda self: layer)]",
    "in a class": "class Parts:\n    layer = net[0]\nnet.parts = [Parts]",
    "in a class of an object": "class Parts:\n    layer = net[0]\nnet.parts = [Parts()]",
    "in an object of a class": "class Kept:\n    def __init__(self, part):\n        self.part = part\n"
    "class Parts:\n    kept = Kept(net[0])\n    def f(self):\n        return self.kept\nnet.parts = [Parts()]",
    "in a cache": "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(3, 3)\n"
    "        self.forward = functools.lru_cache(self.forward)\nnet = nn.Sequential(Net())",
    "in the network's own class": "class Net(nn.Sequential):\n    def forward(self, x):\n        return net[0](x)\n"
    "net = Net(nn.Linear(3, 3))",
    "in a list of its class": "class Net(nn.Sequential):\n    parts = []\nnet = Net(nn.Linear(3, 3))\n"
    "Net.parts.append(net)",
}


@pytest.mark.parametrize("how", SHARING)
def test_a_network_of_which_a_copy_would_use_the_first_one_s_parts_is_refused(notebook, how):
    run, module = notebook
    run("net = nn.Sequential(nn.Linear(3, 3))\n")
    run(SHARING[how] + "\n")
    with pytest.raises(
        UserError, match=r"code of the network keeps (its part 0|the network itself).*, which every copy would"
    ):
        version_of(module.net)


def test_functions_of_another_module_are_told_apart_by_their_code_and_may_keep_no_part(tmp_path, monkeypatch):
    code = "def make(k):\n    return {'a': lambda x: x + 1, 'b': lambda x: x * 2, 'c': lambda x: part(x)}[k]\n"
    (tmp_path / "a_helper.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = importlib.import_module("a_helper")

    def version(k):
        net = nn.Sequential(nn.Linear(3, 3))
        net.act, helper.part = helper.make(k), net[0]
        return version_of(net)

    assert version("a") == version("a") != version("b")
    with pytest.raises(UserError, match="code of the network keeps its part 0"):
        version("c")
    del sys.modules["a_helper"]


def test_a_network_whose_state_is_not_weights_alone_is_identified():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"calls": 1}

        def set_extra_state(self, state):
            pass

    assert version_of(nn.Sequential(Extra(3, 3), nn.Linear(3, 3))) != version_of(nn.Sequential(Extra(3, 3)))


@pytest.mark.parametrize("lazy", [nn.LazyLinear(2), nn.LazyBatchNorm1d(affine=False)])
def test_a_network_whose_weights_have_no_shapes_yet_is_refused(lazy):
    with pytest.raises(UserError, match="no shapes yet: call it once on images"):
        version_of(nn.Sequential(nn.Flatten(), lazy))
