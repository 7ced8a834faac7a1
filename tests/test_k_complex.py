"""K-complex attributes and their data set: moments, inversion, and what each split redraws and keeps."""

import math

import pytest
import torch
from helpers.pictures import pictures
from mmc_bench_plugins.k_complex.attribute import Attribute

from mmc_bench import UserError
from mmc_bench.data.splits import derive_experiment
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings

REGISTRY = Registry.discover()
SMALL = {"dimensions": 16, "train_samples": 3000, "test_samples": 2000}
SETTINGS = DataSettings(clean_images=200, validation_images=200)
CONTENT, CUE = 0, 1


def loaded(name="k-complex", **parameters):
    offer = REGISTRY.get("dataset", name)
    dataset = offer.make(offer.configure({**SMALL, **parameters}))
    dataset.load(None)
    return dataset


def derived(name="k-complex", rate=1.0, seed=0, **parameters):
    return derive_experiment(loaded(name, **parameters), SETTINGS, rate, seed)


def drawn(attribute, n=200_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(2, (n,), generator=generator)
    return z, attribute.draw(z, generator)


def vectors(images):
    return images.batch(slice(None))[0]


def told(values, labels, complexity, margin=0.25, dimensions=16):
    """Return the share of samples whose label the attribute tells."""
    return (Attribute(complexity, margin, dimensions).invert(values) == labels).double().mean().item()


# --- the attribute


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("complexity", [0, 2, 4, 6])
def test_an_attribute_has_mean_zero_and_variance_one_over_d(complexity, margin):
    _, values = drawn(Attribute(complexity, margin, 128))
    assert values.mean().item() * math.sqrt(128) == pytest.approx(0, abs=0.01)
    assert values.var().item() * 128 == pytest.approx(1, abs=0.01)
    assert values.abs().max() <= math.sqrt(3 / 128) * (1 + 1e-9)


@pytest.mark.parametrize("complexity", [2, 4, 6])
def test_from_complexity_2_the_mean_is_zero_for_either_label(complexity):
    z, values = drawn(Attribute(complexity, 0.25, 128))
    for label in (0, 1):
        assert values[z == label].mean().item() * math.sqrt(128) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("complexity", [0, 2, 4])
def test_without_gaps_an_attribute_is_uniform(complexity):
    _, values = drawn(Attribute(complexity, 0.5, 128))
    limit = math.sqrt(3 / 128)
    assert values.abs().max() <= limit * (1 + 1e-9)
    counts = torch.histc(values, bins=16, min=-limit, max=limit)
    assert (counts / len(values) * 16 - 1).abs().max() < 0.04


def label_by_hand(value, complexity, scale):
    """Return the label of the slab whose centre is nearest."""
    if complexity == 0:
        return int(value > 0)
    centres = range(-complexity // 2, complexity // 2 + 1)
    nearest = min(centres, key=lambda s: abs(value / scale - s))
    return int(nearest % 2 == 0)


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.49])
@pytest.mark.parametrize("complexity", [0, 2, 4, 6])
def test_the_label_can_be_read_off_the_value(complexity, margin):
    attribute = Attribute(complexity, margin, 128)
    z, values = drawn(attribute, 5000)
    assert torch.equal(attribute.invert(values), z)
    assert all(label_by_hand(v, complexity, attribute.scale) == label for v, label in zip(values.tolist(), z.tolist()))


@pytest.mark.parametrize(
    ("complexity", "slabs"),
    [
        (0, {0: [(-1.0, -0.6)], 1: [(0.6, 1.0)]}),
        (2, {0: [(-1.0, -0.8), (0.8, 1.0)], 1: [(-0.2, 0.2)]}),
        (4, {0: [(-1.2, -0.8), (0.8, 1.2)], 1: [(-2.0, -1.8), (-0.2, 0.2), (1.8, 2.0)]}),
    ],
)
def test_values_fill_the_slabs_of_their_label_and_nothing_else(complexity, slabs):
    attribute = Attribute(complexity, 0.2, 128)
    z, values = drawn(attribute, 40_000)
    for label, intervals in slabs.items():
        own = values[z == label] / attribute.scale
        width = sum(high - low for low, high in intervals)
        for low, high in intervals:
            inside = own[(own >= low - 1e-9) & (own <= high + 1e-9)]
            assert inside.min() < low + 0.01 and inside.max() > high - 0.01
            assert len(inside) / len(own) == pytest.approx((high - low) / width, abs=0.02)  # as often as it is wide
        covered = sum(((own >= low - 1e-9) & (own <= high + 1e-9)).sum().item() for low, high in intervals)
        assert covered == len(own)


# --- the samples


@pytest.mark.parametrize("name", ["k-complex", "k-complex-0", "k-complex-4"])
def test_every_coordinate_has_mean_zero_and_variance_one_over_d(name):
    data = derived(name, train_samples=20_400)
    for images in (data.pretraining, data.pretraining_nc, data.splits["C"], data.splits["NC"]):
        x = vectors(images)
        assert x.shape[1:] == data.input_shape == (16,)
        few = 5 / math.sqrt(len(x))
        assert x.mean(0).abs().max() * 4 < few
        assert (x.var(0) * 16 - 1).abs().max() < few * 1.5
        correlation = torch.corrcoef(x.T) - torch.eye(16)
        assert correlation[CUE + 1 :].abs().max() < few


def test_by_default_the_paper_s_sizes_are_left_for_pretraining():
    offer = REGISTRY.get("dataset", "k-complex")
    config = offer.configure({})
    assert (config.dimensions, config.test_samples, config.train_samples - 2 * 2500) == (128, 10_000, 50_000)
    assert (config.content, config.cue, config.predictive) == (4, 0, "both")


def test_two_loads_give_the_same_samples_and_another_data_seed_gives_others():
    one, two, other = loaded(), loaded(), loaded(data_seed=1)
    for part in ("train", "test"):
        a, b, c = (getattr(dataset, part) for dataset in (one, two, other))
        assert all(torch.equal(getattr(a, field), getattr(b, field)) for field in ("images", "labels", "cues"))
        assert not torch.equal(a.labels, c.labels) and not torch.equal(a.images, c.images)
        assert a.images.dtype == torch.float32 and a.labels.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(one.train.labels[:2000], one.test.labels)


def test_a_set_and_its_cue_come_from_the_labels():
    dataset = loaded()
    for part in (dataset.train, dataset.test):
        assert told(part.images[:, CONTENT], part.labels, 4) == 1
        assert told(part.cues - 1, part.labels, 0) == 1
        assert told(part.images[:, CUE], part.labels, 0) == pytest.approx(0.5, abs=0.05)
        assert (part.cues >= 0).all()


def test_each_split_redraws_what_it_says_and_keeps_the_rest():
    data = derived()
    labels = data.splits["C"].labels
    x = {name: vectors(images) for name, images in data.splits.items()}
    assert all(torch.equal(images.labels, labels) for images in data.splits.values())
    predictive = {name: (told(v[:, CONTENT], labels, 4) == 1, told(v[:, CUE], labels, 0) == 1) for name, v in x.items()}
    assert predictive == {"NC": (True, False), "C": (True, True), "RC": (True, False), "RI": (False, True)}
    assert told(x["RC"][:, CUE], labels, 0) == pytest.approx(0.5, abs=0.05)
    assert told(x["RI"][:, CONTENT], labels, 4) == pytest.approx(0.5, abs=0.05)
    others = [place for place in range(16) if place != CUE]
    for name in ("NC", "RC"):
        assert torch.equal(x[name][:, others], x["C"][:, others])
    assert torch.equal(x["RI"][:, CUE], x["C"][:, CUE])
    # Redrawn values are an attribute's, noise in its place is not: it lies between the slabs too.
    gap = Attribute(0, 0.25, 16).scale * 0.49
    assert x["RC"][:, CUE].abs().min() > gap > x["NC"][:, CUE].abs().min()


@pytest.mark.parametrize(
    ("name", "content", "cue"), [("k-complex", True, True), ("k-complex-0", False, True), ("k-complex-4", True, False)]
)
def test_a_variant_s_training_samples_tell_the_label_by_its_attributes_alone(name, content, cue):
    data = derived(name)
    x, labels = data.pretraining.batch(slice(None))
    for values, complexity, predictive in ((x[:, CONTENT], 4, content), (x[:, CUE], 0, cue)):
        share = told(values, labels, complexity)
        assert share == 1 if predictive else share == pytest.approx(0.5, abs=0.05)
    assert (x[:, CUE].abs() > Attribute(0, 0.25, 16).scale * 0.49).all()  # an attribute's values, even if redrawn


@pytest.mark.parametrize(("name", "redrawn"), [("k-complex-0", CONTENT), ("k-complex-4", CUE)])
def test_variants_differ_in_the_redrawn_attribute_of_the_training_samples_alone(name, redrawn):
    base, variant = derived(seed=3), derived(name, seed=3)
    for split in base.splits:
        assert torch.equal(vectors(base.splits[split]), vectors(variant.splits[split]))
    a, b = vectors(base.pretraining), vectors(variant.pretraining)
    assert torch.equal(base.pretraining.labels, variant.pretraining.labels)
    assert [place for place in range(16) if not torch.equal(a[:, place], b[:, place])] == [redrawn]


def test_the_cue_rate_decides_how_many_samples_carry_the_attribute():
    base = derived(rate=0.6)
    x, labels = base.pretraining.batch(slice(None))
    cued = base.pretraining.cues >= 0
    assert cued.double().mean().item() == pytest.approx(0.6, abs=0.001)
    assert told(x[cued, CUE], labels[cued], 0) == 1
    assert told(x[~cued, CUE], labels[~cued], 0) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(x[~cued], vectors(base.pretraining_nc)[~cued])


def test_rendering_writes_one_coordinate_and_leaves_its_input_alone():
    dataset = loaded()
    images = torch.randn(4, 16, dtype=torch.float64)
    before = images.clone()
    rendered = pictures(dataset, images, torch.tensor([1.125, -1.0, 0.75, -1.0]))
    assert torch.equal(images, before) and rendered.dtype == images.dtype
    expected = before.clone()
    expected[0, CUE], expected[2, CUE] = 0.125, -0.25
    assert torch.equal(rendered, expected)


def test_random_cues_come_from_their_generator():
    dataset = loaded()
    one, two, other = (dataset.random_cue(500, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert (one >= 0).all() and Attribute(0, 0.25, 16).invert(one - 1).double().mean().item() == pytest.approx(
        0.5, abs=0.1
    )


def test_attributes_can_change_places():
    dataset = loaded(content=0, cue=2)
    assert told(dataset.test.images[:, CONTENT], dataset.test.labels, 0) == 1
    assert told(dataset.test.cues - 1, dataset.test.labels, 2) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("content", 3), ("cue", -2), ("margin", 0.5), ("predictive", "none"), ("dimensions", 3), ("test_samples", 0)],
)
def test_a_setting_that_makes_no_attribute_is_refused_with_its_value(name, value):
    with pytest.raises(UserError, match=f"dataset k-complex: {name} = {value!r}: Input should be"):
        REGISTRY.get("dataset", "k-complex").configure({name: value})
