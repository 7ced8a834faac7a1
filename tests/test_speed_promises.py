"""What makes it fast: no step waits for the device, images lie there once, compiled code is shared."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmc_bench.data.contract import SourceImages
from mmc_bench.data.micro_batches import cut_into
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import derive_experiment
from mmc_bench.landscape.paths import evaluate_path, linear_path
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings
from mmc_bench.system.torch_state import float32_precision, set_float32_precision
from mmc_bench.training import Progress, Task, Training, evaluate, full_precision
from mmc_bench.training.backbone import logits
from mmc_bench.training.compiled import WORTHWHILE_STEPS, _compiled, is_worth_compiling
from mmc_bench.training.precision import allow_tf32

# Operators whose result, or the size of it, the host must wait for.
WAITING = {
    *("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "bincount"),
    *("repeat_interleave", "_unique2"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
METHODS = (
    *("ft-medium", "llr", "lpft", "cbft", "cbft-no-barrier", "irm", "vrex"),
    *("dfr", "afr", "l2-sp", "mixup", "fine-pruning"),
    *("coral", "ft-sam", "groupdro", "jtt", "lisa"),
)
READING = ("tolist", "numpy", "cpu")  # methods of tensors that no operator stands for


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2].partition(".")[0]
        booleans = name in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or booleans:
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def registry():
    return Registry.discover()


@pytest.fixture
def waits(monkeypatch):
    """Return a counter of all that makes the host wait, in operators and in methods of tensors."""
    waits = Waits()
    for name in READING:
        read = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, name=name, read=read, **options):
            waits.seen[name] += 1
            return read(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return waits


def task_of(net, images):
    """Return the repair of a network; a third of the images is clean."""
    clean, cued = images.first(len(images) // 3), images.subset(slice(len(images) // 3, None))
    return Task(
        model=copy.deepcopy(net).train(),
        pretrained=copy.deepcopy(net).eval().requires_grad_(False),
        clean=clean,
        validation=clean.first(6),
        num_classes=3,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
        progress=Progress(),
        needs=frozenset({"cued", "environments", "fully-cued"}),
        _cued=cued,
        _environments=torch.ones(len(cued), dtype=torch.int64),
        _fully_cued=cued,
    )


def short(registry, name, batch_size, epochs):
    """Return a method with these parameters, as far as it has them."""
    offer = registry.get("method", name)
    wanted = {"batch_size": batch_size, "epochs": epochs}
    known = offer.load().Config.model_fields
    return offer.make(offer.configure({key: value for key, value in wanted.items() if key in known}))


def waits_of(waits, method, net, images):
    """Return what a method's fine-tuning waits for, with a fixed number of epochs."""
    task = task_of(net, images)
    waits.seen.clear()
    with waits:
        method.fine_tune(task)
    return Counter(waits.seen)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x.clone().__setitem__(x > 1, torch.zeros(2)),
        lambda x: torch.arange(4).repeat_interleave(torch.arange(4)),
    ],
)
def test_the_counter_of_waits_sees_them(waits, read):
    with waits:
        read(torch.arange(4.0))
    assert waits.seen.total() >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_no_training_step_waits_for_the_device(registry, tiny_net, image_set, waits, name):
    method = short(registry, name, batch_size=4, epochs=3)
    seen = [waits_of(waits, method, tiny_net(0, torch.float32), image_set(3 * n, dtype=torch.float32)) for n in (8, 32)]
    assert seen[0] == seen[1]  # four times the steps, the same number of epochs


@pytest.mark.parametrize("name", ["digits-box", "cifar100-box-color", "dominoes"])
def test_drawing_cues_does_not_wait_for_the_device(registry, waits, name):
    dataset, batches = loaded(registry, name), 4
    data = derive_experiment(dataset, SMALL, 0.5, 0)
    with waits:
        drawn = sum(len(y) for _, y in data.pretraining.shuffled(25, torch.Generator().manual_seed(0)))
    assert (drawn, waits.seen.total()) == (25 * batches, 0)


SMALL = DataSettings(pretrain_images=100, clean_images=20, validation_images=20)


class RandomImages:
    """An image source of random 32x32 pixels in any of the known formats."""

    def load(self, name):
        classes = 100 if name == "cifar100" else 10
        if name == "digits":
            return Sources().load(name)
        generator = torch.Generator().manual_seed(0)

        def part(n):
            size = (n, 28, 28, 1) if name == "fashion-mnist" else (n, 32, 32, 3)
            pixels = torch.randint(256, size, generator=generator, dtype=torch.uint8)
            return SourceImages(pixels.permute(0, 3, 1, 2), torch.arange(n) % classes)

        return part(300), part(200)


def loaded(registry, name):
    offer = registry.get("dataset", name)
    dataset = offer.make(offer.configure({}))
    dataset.load(RandomImages())
    return dataset


def test_the_training_images_lie_in_memory_once(registry):
    dataset = loaded(registry, "cifar10-box")
    data = derive_experiment(dataset, SMALL, 0.5, 0)
    parts = (data.pretraining, data.pretraining_nc, data.clean, data.validation)
    of_test = tuple(data.splits.values())
    assert {part.storage.data_ptr() for part in parts} == {dataset.train.images.data_ptr()}
    assert [part.held for part in parts] == [None] * 4
    storages = {}
    assert {part.storage.data_ptr() for part in of_test} == {dataset.test.images.data_ptr()}
    for part in (*parts, *of_test, *data.train_splits.values()):
        for tensor in (part.storage, part.index, part.labels, part.cues):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    assert sum(storages.values()) <= 1.5 * (dataset.train.images.numel() + dataset.test.images.numel())


def test_a_path_renders_no_test_image_again(registry, tiny_net):
    dataset = loaded(registry, "digits-box")
    calls = Counter()
    render = dataset.render

    def counted(images, cue):
        calls["images"] += len(images)
        return render(images, cue)

    dataset.render = counted
    data = derive_experiment(dataset, SMALL, 0.5, 0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    ends = {name: evaluate(net, split) for name, split in data.rendered.items()}
    rendered = calls["images"]
    assert rendered >= 3 * 500  # images without a cue are as they are
    evaluate_path(linear_path(net, net), net, data.rendered, data.pretraining_nc, 5, (ends, ends))
    assert calls["images"] == rendered


def test_rendered_images_are_those_that_a_batch_would_draw(registry):
    data = derive_experiment(loaded(registry, "dominoes"), SMALL, 0.5, 0)
    rows = torch.tensor([3, 1, 17])
    fresh, held = data.pretraining, data.pretraining.rendered()
    for part in (slice(5, 9), rows):
        assert torch.equal(fresh.batch(part)[0], held.batch(part)[0])
        assert torch.equal(fresh.batch(part)[1], held.batch(part)[1])
    assert torch.equal(held.first(7).batch(slice(None))[0], fresh.first(7).batch(slice(None))[0])


def test_full_precision_turns_off_autocast_and_all_tf32_and_puts_both_back():
    before = float32_precision()
    allow_tf32(True)
    allowed = float32_precision()
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_precision("cpu"):
                assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
                assert "tf32" not in float32_precision().values()
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert float32_precision() == allowed
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    finally:
        set_float32_precision(before)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the older switches alone")
@pytest.mark.parametrize("switch", [torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)])
def test_a_plugin_may_use_the_newer_switches_for_tf32(switch):
    before = float32_precision()
    try:
        switch.fp32_precision = "ieee" if switch.fp32_precision == "tf32" else "tf32"
        chosen = float32_precision()
        with full_precision("cpu"):
            assert not torch.backends.cudnn.allow_tf32 and "tf32" not in float32_precision().values()
        assert float32_precision() == chosen
    finally:
        set_float32_precision(before)


def test_only_a_long_training_on_a_gpu_with_memory_to_spare_is_compiled():
    assert not is_worth_compiling("cpu", 10 * WORTHWHILE_STEPS)
    assert not is_worth_compiling("cuda", WORTHWHILE_STEPS - 1)
    assert is_worth_compiling("cuda", WORTHWHILE_STEPS)
    with cut_into(2):
        assert not is_worth_compiling("cuda", WORTHWHILE_STEPS)


@pytest.fixture
def traced_forward(monkeypatch):
    """Return the compiled function without TorchInductor, whose C++ takes ten seconds to compile."""

    def without_inductor(function, mode, dynamic):
        return compile_in_torch(function, backend="aot_eager", dynamic=dynamic)

    compile_in_torch = torch.compile
    monkeypatch.setattr(torch, "compile", without_inductor)
    return _compiled.__wrapped__(logits, deterministic=False)


@pytest.mark.slow
def test_models_of_one_architecture_share_compiled_code_and_train_as_they_would_without(
    tiny_net, image_set, traced_forward
):
    from torch._dynamo.utils import counters

    counters.clear()
    images = image_set(12)
    x, y = images.batch(slice(None))
    for seed in range(3):
        ours, plain = tiny_net(seed).train(), tiny_net(seed).train()
        outputs = traced_forward(ours, x)
        assert torch.allclose(outputs, plain(x), rtol=1e-9, atol=1e-12)
        for model, result in ((ours, outputs), (plain, plain(x))):
            model.zero_grad()
            nn.functional.cross_entropy(result, y).backward()
        for mine, theirs in zip(ours.parameters(), plain.parameters()):
            assert torch.allclose(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Let every training take the compiled path, and note what runs there: a step's begin, or images in a batch."""
    seen = []

    def noted(forward):
        def run(model, x):
            seen.append(len(x))
            return forward(model, x)

        return run

    monkeypatch.setattr("mmc_bench.training.training.compiled", noted)
    monkeypatch.setattr("mmc_bench.training.training.is_worth_compiling", lambda device, steps: True)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: seen.append("step"))
    return seen


def test_a_last_smaller_batch_goes_round_the_compiled_code(tiny_net, image_set, pretended_gpu):
    generator = torch.Generator().manual_seed(0)
    Training(tiny_net(), image_set(11), lr=0.1, epochs=2, batch_size=4, generator=generator, progress=Progress()).fit()
    assert pretended_gpu == ["step", 4] * 4


# Of each step, in this order: the sizes of the batches that compiled code runs on; a batch has four images.
COMPILED = {
    **dict.fromkeys(("ft-medium", "l2-sp", "mixup", "fine-pruning", "ft-sam"), ((4,), (4,))),
    **dict.fromkeys(("irm", "vrex", "coral", "groupdro", "jtt", "lisa"), ((8,), (8,))),
    "cbft": ((4,), (4, 4)),  # the second epoch compares features
    "lpft": ((4,), (4,)) * 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_methods_run_compiled_code_and_give_the_same_weights(registry, tiny_net, image_set, pretended_gpu, name):
    method, net = short(registry, name, batch_size=4, epochs=2), tiny_net(0, torch.float32)
    images = image_set(24, dtype=torch.float32)
    torch.manual_seed(0)
    model = method.fine_tune(task_of(net, images))
    expected = [word for sizes in COMPILED[name] for word in ["step", *sizes] * 2]
    assert pretended_gpu == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmc_bench.training.training.is_worth_compiling", lambda device, steps: False)
        torch.manual_seed(0)
        other = method.fine_tune(task_of(net, images))
    assert pretended_gpu == expected
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
