"""What a method returns: wrappers are taken off, what its weights do not say is named, and its weights are scored."""

import copy

import pytest
import torch
from helpers.kit import source_of
from helpers.plugins import registry_of, write_source

from mmc_bench.testing.backbones import images_of
from mmc_bench.testing.runs import MethodSubject
from mmc_bench.testing.tiny_data import SQUARE, tiny_network
from mmc_bench.training.returned import accepted


@pytest.fixture(autouse=True)
def compiler_as_it_was():
    """Put back what a method of these tests sets in torch's compiler, which other tests use, too."""
    with torch._dynamo.config.patch(suppress_errors=False):
        yield


# What comes before `return model`; the weights of `model` are trained by then.
FIT = {
    "torch.compile": "torch._dynamo.config.suppress_errors = True\nmodel = torch.compile(model, backend='eager')",
    "torch.compile in place": "model.compile(backend='eager')",
    "DataParallel": "model = nn.DataParallel(model)",
    "AveragedModel": "model = torch.optim.swa_utils.AveragedModel(model)",
    "several wrappers": "model = torch.optim.swa_utils.AveragedModel(nn.DataParallel(model))",
    "training mode": "model.train()",
    "mixed modes": "model.train(); model.norm1.eval()",
    "frozen": "model.requires_grad_(False)",
    "frozen in part": "model.stem.requires_grad_(False)",
    "a copy": "model = copy.deepcopy(model)",
    "another memory format": "model = model.to(memory_format=torch.contiguous_format)",
    "gradients left": "model(task.clean.batch(slice(4))[0]).sum().backward()",
    "pruned for good": (
        "from torch.nn.utils import prune\nprune.l1_unstructured(model.head, 'weight', 0.5); "
        "prune.remove(model.head, 'weight')"
    ),
    "weight_norm taken off": (
        "torch.nn.utils.parametrizations.weight_norm(model.head)\n"
        "torch.nn.utils.parametrize.remove_parametrizations(model.head, 'weight')"
    ),
    "a hook taken off": "model.act.register_forward_hook(lambda *_: None).remove()",
}

UNFIT = {
    "None": ("return None", "NoneType, not a model: end fine_tune with"),
    "a state_dict": ("return model.state_dict()", "OrderedDict, not a model"),
    "a class": ("return nn.Identity", "type, not a model"),
    "half": ("model.half()", "is torch.float16, not torch.float32"),
    "bf16": ("model.bfloat16()", "is torch.bfloat16, not torch.float32"),
    "double": ("model.double()", "is torch.float64, not torch.float32"),
    "half in part": ("model.head.half()", "'head.weight' is torch.float16"),
    "on the meta device": ("model.to('meta')", "has no values"),
    "a lazy layer": ("model.head = nn.LazyLinear(10)", "'head.weight' has no values"),
    "old weight_norm": ("torch.nn.utils.weight_norm(model.head)", "layer 'head' is under weight_norm: call torch.nn"),
    "weight_norm": ("torch.nn.utils.parametrizations.weight_norm(model.head)", "layer 'head' is parametrised: call"),
    "old spectral_norm": ("torch.nn.utils.spectral_norm(model.head)", "layer 'head' is under spectral_norm: call"),
    "spectral_norm": ("torch.nn.utils.parametrizations.spectral_norm(model.head)", "layer 'head' is parametrised"),
    "pruned": (
        "from torch.nn.utils import prune\nprune.l1_unstructured(model.head, 'weight', 0.5)",
        "layer 'head' is pruned by a mask: call torch.nn.utils.prune.remove",
    ),
    "quantised": (
        "model.qconfig = None\nmodel = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})",
        "layer 'head' is quantised: return the model in float32",
    ),
    "a compiled part": ("model.head = torch.compile(model.head, backend='eager')", "part 'head' is compiled"),
    "a wrapper of one's own": (
        "class Shell(nn.Module):\n    def __init__(self, inner):\n        super().__init__()\n"
        "        self.inner = inner\nmodel = Shell(model)",
        "the model within a Shell: return its inner",
    ),
    "wider": ("model.head = nn.Linear(8, 12)", "'head.weight' has shape (12, 8), the pretrained model's (10, 8)"),
    "an extra buffer": ("model.register_buffer('seen', torch.zeros(1))", "a weight 'seen' of its own"),
    "a missing buffer": ("model.norm1.running_mean = None", "without the weight 'norm1.running_mean'"),
    "NaN": ("model.head.bias.data[0] = float('nan')", "'head.bias' is not finite"),
    "a forward hook": ("model.head.register_forward_hook(lambda m, i, o: -o)", "with forward_hooks of head"),
    "a pre-hook": ("model.head.register_forward_pre_hook(lambda m, i: None)", "with forward_pre_hooks of head"),
    "a backward hook": ("model.head.register_full_backward_hook(lambda *_: None)", "with backward_hooks of head"),
    "a forward of its own": ("model.forward = lambda x: torch.zeros(len(x), 10)", "forward of the model, which was"),
    "features of its own": (
        "model.forward_features = lambda x: torch.zeros(len(x), 8, 1, 1)",
        "forward_features of the model, which was replaced",
    ),
    "a subclass": (
        "class Other(type(model)):\n    def forward(self, x):\n        return -super().forward(x)\n"
        "model.__class__ = Other",
        "outputs differ by up to",
    ),
    "another activation": ("model.act = nn.Tanh()", "outputs differ by up to"),
    "another epsilon": (
        "model.load_state_dict(task.pretrained.state_dict()); model.norm1.eps = 100.0",
        "outputs differ by up to",
    ),
    "a forward that fails": (
        "class Other(type(model)):\n    def forward(self, x):\n        raise ValueError('no')\nmodel.__class__ = Other",
        "a model that does not run (ValueError: no)",
    ),
    "θ_C itself": ("model = task.pretrained", "task.pretrained itself"),
}


def run_of(folder, body):
    registry = registry_of(write_source(folder, "planted.py", source_of("method", body)))
    return MethodSubject(registry.get("method", "planted"), registry).first


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights of a method that returns its model as it is."""
    return run_of(tmp_path_factory.mktemp("plain"), "").trained.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("body", FIT.values(), ids=FIT)
def test_what_leaves_the_weights_as_they_are_changes_nothing(tmp_path, plain, body):
    run = run_of(tmp_path, body)
    assert run.error is None
    found = run.trained.state_dict()
    assert found.keys() == plain.keys() and type(run.trained).__name__ == "TinyNet"
    same = {name for name in found if torch.allclose(found[name].float(), plain[name].float(), atol=1e-6)}
    changed = {"head.weight"} if "prune" in body else set()
    changed |= {name for name in found if (name.startswith("norm") and "running" in name) or "tracked" in name}
    assert found.keys() - same <= changed
    assert not run.trained.training and not any(weight.requires_grad for weight in run.trained.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("body", "says"), UNFIT.values(), ids=UNFIT)
@pytest.mark.filterwarnings("ignore")
def test_what_its_weights_do_not_say_is_refused_in_one_sentence(tmp_path, body, says):
    error = str(run_of(tmp_path, body).error)
    assert error.startswith("method planted returned ") and says in error and "\n" not in error


def test_the_scored_model_is_the_core_s_own_and_none_of_the_method_s(tmp_path):
    run = run_of(tmp_path, "")
    theirs = {value.data_ptr() for value in run.task.model.state_dict().values()}
    assert theirs.isdisjoint(value.data_ptr() for value in run.trained.state_dict().values())


def test_judging_a_model_moves_no_generator_and_no_statistics():
    start = tiny_network(SQUARE, torch.device("cpu"))
    returned = copy.deepcopy(start).train()
    generator = torch.get_rng_state()
    fresh = accepted(returned, start, copy.deepcopy(start), images_of(SQUARE))
    assert torch.equal(torch.get_rng_state(), generator)
    assert returned.training and returned.norm1.training
    for model in (returned, fresh):
        assert all(torch.equal(value, start.state_dict()[name]) for name, value in model.state_dict().items())
