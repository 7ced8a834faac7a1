"""The backbones: sizes, work, timm's interface, and timm's own models on small images."""

import math

import pytest
import torch
from torch import nn

from mmc_bench import UserError
from mmc_bench.plugin.registry import Registry

OWN = ("resnet8", "resnet20", "resnet18", "vgg13")

# Families of timm, and for those whose stem is made to keep the resolution the layer that follows it.
FAMILIES = {
    "resnet10t": "layer1",
    "resnet18": "layer1",
    "densenet121": "features.denseblock1",
    "regnetx_002": "s1",
    "mobilenetv3_small_050": "blocks",
    "efficientnet_b0": "blocks",
    "vit_tiny_patch16_224": None,
    "convnext_atto": None,
    "vgg11_bn": None,
}


@pytest.fixture(scope="module")
def make():
    registry = Registry.discover()

    def make(name, num_classes=10, input_shape=(3, 32, 32), **parameters):
        offer = registry.get("backbone", name)
        config = offer.configure(parameters)
        return offer.make(config, num_classes=num_classes, input_shape=input_shape).eval()

    return make


@torch.no_grad()
def multiplications(model, shape):
    """Count the multiply-accumulates of convolutions and linear layers for one image."""
    counts = []

    def count(layer, _, output):
        if isinstance(layer, nn.Conv2d):
            counts.append(output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size))
        else:
            counts.append(layer.in_features * layer.out_features)

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    model(torch.zeros(1, *shape))
    return sum(counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"), [("resnet18", 11.17), ("resnet8", 0.078), ("resnet20", 0.272), ("vgg13", 9.41)]
)
def test_parameter_counts_are_the_fields(make, name, millions):
    count = sum(parameter.numel() for parameter in make(name).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "billions"), [("resnet18", 0.555), ("vgg13", 0.115), ("resnet20", 0.0408), ("resnet8", 0.0125)]
)
def test_work_at_32x32_is_the_fields(make, name, billions):
    assert multiplications(make(name), (3, 32, 32)) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg13"])
def test_an_image_twice_as_high_is_twice_the_work(make, name):
    once, twice = (multiplications(make(name), (3, height, 32)) for height in (32, 64))
    assert twice / once == pytest.approx(2, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("resnet8", 8), ("resnet20", 8), ("resnet18", 4), ("vgg13", 2)])
def test_resolution_falls_by_the_stages_strides_alone(make, name, side):
    model = make(name)
    for height, width in ((32, 32), (64, 32)):
        maps = model.forward_features(torch.zeros(1, 3, height, width))
        assert maps.shape == (1, model.num_features, side * height // 32, side * width // 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_initial_weights_follow_torchs_own_law(make, name):
    for layer in make(name).modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / math.sqrt(layer.in_channels * math.prod(layer.kernel_size))
            assert layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.25)
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
@torch.no_grad()
def test_rectangular_grey_images_of_any_number_of_classes_are_accepted(make, name):
    assert make(name, num_classes=7, input_shape=(1, 64, 32))(torch.zeros(2, 1, 64, 32)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OWN, *(f"timm/{model}" for model in FAMILIES)])
@torch.no_grad()
def test_the_classifier_on_pre_logits_is_the_network_and_can_be_reset(make, name):
    torch.manual_seed(0)
    model, x = make(name), torch.randn(2, 3, 32, 32)
    features, logits = model.forward_features(x), model(x)
    pre_logits = model.forward_head(features, pre_logits=True)
    classifier = model.get_classifier()
    assert isinstance(classifier, nn.Linear)
    assert pre_logits.shape == (2, classifier.in_features)
    assert logits.shape == (2, 10) and model.num_classes == 10
    assert torch.allclose(classifier(pre_logits), logits, atol=1e-5)

    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(4)
    fresh = model.get_classifier()
    assert model.num_classes == 4 and fresh is not classifier and fresh.weight.std() > 0
    assert torch.allclose(fresh(pre_logits), model.forward_head(features), atol=1e-5)
    place = next(place for place, layer in model.named_modules() if layer is fresh)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{place}.weight", f"{place}.bias"}


@pytest.mark.parametrize("name", OWN)
def test_the_number_of_features_is_the_classifiers_width(make, name):
    model = make(name)
    assert model.num_features == model.get_classifier().in_features


@pytest.mark.slow
@pytest.mark.parametrize(("model", "after_stem"), [pair for pair in FAMILIES.items() if pair[1]])
@torch.no_grad()
def test_the_cifar_stem_keeps_the_full_resolution(make, model, after_stem):
    sides = []
    for options in ({}, {"cifar_stem": False}):
        network = make(f"timm/{model}", **options)
        following = network.get_submodule(after_stem)
        following.register_forward_pre_hook(lambda _, inputs: sides.append(tuple(inputs[0].shape[-2:])))
        network(torch.zeros(1, 3, 32, 32))
    assert sides[0] == (32, 32)
    assert max(sides[1]) <= 16


def test_two_builds_from_one_seed_are_the_same_network(make):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(make("resnet8").state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_unknown_timm_model_is_refused_and_near_ones_named(make):
    with pytest.raises(UserError, match=r"timm has no model 'resnet10x': did you mean .*resnet10t"):
        make("timm/resnet10x")


def test_a_tag_that_timm_does_not_know_is_refused(make):
    with pytest.raises(UserError, match=r"timm has no model 'resnet18\.a9_in1k': did you mean .*resnet18\.a1_in1k"):
        make("timm/resnet18.a9_in1k")
    with pytest.raises(UserError, match="timm has no model 'convnext_tiny_in22ft1k'"):  # an old name of a tag
        make("timm/convnext_tiny_in22ft1k")


def test_the_label_of_a_timm_model_is_what_is_built(make):
    with pytest.raises(UserError, match=r"timm/test_resnet has no parameter 'model': .* name, timm/test_vit"):
        make("timm/test_resnet", model="test_vit")
    with pytest.raises(UserError, match=r"no parameter 'mode': known: cifar_stem, init, weights$"):
        make("timm/test_resnet", mode="test_vit")


def test_a_parameter_that_the_backbone_lacks_is_refused(make):
    with pytest.raises(UserError, match=r"no parameter 'block': did you mean blocks"):
        make("resnet8", block=3)


@pytest.mark.parametrize("blocks", ["abc", 0])
def test_a_number_of_blocks_that_makes_no_network_is_refused(make, blocks):
    with pytest.raises(UserError, match=f"blocks = {blocks!r}: Input should be"):
        make("resnet8", blocks=blocks)
