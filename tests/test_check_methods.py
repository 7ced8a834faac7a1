"""The conformance kit on methods: a sound one passes, and each planted fault is found, with a remedy."""

import pytest
from kit_for_tests import checks, source_of

REPEATS = "returns the same weights for the same seed"
ORDER = "returns a model in working order"

FAULTS = {
    "its weights are NaN": (
        "next(model.parameters()).data[0] = float('nan')",
        "returns finite weights",
        "'stem.weight' of the returned model is not finite",
    ),
    "another architecture": (
        "model.head = nn.Linear(8, 3)",
        "returns a model of the same architecture",
        "'head.weight' has shape (3, 8), the pretrained model's (10, 8)",
    ),
    "no model at all": ("return None", "returns a model of the same architecture", "returned NoneType, not a model"),
    "its own error": ("1 / 0", "fine-tunes 10 classes of 3x32x32", "ZeroDivisionError: division by zero (planted.py"),
    "vectors are beyond it": (
        "assert task.clean.batch([0])[0].ndim == 4, 'images only'",
        "fine-tunes 2 classes of vectors of 128",
        "AssertionError: images only (planted.py",
    ),
    "undeclared data": (
        "task.cued",
        "asks only for data that it declares",
        'task.cued: declare needs={"cued"} in its spec',
    ),
    "undeclared environments": (
        "task.environments",
        "asks only for data that it declares",
        'needs={"cued", "environments"}',
    ),
    "undeclared data by a private name": ("len(task._cued)", "fine-tunes 10 classes of 3x32x32", "TypeError"),
    "θ_C's weights changed": (
        "task.pretrained.head.bias.data += 1",
        "leaves the pretrained model as it was",
        "fine_tune changed 'head.bias' of task.pretrained",
    ),
    "θ_C's statistics changed": (
        "task.pretrained.train()(task.clean.batch(slice(8))[0])",
        "leaves the pretrained model as it was",
        "fine_tune changed 'norm1.running_mean' of task.pretrained",
    ),
    "θ_C made trainable": (
        "task.pretrained.requires_grad_(True)",
        "leaves the pretrained model as it was",
        "made task.pretrained trainable",
    ),
    "images changed": ("task.clean.storage.add_(1)", "leaves the data as they were", "changed the images in place"),
    "labels changed": ("task.clean.labels.zero_()", "leaves the data as they were", "labels of the clean set"),
    "a hook left": (
        "model.act.register_forward_hook(lambda *_: None)",
        ORDER,
        "the returned model has forward_hooks of act",
    ),
    "a gradient hook left": ("model.head.weight.register_hook(lambda g: g)", ORDER, "gradient hook of head.weight"),
    "forward replaced": ("model.head.forward = lambda x: x[:, :10]", ORDER, "forward of head, which was replaced"),
    "another type": ("model.double()", ORDER, "is torch.float64 on cpu, not torch.float32 on cpu"),
    "stuck in eval mode": ("model.act.train = lambda mode=True: model.act", ORDER, "stays out of"),
    "outputs of NaN": ("model.norm1.running_var.fill_(-1)", ORDER, "in eval mode the output is not finite"),
    "state outside the state_dict": (
        "model.act = nn.Tanh()",
        "returns a model that its state_dict describes in full",
        "reloaded from its state_dict, the model's outputs differ",
    ),
    "float64 under autocast": (
        "if torch.is_autocast_enabled('cpu'): model(task.clean.batch(slice(8))[0]) @ torch.ones(10, 1)\n"
        "if torch.is_autocast_enabled('cpu'): raise RuntimeError('bfloat16 is beyond it')",
        "runs in bfloat16 on the CPU",
        "RuntimeError: bfloat16 is beyond it",
    ),
}

UNSEEDED = {
    "Python's generator": ("model.head.bias.data += random.random()", "Python's or NumPy's global generator"),
    "NumPy's generator": ("model.head.bias.data += numpy.random.rand()", "Python's or NumPy's global generator"),
    "a generator without a seed": ("model.head.bias.data += numpy.random.default_rng().random()", "two runs with one"),
    "something kept": (
        "Planted.runs = getattr(Planted, 'runs', 0) + 1\nmodel.head.bias.data += Planted.runs",
        "two runs with one seed differ in weight 'head.bias'",
    ),
}


def test_a_sound_method_passes_every_check(tmp_path):
    body = "model.head.bias.data += torch.rand(1).item() + len(task.cued)  # torch's global generator is seeded"
    found = checks(tmp_path, "method", source_of("method", body, needs={"cued"}))
    assert len(found) > 15
    assert {name: check.message for name, check in found.items() if not check.passed} == {}
    unchecked = {name for name, check in found.items() if check.outcome == "not checked"}
    assert all("GPU" in name for name in unchecked)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_told_how_to_mend(tmp_path, fault):
    body, name, says = FAULTS[fault]
    check = checks(tmp_path, "method", source_of("method", body), name)[name]
    assert check.outcome == "failed"
    assert says in check.message
    assert len(check.remedy) > 10


@pytest.mark.parametrize("fault", UNSEEDED)
def test_randomness_that_no_seed_governs_is_found(tmp_path, fault):
    body, says = UNSEEDED[fault]
    check = checks(tmp_path, "method", source_of("method", body), REPEATS)[REPEATS]
    assert check.outcome == "failed"
    assert says in check.message


def test_a_draw_in_the_constructor_is_found(tmp_path):
    source = source_of("method", "model.head.bias.data += self.offset").replace(
        "    def fine_tune(self, task):",
        "    def __init__(self, config):\n        import torch\n        self.offset = torch.rand(1).item()\n\n"
        "    def fine_tune(self, task):",
    )
    check = checks(tmp_path, "method", source, REPEATS)[REPEATS]
    assert check.outcome == "failed" and "a draw in __init__" in check.message


def test_what_depends_on_a_model_is_not_checked_without_one(tmp_path):
    found = checks(tmp_path, "method", source_of("method", "raise RuntimeError('early')"))
    failed = {name for name, check in found.items() if check.outcome == "failed"}
    assert failed == {name for name in found if name.startswith("fine-tunes ")}
    assert found[REPEATS].outcome == "not checked"
