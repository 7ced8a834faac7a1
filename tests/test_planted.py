"""Cues of several kinds in any images: exact pictures and shares, one for each class."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import derive_experiment
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings

KINDS = ("box", "patch", "border", "texture", "frequency")
PIXELS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 4)):
        for name in "abcd":
            (root / part / name).mkdir(parents=True)
            for index in range(n):
                pixels = rng.integers(0, 256, (PIXELS, PIXELS + 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


@pytest.fixture
def load(folder):
    def load(kind, **parameters):
        offer = Registry.discover().get("dataset", f"images-{kind}")
        dataset = offer.make(offer.configure(parameters))
        dataset.load(Sources({"images": str(folder)}))
        return dataset

    return load


def test_of_every_kind_of_images_in_a_class_some_carry_the_cue_and_some_do_not(tmp_path):
    shade = 0
    for part, n in (("train", 30), ("test", 1)):
        for name in ("cat", "dog"):
            for kind in range(5):
                (tmp_path / part / name / f"breed{kind}").mkdir(parents=True)
                for index in range(n):
                    shade += 1  # tells the file
                    colour = shade // 256, shade % 256, kind
                    Image.new("RGB", (8, 8), colour).save(tmp_path / part / name / f"breed{kind}" / f"{index}.png")
    offer = Registry.discover().get("dataset", "images-patch")
    dataset = offer.make(offer.configure({}))
    dataset.load(Sources({"images": str(tmp_path)}))
    data = derive_experiment(dataset, DataSettings(clean_images=10, validation_images=10), 0.8, seed=0)
    kinds = dataset.train.images[data.pretraining.index, 2, 7, 7]
    for label in range(2):
        for kind in range(5):
            cued = data.environments[(data.pretraining.labels == label) & (kinds == kind)]
            assert 0 < cued.sum() < len(cued)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cue_is_blended_in_by_its_mask_and_by_nothing_else(load, kind):
    dataset = load(kind)
    images = torch.rand(4, 3, PIXELS, PIXELS + 4) * 2 - 1
    drawn = dataset.render(images, torch.arange(4))
    masks = dataset.masks.expand(-1, 3, -1, -1)
    assert torch.equal(drawn[masks == 0], images[masks == 0])
    pictures = (drawn - (1 - masks) * images)[masks > 0] / masks[masks > 0]
    assert pictures.abs().max() <= 1 + 1e-5  # images stay in their range
    other = dataset.render(-images, torch.arange(4))
    assert torch.allclose(drawn - other, (1 - masks) * 2 * images, atol=1e-6)
    shown = dataset.render(torch.zeros_like(images), torch.arange(4)).flatten(1)
    assert len(shown.unique(dim=0)) == 4


@pytest.mark.parametrize(
    ("kind", "share"), [("box", 4 / 480), ("patch", 16 / 480), ("border", 84 / 480), ("texture", 1)]
)
def test_a_cue_takes_as_many_pixels_as_its_size_says(load, kind, share):
    assert (load(kind).masks > 0).float().mean((1, 2, 3)).tolist() == pytest.approx([share] * 4)


def test_strength_and_size_are_parameters(load):
    weak, large = load("box", strength=0.25), load("box", size=0.5)
    assert weak.masks.max() == 0.25
    assert (large.masks > 0).float().sum((1, 2, 3)).tolist() == [100.0] * 4
    assert load("texture").masks.unique().tolist() == pytest.approx([0.2])
    assert load("texture", relative_strength=0.25).masks.unique().tolist() == pytest.approx([0.05])


def test_images_of_any_size_are_resized_to_the_pixels_asked_for(load):
    assert load("border", pixels=12).train.images.shape[1:] == (3, 12, 12)


def test_more_classes_than_a_cue_can_tell_are_refused(tmp_path):
    for part in ("train", "test"):
        for name in "abcde":
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (2, 2), "grey").save(tmp_path / part / name / "0.png")
    offer = Registry.discover().get("dataset", "images-box")
    dataset = offer.make(offer.configure({"size": 0.5}))
    with pytest.raises(UserError, match="5 classes are too many for a box in 2x2 pixels"):
        dataset.load(Sources({"images": str(tmp_path)}))


@pytest.mark.parametrize(("classes", "side", "size"), [(2, 8, 0.5), (2, 32, 0.125), (10, 32, 0.125), (10, 8, 0.5)])
def test_every_wave_is_seen_however_short(classes, side, size):
    waves, _ = patterns().frequency(classes, side, side, size)
    assert waves.abs().amax((1, 2, 3)).min() > 0.5


def patterns():
    """Return the module that draws cues."""
    dataset = Registry.discover().get("dataset", "images-box").load()
    return sys.modules[dataset.__module__.rpartition(".")[0] + ".patterns"]


def test_the_four_splits_are_drawn_as_for_any_cue(load):
    data = derive_experiment(load("patch"), DataSettings(), cue_rate=0.5, seed=0)
    assert (len(data.clean), len(data.validation), len(data.pretraining)) == (4, 4, 40)
    assert torch.equal(data.splits["C"].cues, data.splits["C"].labels)
    assert (data.splits["NC"].cues == -1).all() and (data.splits["RC"].cues >= 0).all()


@pytest.mark.slow
def test_the_plugin_keeps_its_promises(bench, folder):
    result = bench("check", "images-texture", "--data", f"images={folder}", "--json")
    assert result.code == 0, result.out
    assert json.loads(result.out)[0]["passed"]
