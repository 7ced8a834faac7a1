"""Apple's GPU, by a stand-in: it has no float64, lacks operations, and gets channels_last images wrong."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.pretended_gpu import NAME, pretended_gpu

from mmc_bench.data.stored import StoredImages
from mmc_bench.engines.worker import missing_on_device
from mmc_bench.errors import UserError
from mmc_bench.landscape.alignment import align
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.landscape.effects import effects
from mmc_bench.landscape.patterns import wasserstein_distance
from mmc_bench.results.metrics import Score
from mmc_bench.system import devices
from mmc_bench.training import evaluate
from mmc_bench.training.interface import check_backbone
from mmc_bench.training.memory import is_out_of_memory, sparing_memory
from mmc_bench.training.precision import resolve_precision


def test_the_stand_in_refuses_float64_mixed_devices_and_what_it_lacks():
    with pretended_gpu("aten.cumsum.default"):
        there = torch.ones(2, device=NAME)
        assert there.device.type == NAME and (there + 1).tolist() == [2.0, 2.0]
        with pytest.raises(TypeError, match="float64"):
            there.double()
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2)
        with pytest.raises(NotImplementedError, match="aten::cumsum"):
            there.cumsum(0)


def test_a_score_is_that_of_the_cpu(apple, tiny_net, image_set):
    net, images = tiny_net(dtype=torch.float32), image_set(23, dtype=torch.float32)
    here, there = evaluate(net, images), evaluate(net.to(NAME), apple(images))
    assert there.accuracy == here.accuracy and there.loss == pytest.approx(here.loss, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 4])
def test_batchnorm_statistics_are_those_of_the_cpu(apple, tiny_net, image_set, parts):
    net, images = tiny_net(dtype=torch.float32), image_set(24, dtype=torch.float32)
    other = copy.deepcopy(net).to(NAME)
    with sparing_memory(parts):
        reestimate_batchnorm(net, images, 12)
        reestimate_batchnorm(other, apple(images), 12)
    for here, there in zip(net.buffers(), other.buffers(), strict=True):
        assert torch.allclose(here, there.cpu(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["correlations-before-relu", "inner-products", "weights"])
def test_networks_are_aligned_as_on_the_cpu(apple, tiny_net, image_set, criterion):
    one, two, images = tiny_net(0, torch.float32), tiny_net(1, torch.float32), image_set(40, dtype=torch.float32)
    here = align(one, two, images, criterion=criterion)
    there = align(one.to(NAME), two.to(NAME), apple(images), criterion=criterion)
    assert there.verified
    for name, order in here.permutations.items():
        assert torch.equal(order, there.permutations[name].cpu())


def test_patterns_and_effects_are_those_of_the_cpu(apple):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(5, 7, generator=generator) > 0.5 for _ in range(2))
    assert wasserstein_distance(first.to(NAME), second.to(NAME)) == wasserstein_distance(first, second)
    score = dict.fromkeys(("NC", "C", "RC", "RI"), Score(accuracy=0.5, loss=1.0))
    of = [{name: torch.randint(3, (9,), generator=generator) for name in score} for _ in range(2)]
    there = [{name: classes.to(NAME) for name, classes in own.items()} for own in of]
    assert effects((score, score), there) == effects((score, score), of)


def test_networks_and_images_are_not_channels_last_there(apple, tiny_net, image_set):
    net = tiny_net(dtype=torch.float32).to(NAME)
    for x, _ in apple(image_set(5, dtype=torch.float32)).in_order():
        assert x.is_contiguous()
    check_backbone(net, 3, (2, 6, 6))  # the stand-in refuses channels_last images
    assert devices.image_layout(torch.device("cuda")) == torch.channels_last


def test_images_in_a_file_are_copied_there_before_their_memory_is_free(apple, tmp_path):
    pixels = torch.arange(3 * 2 * 2, dtype=torch.uint8).view(3, 2, 2, 1)  # (N, H, W, C)
    (tmp_path / "images").write_bytes(pixels.numpy().tobytes())
    stored, index = StoredImages(tmp_path / "images", (3, 1, 2, 2)), torch.tensor([2, 0])
    ahead = stored.read_ahead([index, index], torch.device(NAME))
    for images in (stored.rows(index.to(NAME)), *ahead):  # read by a thread, copied by this one
        assert images.device.type == NAME and torch.equal(images.cpu(), pixels[index].permute(0, 3, 1, 2))


def test_an_operation_that_is_missing_there_fails_with_one_sentence():
    with pretended_gpu("aten._standard_gamma.default"), pytest.raises(NotImplementedError) as caught:
        torch._standard_gamma(torch.ones(2, device=NAME))
    assert missing_on_device(caught.value) == (
        "torch has no aten::_standard_gamma on Apple's GPU: set PYTORCH_ENABLE_MPS_FALLBACK=1, which computes it on "
        "the CPU, or run with --device cpu"
    )
    assert missing_on_device(NotImplementedError("write this method")) is None


def test_float64_there_fails_with_one_sentence():
    with pretended_gpu(), pytest.raises(TypeError) as caught:
        torch.ones(2, device=NAME).double()
    sentence = "Apple's GPU has no float64: compute in float32 there, or run with --device cpu"
    assert missing_on_device(caught.value) == sentence


def test_its_precision_is_fp32():
    assert resolve_precision("auto", "mps") == resolve_precision("fp32", "mps") == "fp32"
    with pytest.raises(UserError, match="precision bf16: device mps computes in fp32 alone; use that, or auto"):
        resolve_precision("bf16", "mps")


def test_its_memory_that_ran_out_is_known_by_its_words():
    text = "MPS backend out of memory (MPS allocated: 17.85 GB, other allocations: 1.10 GB, max allowed: 18.13 GB)."
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.slow
def test_cells_are_trained_there(tmp_path):
    """A device that is registered late has no backward pass: the tests in this file run in a process of their own."""
    file = Path(__file__).with_name("helpers") / "apple_training.py"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    words = ("pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'own'}", file)
    result = subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
