"""When memory runs out: the same update in less of it, tried again by the worker, and recorded."""

import copy
import errno
import json
import os
import re
import sys
import tempfile
import weakref

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmc_bench.data.micro_batches import cut_into
from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.codec import read_record
from mmc_bench.results.store import Store
from mmc_bench.training import Progress, Task, Training, cross_entropy, memory
from mmc_bench.training.memory import (
    Outside,
    backward_in_parts,
    couples_images,
    free_frames,
    is_out_of_memory,
    sparing_memory,
)

TINY_SUITE = """
datasets: [tiny-set]
backbones: [deep-net, deep-norm-net]
methods: [tiny-ft]
seeds: [0]
cue_rates: [0.9]
threads: 1
pretrain: {epochs: 2, batch_size: 60, lr: 0.05}
connect: {points: 3}
"""

# Freed tensors go back to the system at once, so that the limit counts what is in use.
LITTLE = {"HUNGRY_MEGABYTES": "70", "MALLOC_MMAP_THRESHOLD_": "1000000"}

WHOLE = ("ft-medium", "cbft", "irm", "ft-sam", "coral", "lisa", "fine-pruning", "lpft")


class Apart(nn.Module):
    """Two layers; each image has its own outputs."""

    def __init__(self, between=None):
        super().__init__()
        self.first, self.between, self.last = nn.Linear(72, 8), between or nn.Identity(), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.between(self.first(x.flatten(1)).tanh()))


class FromMean(nn.Module):
    """Couples images in a way that no gradient shows."""

    def forward(self, x):
        return x - x.mean(0).detach()


class Counter(nn.Module):
    """Notes how often it ran."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, x):
        self.passes += 1
        return x


@pytest.fixture
def everything_leaves(monkeypatch):
    """Let small tensors leave memory, too."""
    monkeypatch.setattr(memory, "SMALL", 0)


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


# --- micro-batches


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_micro_batches_give_the_gradient_of_the_whole_batch(image_set, parts):
    torch.manual_seed(0)
    model, (x, y) = Apart().double(), image_set(11).batch(slice(None))
    logits = model(x)
    loss = cross_entropy(logits, y)
    loss.backward()
    whole = gradients(model)
    model.zero_grad()
    in_parts = backward_in_parts(model, x, y, parts)
    torch.testing.assert_close(in_parts, (loss.detach(), logits.detach()), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(model), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("between", "coupled"),
    [
        (nn.Identity, False),
        (lambda: nn.LayerNorm(8), False),
        (lambda: nn.BatchNorm1d(8), True),
        (lambda: nn.BatchNorm1d(8, track_running_stats=False), True),
        (lambda: nn.Dropout(0.01), True),
        (FromMean, True),
        (Counter, True),
    ],
)
def test_networks_that_couple_a_batch_are_told_from_those_that_do_not(image_set, between, coupled):
    model, (x, _) = Apart(between()).double().eval(), image_set(8).batch(slice(None))
    before, chance = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert couples_images(model, x) == coupled
    assert torch.equal(torch.get_rng_state(), chance)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not model.training


def trained(make, images, parts):
    """Return a network after two epochs of `fit`, and the sizes of what it was run on."""
    torch.manual_seed(0)
    model, sizes, told = make(), [], []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if module is model else None)
    progress = Progress(lambda event: told.append(event["loss"]))
    generator = torch.Generator().manual_seed(0)
    with sparing_memory(parts):
        training = Training(model, images, lr=0.1, epochs=2, batch_size=6, generator=generator, progress=progress)
        training.fit(lambda *means: told.extend(map(float, means)))
    return model.state_dict(), told, sizes


def test_a_fit_takes_the_same_steps_in_micro_batches(image_set):
    images = image_set(15)
    whole, parts = (trained(lambda: Apart().double(), images, parts) for parts in (1, 4))
    torch.testing.assert_close(parts[:2], whole[:2], rtol=1e-10, atol=1e-10)
    assert (whole[2], parts[2]) == ([6, 6, 3] * 2, [2, 2, 2, 2, 2, 2, 1, 1, 1] * 2)


def test_a_fit_leaves_whole_the_batches_of_a_network_with_batchnorm(image_set, tiny_net, everything_leaves):
    images = image_set(15)
    whole, parts = (trained(tiny_net, images, parts) for parts in (1, 4))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


# --- what backward passes need, kept elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_methods_give_the_same_model_to_the_bit(name, image_set, tiny_net, everything_leaves):
    images, net = image_set(24, dtype=torch.float32), tiny_net(0, torch.float32)
    assert fine_tuned(name, net, images, 4) == fine_tuned(name, net, images, 1)


def fine_tuned(name, net, images, parts):
    """Return the bytes of every weight after a method's fine-tuning on a third of the images."""
    offer = Registry.discover().get("method", name)
    known = offer.load().Config.model_fields
    short = {name: value for name, value in {"batch_size": 4, "epochs": 2}.items() if name in known}
    method = offer.make(offer.configure(short))
    clean = images.first(8)
    task = Task(
        model=copy.deepcopy(net).train(),
        pretrained=copy.deepcopy(net).eval().requires_grad_(False),
        clean=clean,
        validation=clean.first(6),
        num_classes=3,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
        progress=Progress(),
        needs=frozenset({"cued", "environments", "fully-cued"}),
        _cued=images.subset(slice(8, None)),
        _environments=torch.ones(len(images) - 8, dtype=torch.int64),
        _fully_cued=images.subset(slice(8, None)),
    )
    torch.manual_seed(0)
    with sparing_memory(parts):
        model = method.fine_tune(task)
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(3, 4, 5),
        lambda: torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
        lambda: torch.randn(8, 5).T,
        lambda: torch.randn(9, 8)[2:7],
        lambda: torch.randn(9, 8)[:, ::3],
        lambda: torch.randn(1, 4).expand(3, 4),
        lambda: torch.randn(12).bfloat16(),
        lambda: torch.rand(7) > 0.5,
        lambda: torch.arange(6),
        lambda: torch.tensor(2.5),
        lambda: torch.empty(0, 3),
    ],
)
def test_a_tensor_comes_back_from_the_file_as_it_was(make, everything_leaves):
    tensor = make()
    with tempfile.TemporaryFile() as file:
        outside = Outside(file)
        earlier, kept = outside.pack(torch.randn(50)), outside.pack(tensor)
        later = outside.pack(torch.randn(50))
        back = kept()
        del earlier, later
    assert back.data_ptr() != tensor.data_ptr() or not tensor.numel()
    torch.testing.assert_close(back, tensor, rtol=0, atol=0)
    if torch.empty_like(tensor).stride() == tensor.stride():
        assert back.stride() == tensor.stride()


def test_weights_and_small_tensors_stay_in_memory():
    with tempfile.TemporaryFile() as file:
        for tensor in (nn.Parameter(torch.zeros(memory.SMALL)), torch.zeros(memory.SMALL // 4 - 1)):
            assert Outside(file).pack(tensor)().data_ptr() == tensor.data_ptr()
        assert file.seek(0, os.SEEK_END) == 0


def test_the_file_grows_no_longer_than_one_step(tiny_net, image_set, everything_leaves):
    model, (x, y) = tiny_net().train(), image_set(9).batch(slice(None))
    sizes = []
    with tempfile.TemporaryFile() as file, saved_tensors_hooks(Outside(file).pack, lambda kept: kept()):
        for _ in range(4):
            cross_entropy(model(x), y).backward()
            sizes.append(file.seek(0, os.SEEK_END))
    assert sizes[0] > x.nbytes and set(sizes) == {sizes[0]}


def test_sets_are_scored_and_matched_in_smaller_batches(image_set):
    images = image_set(230)
    with cut_into(4):
        assert [len(y) for _, y in images.in_order()] == [25] * 9 + [5]
        assert [len(y) for _, y in images.in_order(100)] == [100, 100, 30]  # BatchNorm statistics depend on this
    assert [len(y) for _, y in images.in_order()] == [100, 100, 30]


# --- what the worker does


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_tell_of_memory_are_known(error, expected):
    assert is_out_of_memory(error) == expected
    try:
        try:
            raise error
        except type(error):
            raise UserError("the images cannot be read")  # noqa: B904  # what many plugins do
    except UserError as later:
        assert is_out_of_memory(later) == expected


def test_the_allocator_s_own_error_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_what_the_functions_of_an_error_held_is_freed_though_somebody_kept_it():
    held = []

    def work(error=None):
        big = torch.zeros(10)
        held.append(weakref.ref(big))
        raise MemoryError from error

    try:
        try:
            work()
        except MemoryError as error:
            work(error)
    except MemoryError as error:
        kept = error
        free_frames(error)
    assert is_out_of_memory(kept) and [reference() for reference in held] == [None, None]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits address space")
def test_where_memory_is_too_small_a_run_ends_with_the_models_it_would_have_made(bench):
    """A batch's layers together take 94 MB, each of them 4."""
    words = ["run", "--suite", "tiny.yaml", "--keep-weights", "--precision", "fp32", "--json"]
    bench.folder.joinpath("tiny.yaml").write_text(TINY_SUITE)
    roomy = bench(*words, "--workers", 0, "--results", "roomy")
    assert roomy.code == 0, roomy.err
    narrow = bench.apart(*words, "--workers", 0, "--results", "narrow", env=LITTLE)
    assert narrow.code == 0, narrow.err
    assert narrow.err.count("memory ran out; it is tried again in 2 micro-batches") == 2
    assert narrow.err.count("for want of memory in ") == 2
    for record in (bench.folder / "narrow" / "pretrained").glob("*.json"):
        content = json.loads(record.read_text())
        assert content["provenance"]["micro_batches"] > 1
        there, here = (
            load_file(Store(bench.folder / results).weights_file(read_record(record).pretraining))
            for results in ("narrow", "roomy")
        )
        whole = content["pretraining"]["backbone"]["name"] == "deep-norm-net"
        torch.testing.assert_close(there, here, rtol=0 if whole else 1e-4, atol=0 if whole else 1e-6)


@pytest.mark.slow
def test_out_of_memory_for_good_is_one_cell_s_failure_and_says_what_was_tried(bench):
    result = bench.tiny("--seeds", 0, "--methods", "hungry,tiny-ft", "--json")
    content = json.loads(result.out)
    assert (result.code, content["computed"], content["failed"]) == (1, 1, 1)
    error = content["failures"][0]["error"]
    assert error.startswith("out of memory, even with batches in 16 parts (")
    assert "you tried to allocate 1125899906842624 bytes" in error
    assert error.endswith("): use fewer workers, a smaller backbone or a smaller batch_size")


@pytest.mark.slow
def test_a_job_is_tried_in_ever_more_parts_and_its_like_at_once_in_as_many(bench):
    done = bench.tiny("--methods", "hungry", "--set", "hungry.parts=4")
    assert done.code == 0, done.err
    assert re.findall(r"hungry in (\d+)", done.err) == ["1", "2", "4", "4"]
    assert done.err.count("for want of memory in 4 micro-batches") == 2
    records = [json.loads(path.read_text()) for path in (bench.folder / "results" / "cells").glob("*.json")]
    assert [record["provenance"]["micro_batches"] for record in records] == [4, 4]


@pytest.mark.slow
def test_what_fails_after_memory_ran_out_says_so(bench):
    words = ["--methods", "hungry", "--set", "hungry.parts=2", "--set", "hungry.then_raise=true"]
    failed = bench.tiny("--seeds", 0, *words)
    assert failed.code == 1
    assert "ZeroDivisionError: planted (hungry.py, line" in failed.err
    assert ") (after memory had run out, with batches in 2 parts)" in failed.err
