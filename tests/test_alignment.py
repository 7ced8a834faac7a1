"""Alignment of whole architectures: permuted networks compute the same, and are brought back exactly."""

import copy
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import get_args

import pytest
import torch
from helpers.alignment import ARCHITECTURES, batch, build, shape_of, shuffled, trained, undone
from torch import nn
from torch.func import functional_call

from mmc_bench import UserError
from mmc_bench.landscape.alignment import (
    Groups,
    Permutations,
    align,
    permutation_groups,
    permute,
    random_permutations,
)
from mmc_bench.landscape.alignment.activations import Observer
from mmc_bench.landscape.alignment.groups import permuted_tensors, tensors_of
from mmc_bench.landscape.paths import linear_path
from mmc_bench.results.settings import Matching


@dataclass(frozen=True)
class Architecture:
    """A trained network, its graph, and a randomly permuted copy of it."""

    images: torch.Tensor
    observer: Observer
    reference: nn.Module
    permuted: nn.Module
    permutations: Permutations

    @cached_property
    def exact(self):
        """The reference in float64."""
        return copy.deepcopy(self.reference).double()

    @cached_property
    def outputs(self):
        return self.outputs_with({})

    @torch.no_grad()
    def outputs_with(self, tensors):
        """Return the answers to noise and to an image that it was trained on, with these tensors for its own."""
        inputs = torch.cat([batch(1, self.images.shape[1:], seed=5), self.images[:1]]).double()
        exact = {name: value.double() for name, value in tensors.items() if value.is_floating_point()}
        return functional_call(self.exact, exact, (inputs,))

    def difference_halfway(self, model):
        """Return the difference that the parameters make that lie halfway to another network's."""
        names = dict(self.reference.named_parameters())
        return self.difference_with(dict(zip(names, linear_path(model, self.reference)(0.5), strict=True)))

    def difference_with(self, tensors):
        """Return the largest difference that these tensors make, relative to the largest output."""
        return float((self.outputs_with(tensors) - self.outputs).abs().max() / self.outputs.abs().max())


@cache
def observer_of(name):
    """Trace an architecture; the graph does not depend on the weights."""
    return Observer(build(name), batch(shape=shape_of(name)))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    images, observer = batch(shape=shape_of(request.param)), observer_of(request.param)
    reference = trained(build(request.param), images)
    return Architecture(images, observer, reference, *shuffled(reference, observer.groups))


def without(groups, group, place):
    """Return the groups with one place forgotten."""
    places = tuple(other for other in group.places if other != place)
    return Groups([replace(group, places=places) if other is group else other for other in groups], groups.pinned)


@pytest.mark.slow
def test_permuting_every_group_changes_no_output_and_forgetting_any_place_does(architecture):
    groups, tensors = architecture.observer.groups, tensors_of(architecture.exact)
    assert architecture.difference_with(tensors_of(architecture.permuted)) < 1e-9
    every = [(group, place) for group in groups for place in group.places]
    for index in torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:4].tolist():
        wrong = permuted_tensors(tensors, without(groups, *every[index]), architecture.permutations)
        assert architecture.difference_with(wrong) > 1e-7, every[index]


@pytest.mark.slow
def test_a_permuted_copy_is_brought_back_exactly_where_criteria_tell_all_units_apart(architecture, monkeypatch):
    monkeypatch.setattr("mmc_bench.landscape.alignment.Observer", lambda model, x: architecture.observer)
    model, reference = architecture.permuted, architecture.reference
    assert architecture.difference_halfway(model) > 1e-2
    for criterion in ("correlations-before-relu", "weights"):
        alignment = align(model, reference, [architecture.images], criterion=criterion)
        assert undone(alignment.permutations, architecture.permutations, alignment.groups) == []
        assert alignment.verified and alignment.difference < 1e-9 and alignment.unseen == ()
        assert architecture.difference_halfway(alignment.model) < 1e-6
        pairs = zip(alignment.model.state_dict().items(), reference.state_dict().values())
        assert [name for (name, ours), theirs in pairs if not torch.equal(ours, theirs)] == []


@pytest.mark.slow
@pytest.mark.parametrize("criterion", get_args(Matching))
def test_a_network_is_aligned_with_itself_by_leaving_every_unit_in_its_place(tiny_net, image_set, criterion):
    model = tiny_net(0, torch.float32)
    with torch.no_grad():
        model.norm1.bias[:3] = -1e3  # silent after the ReLU: nothing tells these three units apart there
    alignment = align(model, model, image_set(40, dtype=torch.float32), criterion=criterion)
    assert all(torch.equal(found, torch.arange(len(found))) for found in alignment.permutations.values())


@pytest.mark.slow
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


@pytest.mark.slow
def test_alignment_is_verified_by_running_the_networks(tiny_net, image_set, monkeypatch):
    def tear(model, groups, permutations):
        torn = permute(model, groups, permutations)
        with torch.no_grad():
            torn.norm1.bias.copy_(torn.norm1.bias.roll(1))
        return torn

    monkeypatch.setattr("mmc_bench.landscape.alignment.permute", tear)
    alignment = align(tiny_net(0), tiny_net(1), image_set(20))
    assert not alignment.verified and alignment.difference > 1e-3


@pytest.mark.slow
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
    "timm/resnet18": ("conv1.weight", "fc", Counter({8: 3, 16: 3, 32: 3, 64: 3})),
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
    # stem, three transitions that halve, and for each of ten layers a bottleneck and the 8 that it adds
    "timm/densenet121": (
        "features.conv0.weight",
        "classifier",
        Counter([16, (16 + 24) // 2, (20 + 16) // 2, (18 + 24) // 2]) + Counter({32: 10, 8: 10}),
    ),
    # four streams, and a hidden layer four times as wide in each of 2, 1, 2 and 1 blocks
    "timm/convnext_atto": (
        "stem.0.weight",
        "head.fc",
        Counter([16, 24, 32, 40]) + Counter({64: 2, 96: 1, 128: 2, 160: 1}),
    ),
    # ten convolutions, each a group of its own
    "vgg13": ("layers.0.weight", "head", Counter({8: 2, 16: 2, 32: 2, 64: 4})),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_no_channels_that_could_be_permuted_are_left_out(name):
    first, last, expected = EXPECTED[name]
    model, groups = build(name), observer_of(name).groups
    assert Counter(group.size for group in groups) == expected
    assert left_out(model, groups) == two_sided(first, last)
    assert {(pinned.weight, pinned.axis) for pinned in groups.pinned} == two_sided(first, last)
    assert {pinned.reason for pinned in groups.pinned} == {"the network's input", "the network's output"}
