"""Networks from a notebook or script: as a class, as a function, or as a trained network itself."""

import copy
import functools
import importlib
import sys

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import mmc_bench
from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import pickled, unpickled
from mmc_bench.plugin.in_memory_backbones import Architecture, backbone_offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.store import Store
from mmc_bench.results.weights import decoded_weights
from mmc_bench.stages.checkpoints import architecture_of
from mmc_bench.training.adapted import with_interface
from mmc_bench.training.interface import check_backbone

SHAPE = (3, 16, 16)
QUICKLY = {"workers": 0, "progress": False, "datasets": "digits-box", "seeds": [0], "precision": "fp32"}
SMALL = {"pretrain.epochs": 1, "connect.points": 2, "data.clean_images": 100, "data.test_images": 100}


class MyNet(nn.Module):
    """A convolution and a linear layer, which has no interface but `forward`."""

    def __init__(self, num_classes, width: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=4)
        self.norm = nn.BatchNorm2d(width)
        self.shift = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, num_classes)

    def pooled(self, x):
        return F.relu(self.norm(self.stem(x))).mean((2, 3)) + self.shift

    def forward(self, x):
        return self.out(self.pooled(x))


class ForTen(MyNet):
    def __init__(self):
        super().__init__(10)


class Forwarding(MyNet):
    def __init__(self, **options):
        super().__init__(**options)


class OwnFeatures(MyNet):
    """A part of timm's interface is the class's own, as in many vision transformers."""

    def forward_features(self, x):
        return self.pooled(x)

    def forward(self, x):
        return self.out(self.forward_features(x))


def sequential(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * 256, 8), nn.ReLU(), nn.Linear(8, num_classes))


class Resnet10(torchvision.models.ResNet):
    def __init__(self, num_classes):
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


def made(given, num_classes=10):
    """Return the network that a worker makes of what was given in Python."""
    registry = Registry([])
    registry.add(backbone_offer(given))
    (offer,) = unpickled(pickled(registry))
    return offer.make(offer.configure({}), num_classes=num_classes, input_shape=SHAPE)


# --- timm's interface


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [MyNet, ForTen, Forwarding, OwnFeatures, sequential, functools.partial(MyNet, width=6), Resnet10],
    ids=lambda given: getattr(given, "__name__", "partial"),
)
def test_what_a_network_lacks_of_the_interface_is_added(given):
    model = made(given)
    names, x = [*model.state_dict()], torch.randn(4, *SHAPE)
    before = copy.deepcopy(model).eval()(x)
    adapted = with_interface(model, 10, SHAPE).eval()
    check_backbone(adapted, 10, SHAPE)
    assert adapted is model and [*adapted.state_dict()] == names and torch.equal(adapted(x), before)
    other = copy.deepcopy(adapted)
    features = other.forward_head(other.forward_features(x), pre_logits=True)
    assert features.ndim == 2 and torch.equal(other.get_classifier()(features), before)
    other.reset_classifier(3)
    assert other(x).shape == (4, 3) and other.num_classes == 3 and adapted(x).shape == (4, 10)


def test_features_are_what_the_last_linear_layer_sees():
    model = with_interface(MyNet(10), 10, SHAPE).eval()
    x = torch.randn(4, *SHAPE)
    assert torch.equal(model.forward_features(x), model.pooled(x))


def test_a_network_with_the_interface_is_left_as_it_is(tiny_net):
    model = tiny_net()
    assert with_interface(model, 3, (2, 6, 6)) is model and type(model).__mro__[1] is nn.Module


class Logs(MyNet):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


class Tuples(MyNet):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Logs(10), r"its output is that of no linear layer: a network must return logits \(n, K\)"),
        (nn.Sequential(nn.Conv2d(3, 10, 16), nn.Flatten()), "its output is that of no linear layer"),
        (Tuples(10), r"its output is a tuple: a network must return logits \(n, K\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 10)), r"does not run on two inputs of shape \(3, 16, 16\)"),
    ],
)
def test_what_cannot_be_adapted_is_said_in_one_sentence(model, sentence):
    with pytest.raises(UserError, match=sentence):
        with_interface(model, 10, SHAPE)


# --- identity


@pytest.fixture
def net_of(tmp_path, monkeypatch):
    """Return a maker of a module's `Net` from a source in which one text is replaced by another."""
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from torch import nn\nRATE = 0.1\nclass Net(nn.Sequential):\n    def __init__(self, num_classes=3):\n"
    source += "        super().__init__(nn.Flatten(), nn.Dropout(RATE), nn.Linear(4, num_classes))\n"
    names = []

    def make(old="", new=""):
        names.append(f"own_net_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(source.replace(old, new) if old else source)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1]).Net

    yield make
    for name in names:
        sys.modules.pop(name)


@pytest.mark.slow
def test_another_source_is_another_version(net_of):
    net, same, other = net_of(), net_of(), net_of("0.1", "0.2")
    for wrap in (lambda family: family, lambda family: Architecture(family())):
        versions = [backbone_offer(wrap(family)).version for family in (net, same, other)]
        assert versions[0] == versions[1] != versions[2]


def test_an_architecture_of_a_class_without_source_is_identified_by_its_code():
    def version(factor):
        code = f"class Net(nn.Linear):\n    def forward(self, x):\n        return {factor} * super().forward(x)\n"
        names = {"nn": nn, "__name__": "nowhere"}
        exec(code, names)
        return backbone_offer(Architecture(names["Net"](3, 3))).version

    assert version(2) == version(2) != version(3)


@pytest.mark.parametrize("held", ["step", "{'a': step}", "functools.partial(step)"])
def test_an_architecture_is_identified_by_the_code_that_its_layers_keep(net_of, held):
    init = "        super().__init__(nn.Flatten(), nn.Dropout(RATE), nn.Linear(4, num_classes))\n"
    step = f"{init}        self.act = {held}\nimport functools\ndef step():\n    return "
    versions = [backbone_offer(Architecture(net_of(init, f"{step}{number}\n")())).version for number in (1, 1, 2)]
    assert versions[0] == versions[1] != versions[2]


def test_an_architecture_that_names_what_has_no_identity_is_refused(net_of):
    end = "num_classes))\n"
    lock = "    def forward(self, x):\n        return LOCK\nimport threading\nLOCK = threading.Lock()\n"
    net = net_of(end, end + lock)
    with pytest.raises(UserError, match="'LOCK' has no identity"):
        backbone_offer(Architecture(net()))


@pytest.mark.slow
def test_an_architecture_is_identified_by_its_layers_and_not_by_its_weights():
    versions = [
        backbone_offer(Architecture(network)).version
        for network in (
            *(torchvision.models.resnet18(num_classes=10) for _ in range(2)),
            torchvision.models.resnet18(num_classes=9),
            nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 3)),
            nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 3)),
        )
    ]
    assert versions[0] == versions[1] and len(set(versions)) == 4


def test_a_network_of_an_architecture_has_none_of_its_trained_weights():
    trained = MyNet(10)
    for weight in trained.parameters():
        nn.init.normal_(weight, 5, 2).requires_grad_(False)
    architecture = architecture_of(trained)
    torch.manual_seed(0)
    first, second = architecture(10), architecture(10)
    for name, weight in first.named_parameters():
        assert weight.requires_grad and not torch.equal(weight, trained.get_parameter(name))
        assert "norm" in name or not torch.equal(weight, second.get_parameter(name))


class Taken(MyNet):
    name = "resnet8"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (MyNet(3), "MyNet object in backbones: give its class, or the network as checkpoint"),
        (3, "3 is no backbone"),
        (lambda num_classes: MyNet(num_classes), "a lambda in backbones has no name: define a function"),
        (Taken, "backbone 'resnet8' is offered by mmc-bench already: give class Taken another name"),
    ],
)
def test_what_is_no_backbone_is_refused(tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        mmc_bench.dry_run(backbones=[given], results=tmp_path)


# --- runs


@pytest.fixture(scope="module")
def trained():
    """Return torchvision's ResNet-18, trained for two steps of a plain loop."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    images = F.interpolate(torch.from_numpy(digits.images).float()[:64, None] / 8 - 1, size=32).repeat(1, 3, 1, 1)
    model = torchvision.models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for rows in torch.arange(64).split(32):
        loss = F.cross_entropy(model(images[rows]), torch.from_numpy(digits.target)[rows])
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return model


@pytest.mark.slow
def test_a_trained_network_itself_is_scored_repaired_and_connected(trained, tmp_path):
    weights = copy.deepcopy(trained.state_dict())

    def run(*methods, **options):
        results = mmc_bench.run(
            checkpoint={"mine": trained},
            methods=methods,
            set={**SMALL, "ft-medium.epochs": 1},
            results=tmp_path,
            **{**QUICKLY, **options},
        )
        assert not results.failures
        return results

    here = run("ft-medium")
    (before,) = here.pretrained
    kept = decoded_weights(Store(tmp_path).weights_file(before.pretraining).read_bytes()).tensors
    assert kept.keys() == weights.keys() and all(torch.equal(kept[name], weights[name]) for name in weights)
    assert all(torch.equal(value, weights[name]) for name, value in trained.state_dict().items())
    elsewhere = run("llr", "ft-medium", workers=2)
    assert (elsewhere.summary.computed, elsewhere.summary.cached) == (1, 1)  # it has the same identity there
    assert all("linear" in cell.paths for cell in elsewhere.cells)
    frame = elsewhere.to_frame()
    assert set(frame["backbone"]) == {"res-net (mine)"} and sorted(frame["method"]) == ["ft-medium", "llr"]


@pytest.mark.slow
def test_its_file_fits_the_same_architecture_of_another_library(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "mine.pt")
    options = {"backbones": "timm/resnet18", "set": {**SMALL, "timm/resnet18.cifar_stem": False}, "methods": ["llr"]}
    preview = mmc_bench.dry_run(
        checkpoint=tmp_path / "mine.pt", datasets="digits-box", seeds=0, results=tmp_path, **options
    )
    assert list(preview.to_frame()["state"]) == ["to run", "to run"]


@pytest.mark.slow
def test_classes_and_functions_run_as_plugins_do(tmp_path):
    results = mmc_bench.run(
        backbones=[MyNet, sequential],
        methods=["llr", "from-scratch"],
        set={**SMALL, "my-net.width": 3, "from-scratch.epochs": 1},
        results=tmp_path,
        **QUICKLY,
    )
    assert not results.failures and set(results.to_frame()["backbone"]) == {"my-net", "sequential"}
    parameters = {record.pretraining.backbone.name: record.pretraining.backbone for record in results.pretrained}
    assert parameters["my-net"].parameters == {"width": 3} and parameters["my-net"].distribution == "in-memory"


@pytest.mark.slow
def test_a_task_may_be_of_a_network_of_one_s_own(tmp_path):
    options = {"set": SMALL, "results": tmp_path, "progress": False, "precision": "fp32"}
    task = mmc_bench.task("digits-box", MyNet, **options)
    assert type(task.model).__name__ == "MyNet" and len(mmc_bench.score(task.model, task)) == 6
    own = MyNet(10)
    task = mmc_bench.task("digits-box", checkpoint=own, **options)
    assert torch.equal(task.pretrained.stem.weight.cpu(), own.stem.weight)
    assert mmc_bench.score(own, task).equals(mmc_bench.score(task.pretrained, task))


@pytest.mark.slow
@pytest.mark.parametrize("make", [MyNet, lambda classes: timm.create_model("test_resnet", num_classes=classes)])
def test_a_pretraining_begins_with_a_network_of_other_classes(tmp_path, make):
    network, said = make(7), []
    results = mmc_bench.run(
        start={"mine": network},
        methods=["llr"],
        set={"pretrain.epochs": 1, "pretrain.lr": 1e-12, "pretrain.weight_decay": 0, "connect.points": 2},
        results=tmp_path,
        **{**QUICKLY, "progress": said.append},
    )
    assert not results.failures
    (before,) = results.pretrained
    kept = decoded_weights(Store(tmp_path).weights_file(before.pretraining).read_bytes()).tensors
    others = [name for name, weight in network.named_parameters() if kept[name].shape != weight.shape]
    assert len(others) == 2 and all(len(kept[name]) == 10 for name in others)
    same = [(kept[name], weight) for name, weight in network.named_parameters() if name not in others]
    assert all(torch.allclose(value, weight, atol=1e-6) for value, weight in same)
    assert sum("mine has 7 classes, the dataset 10: its last layer is new" in line for line in said) == 1


class Raising(nn.Module):
    def __init__(self, num_classes):
        raise ValueError("planted")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"checkpoint": MyNet(7)}, "MyNet has 7 classes, the dataset 10: --start-from"),
        ({"checkpoint": Logs(10)}, "backbone logs cannot be trained: its output is that of no linear layer"),
        ({"checkpoint": MyNet(7).state_dict(), "backbones": MyNet}, "weights has 7 classes, the dataset 10"),
        ({"checkpoint": MyNet(10).state_dict(), "backbones": sequential}, "weights does not fit sequential"),
        ({"backbones": Raising}, r"backbone 'raising' .*: ValueError: planted \(test_own_networks.py, line \d+\)"),
        ({"checkpoint": MyNet(10), "start": MyNet(10)}, "a checkpoint takes the place of a pretraining"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        mmc_bench.run(methods=["llr"], results=tmp_path, **{**QUICKLY, **options})
    assert not [*tmp_path.rglob("*.json")]


def test_a_weight_that_is_not_finite_is_said_before_anything_runs(tmp_path):
    broken = MyNet(10)
    broken.stem.bias.data[0] = float("nan")
    with pytest.raises(UserError, match=r"MyNet: its weight 'stem\.bias' is not finite everywhere"):
        mmc_bench.run(checkpoint=broken, methods=["llr"], results=tmp_path, **QUICKLY)
