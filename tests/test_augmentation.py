"""Random crops and flips of pretraining images."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from mmc_bench_plugins.box_cue.dataset import DigitsBox
from scipy.stats import chisquare
from torch.nn import functional as F

from mmc_bench import UserError
from mmc_bench.data.augmentation import augmented, crop_flip
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import derive_experiment
from mmc_bench.results.settings import DataSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    dataset = DigitsBox()
    dataset.load(Sources())
    return derive_experiment(dataset, DataSettings(), 1.0, 0)


@pytest.mark.parametrize(("height", "width", "down", "right"), [(32, 32, 4, 4), (16, 32, 2, 4), (7, 7, 0, 0)])
def test_each_image_is_one_of_all_crops_flipped_or_not(height, width, down, right):
    generator = seeded()
    one = torch.randint(256, (1, 3, height, width), generator=generator, dtype=torch.uint8)
    ways = 2 * (2 * down + 1) * (2 * right + 1)
    found = Counter(image.numpy().tobytes() for image in crop_flip(one.expand(30 * ways, -1, -1, -1), generator))
    padded = torch.zeros(3, height + 2 * down, width + 2 * right, dtype=torch.uint8)
    padded[:, down : down + height, right : right + width] = one[0]
    counts = []
    for top, left in itertools.product(range(2 * down + 1), range(2 * right + 1)):
        crop = padded[:, top : top + height, left : left + width].contiguous()
        counts += [found[crop.numpy().tobytes()], found[crop.flip(2).numpy().tobytes()]]
    assert sum(counts) == 30 * ways and chisquare(counts).pvalue > 0.001


def test_images_of_a_batch_are_cut_and_flipped_each_by_itself():
    generator = seeded()
    images = torch.randint(256, (64, 1, 16, 16), generator=generator, dtype=torch.uint8)
    before, found = images.clone(), crop_flip(images, generator)
    assert torch.equal(images, before)
    assert not torch.equal(found[:32], found[32:])
    padded = F.pad(images, (2, 2, 2, 2))
    for image, whole in zip(found, padded):
        crops = [whole[:, top : top + 16, left : left + 16] for top in range(5) for left in range(5)]
        assert any(torch.equal(image, way) for crop in crops for way in (crop, crop.flip(2)))


def test_the_cue_is_drawn_after_the_image_is_cut(data):
    images = augmented(data.pretraining, seeded())
    x, labels = next(images.shuffled(300, seeded()))
    plain, same_labels = next(data.pretraining.shuffled(300, seeded()))
    assert not torch.equal(x, plain) and torch.equal(labels, same_labels)
    box, starts = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 3, 3), (0, 6, 13)
    for image, label in zip(x, labels.tolist()):
        if label < 9:
            row, column = starts[label // 3], starts[label % 3]
            assert torch.equal(image[:, row : row + 3, column : column + 3], box)
    assert x.min() == -1  # padding is black


def test_every_visit_of_an_image_is_a_new_draw_of_one_seed(data):
    def visit(images):
        return next(images.shuffled(50, seeded()))[0]

    first, again, other = (augmented(data.pretraining, seeded(seed)) for seed in (0, 0, 1))
    visits = [visit(first) for _ in range(2)]
    assert not torch.equal(*visits)
    assert torch.equal(visits[0], visit(again))
    assert not torch.equal(visits[0], visit(other))


def test_images_in_order_are_shown_as_they_are(data):
    images = augmented(data.pretraining, seeded())
    assert torch.equal(images.batch(slice(0, 50))[0], data.pretraining.batch(slice(0, 50))[0])
    assert torch.equal(next(images.in_order(50))[0], data.pretraining.batch(slice(0, 50))[0])
    untouched = augmented(data.pretraining, seeded())
    assert torch.equal(*(next(one.shuffled(50, seeded()))[0] for one in (images, untouched)))  # nothing was drawn


def test_what_is_not_an_image_of_8_bits_is_refused(data):
    vectors = torch.zeros(len(data.pretraining.storage), 5)
    with pytest.raises(UserError, match=r"needs images of 8 bits, not float32 of shape \(N, 5\): set it to none"):
        augmented(replace(data.pretraining, storage=vectors), seeded())


@pytest.mark.slow
def test_a_recipe_that_augments_trains_another_model_in_a_row_of_its_own(bench):
    for augment in ("none", "crop-flip"):
        done = bench.tiny("--methods", "tiny-still", "--seeds", 0, "--set", f"pretrain.augment={augment}")
        assert done.code == 0, done.err
    records = [record for record in bench.records().values() if record["kind"] == "pretraining"]
    made = {record["pretraining"]["recipe"]["augment"]: record["weights_sha256"] for record in records}
    assert made.keys() == {"none", "crop-flip"} and len({*made.values()}) == 2
    shown = bench("table", "--format", "json").out
    assert all(f"tiny-set (augment={augment})" in shown for augment in made)
