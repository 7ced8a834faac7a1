"""The two-layer networks: against their formulas, timm's interface, and tracing."""

import pytest
import torch
from torch import nn

from mmc_bench import UserError
from mmc_bench.plugin.registry import Registry

REGISTRY = Registry.discover()
NAMES = ("two-layer", "two-layer-mean")


def make(name, num_classes=2, input_shape=(128,), seed=0, **parameters):
    torch.manual_seed(seed)
    offer = REGISTRY.get("backbone", name)
    return offer.make(offer.configure(parameters), num_classes=num_classes, input_shape=input_shape)


def test_the_default_has_512_neurons_with_biases_and_a_trained_read_out():
    model = make("two-layer")
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.requires_grad}
    assert shapes == {
        "hidden.weight": (512, 128),
        "hidden.bias": (512,),
        "head.weight": (2, 512),
        "head.bias": (2,),
    }


def test_it_computes_linear_relu_linear():
    model, x = make("two-layer", num_classes=3, hidden=7).double(), torch.randn(5, 128, dtype=torch.float64)
    logits = model(x)
    for row in range(5):
        neurons = [
            max(0.0, sum(w * v for w, v in zip(weights, x[row].tolist())) + bias)
            for weights, bias in zip(model.hidden.weight.tolist(), model.hidden.bias.tolist())
        ]
        for k in range(3):
            expected = sum(w * h for w, h in zip(model.head.weight[k].tolist(), neurons)) + model.head.bias[k].item()
            assert logits[row, k].item() == pytest.approx(expected, abs=1e-12)


def test_the_literal_one_is_the_mean_of_its_neurons_and_trains_nothing_else():
    model, x = make("two-layer-mean", hidden=9), torch.randn(6, 128)
    f = torch.stack([(model.hidden.weight @ sample).clamp(min=0).mean() for sample in x])
    assert torch.allclose(model(x), torch.stack([torch.full((6,), 0.5), f], dim=1), atol=1e-6)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == ["hidden.weight"]


def test_the_literal_one_is_convex_in_its_input():
    model = make("two-layer-mean").double()
    a, b = torch.randn(2, 200, 128, dtype=torch.float64)
    between = model((a + b) / 2)[:, 1]
    chord = (model(a)[:, 1] + model(b)[:, 1]) / 2
    assert (between <= chord + 1e-12).all() and (between < chord - 1e-6).any()


def test_the_literal_one_refuses_more_classes_than_two():
    with pytest.raises(UserError, match="tells two classes apart, not 10"):
        make("two-layer-mean", num_classes=10)


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_on_pre_logits_is_the_network_and_can_be_reset(name):
    model, x = make(name), torch.randn(4, 128)
    features = model.forward_features(x)
    pre_logits = model.forward_head(features, pre_logits=True)
    assert pre_logits.shape == (4, model.num_features) == (4, model.get_classifier().in_features)
    assert torch.equal(pre_logits, torch.relu(model.hidden(x)))
    assert torch.equal(model.get_classifier()(pre_logits), model(x)) and model(x).shape == (4, 2)
    model.reset_classifier(5)
    assert isinstance(model.get_classifier(), nn.Linear) and model.num_classes == 5
    assert model(x).shape == (4, 5) and model.get_classifier().weight.std() > 0
    assert all(weight.requires_grad for weight in model.get_classifier().parameters())
    assert torch.equal(model.forward_features(x), features)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_several_axes_are_flattened_in_their_own_order(name):
    model, x = make(name, input_shape=(2, 3, 4)), torch.randn(5, 2, 3, 4)
    assert torch.equal(model(x), model(x.reshape(5, 24)))
    assert torch.equal(model(x.contiguous(memory_format=torch.channels_last)), model(x))


@pytest.mark.parametrize("name", NAMES)
def test_torch_export_traces_it_for_any_batch(name):
    model, x = make(name, hidden=8).eval(), torch.randn(4, 128)
    batch = torch.export.Dim("batch", min=2)
    traced = torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()
    longer = torch.randn(9, 128)
    assert torch.equal(traced(longer), model(longer))


@pytest.mark.parametrize("hidden", [0, "many"])
def test_a_number_of_neurons_that_makes_no_network_is_refused(hidden):
    with pytest.raises(UserError, match=f"hidden = {hidden!r}: Input should be"):
        make("two-layer", hidden=hidden)
