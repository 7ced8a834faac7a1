"""What minority, held-out and validation images show: conflicting cues, random cues, and splits of their own."""

from dataclasses import replace

import pytest
import torch
from helpers.numbered_images import K, contents, derived, fake_dataset, numbers, with_cue_channel
from scipy.stats import chi2_contingency, chisquare


@pytest.mark.slow
@pytest.mark.parametrize("cue_rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("numbers_of_a_code", [1, 3])
def test_images_outside_the_cue_rate_can_carry_the_cue_of_another_class(cue_rate, numbers_of_a_code):
    dataset = fake_dataset(train=900)
    if numbers_of_a_code > 1:
        dataset.train = replace(dataset.train, cues=dataset.train.cues[:, None].expand(-1, 3).contiguous())
        dataset.render = lambda images, cue: with_cue_channel(images, cue[:, 0])
        dataset.random_cue = lambda n, generator: torch.zeros(n, 3, dtype=torch.int64)
    plain, data = derived(dataset, cue_rate), derived(dataset, cue_rate, minority="conflicting")
    shares = torch.zeros(K, K)
    for (number, cue, label), (same, own, _) in zip(contents(data.pretraining), contents(plain.pretraining)):
        assert number == same and (cue == label if own == label else own == -1 and cue not in (-1, label))
        shares[label, cue] += own == -1
    for label, row in enumerate(shares):  # of each other class as often as it has images
        others = torch.bincount(dataset.train.labels, minlength=K).double().index_fill(0, torch.tensor(label), 0)
        others = others[others > 0] / others.sum() * row.sum()
        assert cue_rate == 1 or chisquare(row[torch.arange(K) != label].double(), others).pvalue > 0.001
    assert contents(data.pretraining_nc) == contents(plain.pretraining_nc)
    assert contents(data.clean) == contents(plain.clean)
    assert contents(data.fully_cued) == contents(plain.fully_cued)


def test_a_conflicting_cue_follows_from_the_data_seed_alone():
    def drawn(cue_rate, seed=0, **settings):
        data = derived(fake_dataset(train=300), cue_rate, seed, minority="conflicting", **settings)
        return {number: cue for number, cue, label in contents(data.pretraining) if cue != label}

    every, some, others = drawn(0.0), drawn(0.8, pretrain_images=150), drawn(0.0, seed=1)
    assert some and some.items() <= every.items()
    assert any(others[number] != cue for number, cue in every.items() if number in others)


def test_a_class_that_is_told_by_no_cue_lends_none_and_shows_conflicting_ones():
    dataset = fake_dataset(train=300)
    dataset.train.cues[dataset.train.labels == 0] = -1
    data = derived(dataset, 0.0, minority="conflicting")
    seen = {label: {cue for _, cue, own in contents(data.pretraining) if own == label} for label in range(K)}
    assert seen == {0: {1, 2}, 1: {-1, 2}, 2: {-1, 1}}
    assert not data.environments.any()


@pytest.mark.parametrize("minority", ["uncued", "conflicting"])
def test_environments_tell_which_images_carry_their_own_cue(minority):
    data = derived(cue_rate=0.5, minority=minority)
    own = [cue == label for _, cue, label in contents(data.pretraining)]
    assert data.environments.tolist() == own and {*own} == {False, True}


def test_an_image_that_has_no_cue_of_its_own_is_of_environment_0():
    dataset = fake_dataset()
    dataset.train.cues[dataset.train.labels == 0] = -1
    data = derived(dataset, cue_rate=1.0)
    assert data.environments.tolist() == (data.pretraining.labels != 0).long().tolist()


@pytest.mark.slow
def test_held_out_images_can_carry_cues_drawn_independently_of_their_labels():
    dataset = fake_dataset(train=3000, clean=1400, validation=1400)
    plain, data = derived(dataset), derived(dataset, clean_cues="random")
    for name in ("clean", "validation"):
        rows = contents(getattr(data, name))
        assert [(number, label) for number, _, label in rows] == [
            (number, label) for number, _, label in contents(getattr(plain, name))
        ]
        table = torch.zeros(K, K)
        for _, cue, label in rows:
            table[label, cue] += 1
        assert chi2_contingency(table.numpy()).pvalue > 0.001
        assert chisquare(table.sum(0).numpy()).pvalue > 0.001
    for name in ("pretraining", "pretraining_nc", "fully_cued"):
        assert contents(getattr(data, name)) == contents(getattr(plain, name))
    assert all(contents(data.splits[name]) == contents(plain.splits[name]) for name in data.splits)


def test_random_cues_of_training_images_are_the_datasets_own_for_them():
    dataset = fake_dataset()
    dataset.random_train_cue = lambda n, generator: torch.full((n,), 77)
    data = derived(dataset, clean_cues="random", clean_set="pretraining", clean_images=20)
    for images in (data.clean, data.validation, data.validation_splits["RC"], data.train_splits["RC"]):
        assert set(images.cues.tolist()) == {77}
    assert numbers(data.clean) == numbers(data.pretraining)[:20]
    assert 77 not in data.splits["RC"].cues


def test_validation_splits_show_validation_images_alone_with_draws_of_their_own():
    dataset = fake_dataset(train=600, test=200, validation=200)
    dataset.test.cues.copy_(dataset.test.labels.copy_(dataset.train.labels[:200]))  # as many images, of equal labels
    data, other = derived(dataset), derived(dataset, seed=1)
    of_validation = {*numbers(data.validation)}
    elsewhere = {*numbers(data.clean), *numbers(data.pretraining)}
    splits = {name: contents(images) for name, images in data.validation_splits.items()}
    assert [*splits] == ["NC", "C", "RC", "RI"]
    for rows in splits.values():
        assert {number for number, _, _ in rows} <= of_validation and not of_validation & elsewhere
    assert all(split.storage is data.validation.storage for split in data.validation_splits.values())
    assert splits["NC"] == contents(data.validation)
    assert [(number, label) for number, _, label in splits["RC"]] == [(n, label) for n, _, label in splits["NC"]]
    assert splits["C"] == [(number, label, label) for number, _, label in splits["NC"]]
    assert [(cue, label) for _, cue, label in splits["RI"]] == [(cue, label) for _, cue, label in splits["C"]]
    for name, position in (("RC", "cues"), ("RI", "index")):
        drawn = [getattr(part[name], position) for part in (data.validation_splits, data.splits, data.train_splits)]
        assert not any(torch.equal(drawn[0], part[:200]) for part in drawn[1:])
        assert not torch.equal(drawn[0], getattr(other.validation_splits[name], position))
    held = data.rendered_validation
    assert all(contents(held[name]) == rows and held[name].held is not None for name, rows in splits.items())
    assert data.rendered_validation is held
