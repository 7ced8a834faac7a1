"""Backbones whose parts do not fit together are refused when they are built, and trying them changes nothing."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from helpers.kit import source_of
from helpers.plugins import write_source

from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.testing.tiny_data import SQUARE, TinyNet
from mmc_bench.training.interface import check_backbone, check_strides
from mmc_bench.training.memory import is_out_of_memory


def net(**members):
    return type("Net", (TinyNet,), members)(10, (3, 32, 32))


def tried(model):
    check_backbone(model, SQUARE.num_classes, SQUARE.input_shape)


def plain(self, x):
    return TinyNet.forward(self, x)


MISFITS = {
    "a tuple in training mode": (lambda s, x: (x, x) if s.training else plain(s, x), "in training mode .* is a tuple"),
    "a tuple in eval mode": (lambda s, x: plain(s, x) if s.training else (x, x), "in eval mode the output is a tuple"),
    "too many classes": (lambda s, x: plain(s, x).repeat(1, 2), r"has shape \(2, 20\), not \(2, 10\)"),
    "labels": (lambda s, x: plain(s, x).long(), "the output is not finite"),
    "NaN": (lambda s, x: plain(s, x) * float("nan"), "the output is not finite"),
    "an error": (lambda s, x: s.missing, r"does not run on two inputs of shape \(3, 32, 32\): AttributeError"),
    "other logits": (lambda s, x: 2 * plain(s, x), r"forward_head\(forward_features\(x\)\) is not forward"),
}


@pytest.mark.parametrize(("forward", "says"), MISFITS.values(), ids=MISFITS)
def test_a_network_whose_forward_is_not_its_halves_is_refused(forward, says):
    with pytest.raises(UserError, match=says):
        tried(net(forward=forward))


def test_so_are_two_classifiers_and_features_that_are_not_pooled():
    with pytest.raises(UserError, match=r"get_classifier\(\) gives a tuple"):
        tried(net(get_classifier=lambda self: (self.head, self.head)))
    with pytest.raises(UserError, match=r"pre_logits=True gives shape \(2, 8, 8, 8\)"):
        tried(net(forward_head=lambda self, x, pre_logits=False: x if pre_logits else self.head(x.mean((2, 3)))))


def test_trying_a_network_moves_neither_generators_nor_statistics():
    def forward(self, x):
        return plain(self, x + 0 * (torch.rand(1) + random.random() + np.random.rand()).float())

    model = net(forward=forward)
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    tried(model)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_distilled_transformer_is_refused_before_it_is_trained():
    offer = Registry.discover().get("backbone", "timm/deit_tiny_distilled_patch16_224")
    model = offer.make(offer.configure({}), num_classes=10, input_shape=(3, 32, 32))
    with pytest.raises(UserError, match=r"get_classifier\(\) gives a tuple: return the last"):
        tried(model)


@pytest.mark.slow
def test_a_run_names_the_backbone_whose_parts_do_not_fit_and_trains_nothing(bench, tmp_path):
    forward = "def forward(self, x):\n    return (x, x) if self.training else super().forward(x)"
    file = write_source(tmp_path, "planted.py", source_of("backbone", forward))
    words = ("--seeds", 0, "--methods", "tiny-ft", "--backbones", "planted", "--plugins-dir", str(file), "--json")
    result = bench.tiny(*words)
    errors = [failure["error"] for failure in json.loads(result.out)["failures"]]
    says = "backbone planted cannot be trained: in training mode the output is a tuple: return logits (n, K)"
    assert set(errors) == {says, f"its pretraining failed: {says}"}


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")]
)
def test_memory_that_runs_out_is_known_as_such_whatever_raises_it(error):
    def forward(self, x):
        raise error

    with pytest.raises(UserError) as caught:
        tried(net(forward=forward))
    assert is_out_of_memory(caught.value)


def test_strides_over_maps_of_one_pixel_are_refused():
    network = TinyNet(10, (3, 32, 32))
    network.conv = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
    check_strides(network, (3, 8, 8))  # the stem makes 2x2 of it
    with pytest.raises(UserError, match="its convolution conv strides over feature maps of one pixel"):
        check_strides(network, (3, 4, 4))
    assert network.training and not network.conv._forward_pre_hooks
