"""Alignment of whole architectures: permuted networks compute the same, and are brought back exactly."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from alignment_for_tests import ARCHITECTURES, SHAPE, batch, build, groups_of, randomised, shuffled, trained, undone

from mmc_bench import UserError
from mmc_bench.landscape.alignment import (
    Groups,
    align,
    output_difference,
    permutation_groups,
    permute,
    random_permutations,
)
from mmc_bench.landscape.alignment.groups import permuted_tensors, tensors_of
from mmc_bench.landscape.paths import linear_path, set_parameters

#: More than ten seconds each on a busy core.
SLOW = {"resnet18", "timm/resnet50", "timm/densenet121", "timm/efficientnet_b0"}


def without(groups, group, place):
    """Return the groups with one place forgotten."""
    places = tuple(other for other in group.places if other != place)
    return Groups([replace(group, places=places) if other is group else other for other in groups], groups.pinned)


@torch.no_grad()
def permuted_in(model, groups, permutations):
    """Return a copy permuted without any check."""
    result = copy.deepcopy(model)
    tensors = tensors_of(result)
    for name, value in permuted_tensors(tensors, groups, permutations).items():
        tensors[name].copy_(value)
    return result


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_permuting_every_group_changes_no_output_and_forgetting_any_place_does(name):
    model, groups = randomised(build(name)), groups_of(name)
    permuted, permutations = shuffled(model, groups)
    assert output_difference(model, permuted, SHAPE) < 1e-9
    every = [(group, place) for group in groups for place in group.places]
    for index in torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:4].tolist():
        wrong = permuted_in(model, without(groups, *every[index]), permutations)
        assert output_difference(model, wrong, SHAPE) > 1e-7, every[index]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ARCHITECTURES]
)
def test_a_permuted_copy_is_brought_back_exactly_by_both_criteria(name):
    images = batch()
    reference = trained(build(name), images)
    model, permutations = shuffled(reference, groups_of(name))
    middle = copy.deepcopy(reference)
    set_parameters(middle, linear_path(model, reference)(0.5))
    assert output_difference(middle, reference, SHAPE) > 1e-2
    for criterion, seen in (("activations", images), ("weights", images[:2])):
        alignment = align(model, reference, [seen], criterion=criterion)
        assert undone(alignment.permutations, permutations, alignment.groups) == []
        assert alignment.verified and alignment.difference < 1e-9 and alignment.unseen == ()
        set_parameters(middle, linear_path(alignment.model, reference)(0.5))
        assert output_difference(middle, reference, SHAPE) < 1e-6
        pairs = zip(alignment.model.state_dict().items(), reference.state_dict().values())
        assert [name for (name, ours), theirs in pairs if not torch.equal(ours, theirs)] == []


def test_the_networks_given_are_left_as_they_are_and_the_buffers_move_too(tiny_net, image_set):
    model, reference = tiny_net(0, torch.float32), tiny_net(1, torch.float32)
    model.train()
    before = [copy.deepcopy(network.state_dict()) for network in (model, reference)]
    images = image_set(40, dtype=torch.float32)
    alignment = align(model, reference, images)
    for network, state in zip((model, reference), before):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert model.training and alignment.model is not model
    order = alignment.permutations["stem.weight"]
    assert not torch.equal(order, torch.arange(4))
    assert torch.equal(alignment.model.norm1.running_mean, model.norm1.running_mean[order])
    assert torch.equal(alignment.model.conv.weight, model.conv.weight[alignment.permutations["conv.weight"]][:, order])


def test_alignment_is_verified_by_running_the_networks(tiny_net, image_set, monkeypatch):
    def tear(model, groups, permutations):
        torn = permute(model, groups, permutations)
        with torch.no_grad():
            torn.norm1.bias.copy_(torn.norm1.bias.roll(1))
        return torn

    monkeypatch.setattr("mmc_bench.landscape.alignment.permute", tear)
    alignment = align(tiny_net(0), tiny_net(1), image_set(20))
    assert not alignment.verified and alignment.difference > 1e-3


def test_a_permutation_that_is_none_or_tears_blocks_apart_is_refused(tiny_net):
    groups = permutation_groups(tiny_net(), (2, 6, 6))
    permutations = random_permutations(groups, torch.Generator())
    with pytest.raises(UserError, match=r"stem\.weight: not a permutation of 4 units"):
        permute(tiny_net(), groups, {**permutations, "stem.weight": torch.tensor([0, 1, 1, 2])})
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), torch.nn.Conv2d(6, 6, 1, groups=3), torch.nn.Conv2d(6, 2, 1))
    groups = permutation_groups(model, (3, 4, 4))
    permutations = {group.name: torch.arange(group.size) for group in groups}
    permute(model, groups, permutations)
    with pytest.raises(UserError, match="does not follow that of blocks of"):
        permute(model, groups, {**permutations, "0.weight": torch.tensor([0, 2, 1, 3, 4, 5])})


def test_networks_of_other_architectures_and_empty_image_sets_are_refused(tiny_net):
    wider = tiny_net()
    wider.reset_classifier(4)
    with pytest.raises(UserError, match=r"head\.weight"):
        align(tiny_net(), wider, [torch.zeros(2, 2, 6, 6)])
    with pytest.raises(UserError, match="no images"):
        align(tiny_net(), tiny_net(1), [])


# --- nothing left out, by lists made by hand


def channel_axes(model):
    """Return all axes of weights and buffers that count channels, with their sizes."""
    return {
        (name, axis): size for name, value in tensors_of(model).items() for axis, size in enumerate(value.shape[:2])
    }


def left_out(model, groups):
    """Return the channel axes longer than 1 on which some position belongs to no group."""
    covered = Counter()
    for group in groups:
        for place in group.places:
            # A grouped convolution's inner axis is permuted where its rows are.
            units = group.size if place.rows is None else 1
            covered[place.weight, place.axis] += place.outer * units * place.inner
    return {
        axis for axis, size in channel_axes(model).items() if size > 1 and covered[axis] < (size if axis[1] == 0 else 1)
    }


def two_sided(first, last):
    """Return the axes that nothing can permute: the input's channels and the logits."""
    return {(first, 1), (f"{last}.weight", 0), (f"{last}.bias", 0)}


EXPECTED = {
    # a stream and two hidden layers in each of four stages
    "timm/resnet18": ("conv1.weight", "fc", Counter({64: 3, 128: 3, 256: 3, 512: 3})),
    # stem and four streams; in each block both convolutions around the grouped one, and the blocks of 8 they share
    "timm/regnetx_002": (
        "stem.conv.weight",
        "head.fc",
        Counter([32, 24, 56, 152, 368])
        + Counter({24: 2, 24 // 8: 1})
        + Counter({56: 2, 56 // 8: 1})
        + Counter({152: 8, 152 // 8: 4})
        + Counter({368: 14, 368 // 8: 7}),
    ),
    # stem, three transitions, and for each of 58 layers a bottleneck and what it adds to the concatenation
    "timm/densenet121": (
        "features.conv0.weight",
        "classifier",
        Counter([64, 128, 256, 512]) + Counter({128: 58, 32: 58}),
    ),
    # four streams, and a hidden layer four times as wide in each of 2, 2, 6 and 2 blocks
    "timm/convnext_atto": (
        "stem.0.weight",
        "head.fc",
        Counter([40, 80, 160, 320]) + Counter({160: 2, 320: 2, 640: 6, 1280: 2}),
    ),
    # ten convolutions, each a group of its own
    "vgg13": ("layers.0.weight", "head", Counter({64: 2, 128: 2, 256: 2, 512: 4})),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_no_channels_that_could_be_permuted_are_left_out(name):
    first, last, expected = EXPECTED[name]
    model, groups = build(name), groups_of(name)
    assert Counter(group.size for group in groups) == expected
    assert left_out(model, groups) == two_sided(first, last)
    assert {(pinned.weight, pinned.axis) for pinned in groups.pinned} == two_sided(first, last)
    assert {pinned.reason for pinned in groups.pinned} == {"the network's input", "the network's output"}
