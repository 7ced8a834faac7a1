"""Which spurious attribute each image of a task shows: its cue's class, or that of its group."""

from types import SimpleNamespace

import pytest
import torch
from helpers.networks import TinyNet
from helpers.numbered_images import K, contents, derived, fake_dataset
from helpers.records import pretrain_record
from plugins.grouped import TinyGroups

from mmc_bench.data.groups import derive_groups
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import cue_classes
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings
from mmc_bench.results.store import Store
from mmc_bench.stages.finetune import task_of
from mmc_bench.stages.resources import Resources

NEEDS = frozenset({"cued", "environments"})


def task_on(data):
    """Return the task that a method gets on this data."""
    resources = Resources(Registry([]), Store("."), Sources(), torch.device("cpu"), threads=1)
    return task_of(pretrain_record(0).pretraining, TinyNet(), data, resources, NEEDS)[0]


@pytest.mark.parametrize("minority", ["uncued", "conflicting"])
@pytest.mark.parametrize("clean_cues", ["none", "random"])
def test_an_attribute_is_the_class_of_the_cue_that_an_image_carries(minority, clean_cues):
    data = derived(cue_rate=0.5, minority=minority, clean_cues=clean_cues)
    shown = [cue for _, cue, _ in contents(data.clean) + contents(data.pretraining)]
    assert task_on(data).pool_attributes.tolist() == shown
    assert (-1 in shown) == (minority == "uncued" or clean_cues == "none")


def test_cues_that_a_dataset_puts_into_classes_are_of_these_and_no_cue_is_of_none():
    dataset = fake_dataset()
    dataset.cue_groups = lambda cues: torch.tensor([5, 7, 9])[cues]  # the last one is not that of no cue, -1
    shown = [cue for _, cue, _ in contents(task_on(derived(dataset)).cued)]
    data = derived(dataset)
    expected = [-1] * len(data.clean) + [-1 if cue < 0 else 5 + 2 * cue for cue in shown]
    assert task_on(data).pool_attributes.tolist() == expected


def test_a_hundred_cues_make_as_many_attributes():
    dataset = fake_dataset(train=600)
    dataset.num_classes = 100
    for part in (dataset.train, dataset.test):
        part.labels[:] = part.cues[:] = torch.arange(len(part.labels)) % 100
    dataset.random_cue = lambda n, generator: torch.randint(100, (n,), generator=generator)
    data = derived(dataset, minority="conflicting")
    assert len(data.pretraining.cues.unique()) == 100
    assert torch.equal(task_on(data).pool_attributes, torch.cat([data.clean.cues, data.pretraining.cues]))


def test_a_dataset_is_not_asked_for_the_class_of_no_cue():
    dataset = fake_dataset()
    dataset.cue_groups = lambda cues: torch.tensor([{0: 4, 1: 6, 2: 8}[cue] for cue in cues.tolist()])
    for cue_rate in (0.0, 0.5):
        data = derived(dataset, cue_rate)
        codes = torch.cat([data.clean.cues, data.pretraining.cues])
        assert torch.equal(task_on(data).pool_attributes, torch.where(codes < 0, -1, 4 + 2 * codes))


@pytest.mark.parametrize("codes", [torch.tensor([0, -1, 2]), torch.tensor([[0, 4], [-1, -1], [2, 9]])])
def test_no_cue_is_of_the_class_minus_1_whatever_the_dataset_makes_of_codes(codes):
    def cue_groups(cues):
        assert (cues >= 0).all() and len(cues)
        return (cues if cues.ndim == 1 else cues[:, 0]).to(torch.int32) + 3

    dataset = SimpleNamespace(cue_groups=cue_groups)
    assert cue_classes(dataset, codes).tolist() == [3, -1, 5]
    assert cue_classes(dataset, torch.full_like(codes, -1)).tolist() == [-1, -1, -1]
    assert cue_classes(SimpleNamespace(cue_groups=lambda cues: None), codes) is None
    assert (cue_classes(SimpleNamespace(), codes) is None) == (codes.ndim > 1)


def test_where_cues_make_no_classes_an_own_cue_is_that_of_the_label():
    dataset = fake_dataset()
    dataset.cue_groups = lambda cues: None
    data = derived(dataset, minority="conflicting")
    own = [label if cue == label else -1 for _, cue, label in contents(data.pretraining)]
    assert task_on(data).pool_attributes.tolist() == [-1] * len(data.clean) + own
    assert {*range(K)} <= {*own}


def test_images_in_groups_have_the_attributes_that_their_dataset_gives():
    dataset = TinyGroups()
    dataset.load(SimpleNamespace())
    data = derive_groups(dataset, DataSettings(), seed=0)
    attributes = torch.cat([data.clean.cues, data.pretraining.cues])
    assert torch.equal(task_on(data).pool_attributes, attributes) and len(attributes.unique()) == 3
