"""The conformance kit on methods: a sound one passes, and each planted fault is found, with a remedy."""

import pytest
from helpers.kit import checks, in_this_process, source_of

REPEATS = "returns the same weights for the same seed"
ELSEWHERE = "returns the same weights in another process"
SEED = "draws by the experiment's seed"
SETS = "depends on no image outside its sets"
OWN = "returns a model of its own"
ORDER = "returns a model in working order"

FAULTS = {
    "torch's default dtype changed": (
        "torch.set_default_dtype(torch.float64)",
        "leaves the process as it was",
        "method planted changed torch's default dtype to torch.float64, which was put back (planted.py",
    ),
    "a function of torch replaced": (
        "nn.functional.relu = torch.sigmoid",
        "leaves the process as it was",
        "method planted changed torch.nn.functional.relu",
    ),
    "its weights are NaN": (
        "next(model.parameters()).data[0] = float('nan')",
        "returns finite weights",
        "method planted returned a model whose weight 'stem.weight' is not finite",
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
    "training images of no set": ("model.head.bias.data += task.clean.storage.float().mean()", SETS, "outside of the"),
    "test images by the data set": (
        "model.head.bias.data += task.clean.render.__self__.test.images.float().mean()",
        SETS,
        "weight 'head.bias' depends on images outside of the method's sets",
    ),
    "labels of no set": (
        "model.head.bias.data += task.clean.render.__self__.train.labels.float().dot(torch.arange(180.0))",
        SETS,
        "outside of the method's sets",
    ),
    "θ_C returned": ("model = task.pretrained", OWN, "returned task.pretrained itself"),
    "θ_C's weights lent": (
        "model.load_state_dict(task.pretrained.state_dict(), assign=True)",
        OWN,
        "'stem.weight' is task.pretrained's own tensor",
    ),
    "the order of a set": ("model.head.bias.data += hash('a') % 1009", ELSEWHERE, "is another in another process"),
    "a constant seed": ("torch.manual_seed(7)", SEED, "fine_tune seeds torch with 7, whatever the experiment's seed"),
    "a constant seed for a while": (
        "with torch.random.fork_rng():\n    torch.manual_seed(7)",
        SEED,
        "fine_tune seeds torch with 7",
    ),
    "images changed": ("task.clean.storage.add_(1)", "leaves the data as they were", "changed the images in place"),
    "labels changed": ("task.clean.labels.zero_()", "leaves the data as they were", "labels of the clean set"),
    "a hook left": (
        "model.act.register_forward_hook(lambda *_: None)",
        ORDER,
        "a model with forward_hooks of act",
    ),
    "a gradient hook left": ("model.head.weight.register_hook(lambda g: g)", ORDER, "gradient hook of head.weight"),
    "forward replaced": ("model.head.forward = lambda x: x[:, :10]", ORDER, "forward of head, which was replaced"),
    "another type": ("model.double()", ORDER, "is torch.float64, not torch.float32"),
    "stuck in eval mode": ("model.act.train = lambda mode=True: model.act", ORDER, "train of act, which was replaced"),
    "outputs of NaN": ("model.norm1.running_var.fill_(-1)", ORDER, "in eval mode the output is not finite"),
    "state outside the state_dict": (
        "model.act = nn.Tanh()",
        "returns a model that its state_dict describes in full",
        "a model whose outputs differ by up to",
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


@pytest.mark.slow
def test_a_sound_method_passes_every_check(tmp_path):
    body = "model.head.bias.data += torch.rand(1).item() + len(task.cued)  # torch's global generator is seeded"
    found = checks(tmp_path, "method", source_of("method", body, needs={"cued"}))
    assert len(found) > 15
    assert {name: check.message for name, check in found.items() if not check.passed} == {}
    unchecked = {name for name, check in found.items() if check.outcome == "not checked"}
    assert all("GPU" in name for name in unchecked)


@pytest.mark.slow
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


def test_a_constant_seed_is_found_by_any_name_of_manual_seed(tmp_path):
    source = "from torch.random import manual_seed\n" + source_of("method", "manual_seed(7)")
    assert "seeds torch with 7" in checks(tmp_path, "method", source, SEED)[SEED].message


def test_a_seed_that_follows_from_the_experiment_s_is_no_fault(tmp_path):
    check = checks(
        tmp_path, "method", source_of("method", "torch.manual_seed(task.generator.initial_seed() + 1)"), SEED
    )
    assert (check[SEED].outcome, check[SEED].message) == ("ok", "")


def test_a_method_that_draws_nothing_is_told_so(tmp_path):
    source = source_of("method", "model.load_state_dict(task.pretrained.state_dict())")
    check = checks(tmp_path, "method", source, SEED)[SEED]
    assert (check.outcome, check.message) == ("ok", "does not depend on the seed")


def test_declared_images_are_no_hidden_ones(tmp_path):
    source = source_of("method", "model.head.bias.data += task.cued.batch(slice(None))[0].mean()", needs={"cued"})
    assert checks(tmp_path, "method", source, SETS)[SETS].outcome == "ok"


def refusing(condition):
    """Return a method that refuses what a condition on one image `x` says, in a sentence."""
    lines = "from mmc_bench.errors import UserError\nx = task.clean.batch([0])[0][0]\n"
    return source_of("method", f"{lines}if {condition}: raise UserError('it is not made for this')")


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["x.ndim == 1", "x.ndim == 3"])
def test_a_refused_shape_is_not_checked_and_all_else_is(tmp_path, condition):
    found = checks(tmp_path, "method", refusing(condition), *in_this_process("method"))
    refused = {name for name, check in found.items() if "it is not made for this" in check.message}
    assert refused == {
        name for name in found if name.startswith("fine-tunes") and ("vectors" in name) == (condition[-1] == "1")
    }
    assert {found[name].outcome for name in refused} == {"not checked"}
    others = {check.outcome for name, check in found.items() if name not in refused and "GPU" not in name}
    assert others == {"ok"}


@pytest.mark.slow
def test_a_method_that_refuses_every_shape_fails(tmp_path):
    found = checks(tmp_path, "method", refusing("True"), *in_this_process("method"))
    failed = {name: check for name, check in found.items() if check.outcome == "failed"}
    assert set(failed) == {name for name in found if name.startswith("fine-tunes")}
    assert all("refuses every shape" in check.remedy for check in failed.values())


@pytest.mark.slow
def test_what_depends_on_a_model_is_not_checked_without_one(tmp_path):
    found = checks(tmp_path, "method", source_of("method", "raise RuntimeError('early')"))
    failed = {name for name, check in found.items() if check.outcome == "failed"}
    assert failed == {name for name in found if name.startswith("fine-tunes ")}
    assert found[REPEATS].outcome == "not checked"
