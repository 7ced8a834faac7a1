"""The box cue, against pixel-by-pixel loops."""

import pytest
import torch
from helpers.pictures import pictures
from scipy.stats import chisquare

from mmc_bench import UserError
from mmc_bench.data.contract import SourceImages
from mmc_bench.plugin.parameters import instantiate
from mmc_bench.plugin.registry import Registry

COLOURS = {"digits-box": (1.0, -1.0, -1.0), "cifar10-box": (0.0, 1.0, 0.0)}

# Upper-left corners (row, column) of the nine boxes in an image of 32x32 pixels.
CORNERS = [(0, 0), (0, 14), (0, 29), (14, 0), (14, 14), (14, 29), (29, 0), (29, 14), (29, 29)]


class FakeSources:
    """Ten (or `classes`) labels on small random images, whatever source is asked for."""

    def __init__(self, height=32, width=32, classes=10):
        self.shape, self.classes = (3, height, width), classes

    def load(self, name):
        images = torch.randint(256, (self.classes, *self.shape), dtype=torch.uint8)
        part = SourceImages(images, torch.arange(self.classes))
        return part, part


def loaded(name, sources=None):
    dataset = instantiate(name, Registry.discover().get("dataset", name).load(), {})
    dataset.load(sources or FakeSources())
    return dataset


def drawn_by_hand(image, corner, colour):
    pixels = image.tolist()
    for channel in range(3):
        for row in range(corner[0], corner[0] + 3):
            for column in range(corner[1], corner[1] + 3):
                pixels[channel][row][column] = colour[channel]
    return torch.tensor(pixels)


@pytest.mark.parametrize("name", COLOURS)
def test_each_place_is_a_box_of_nine_pixels_in_the_sets_colour(name):
    images = torch.rand(9, 3, 32, 32) * 2 - 1
    rendered = loaded(name).render(images, torch.arange(9))
    for place, corner in enumerate(CORNERS):
        assert torch.equal(rendered[place], drawn_by_hand(images[place], corner, COLOURS[name])), place


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("code", [9, -1, -2, -10])
def test_place_nine_and_negative_codes_are_no_box(name, code):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(pictures(loaded(name), images, torch.tensor([code, code])), images)


@pytest.mark.parametrize("name", COLOURS)
def test_a_batch_may_mix_places_and_repeat_them(name):
    cues = torch.tensor([4, -1, 4, 9, 8, 0])
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    rendered = pictures(loaded(name), images, cues)
    for image, cue, result in zip(images, cues.tolist(), rendered):
        expected = drawn_by_hand(image, CORNERS[cue], COLOURS[name]) if 0 <= cue < 9 else image
        assert torch.equal(result, expected)


def test_boxes_of_a_rectangular_image_follow_both_sides():
    dataset = loaded("cifar10-box", FakeSources(height=64, width=32))
    rendered = dataset.render(torch.zeros(9, 3, 64, 32), torch.arange(9))
    rows, columns = (0, 30, 61), (0, 14, 29)
    for place in range(9):
        corner = rows[place // 3], columns[place % 3]
        assert torch.equal(rendered[place], drawn_by_hand(torch.zeros(3, 64, 32), corner, (0.0, 1.0, 0.0)))


@pytest.mark.parametrize("name", COLOURS)
def test_rendering_leaves_its_input_unchanged(name):
    images, cues = torch.rand(10, 3, 32, 32), torch.arange(10)
    images_before, cues_before = images.clone(), cues.clone()
    rendered = loaded(name).render(images, cues)
    rendered.zero_()
    assert torch.equal(images, images_before)
    assert torch.equal(cues, cues_before)


@pytest.mark.parametrize("name", COLOURS)
def test_an_images_cue_is_the_place_of_its_label(name):
    dataset = loaded(name)
    for part in (dataset.train, dataset.test):
        assert part.cues.tolist() == part.labels.tolist() == list(range(10))


@pytest.mark.parametrize("name", COLOURS)
def test_random_cues_are_uniform_over_the_ten_places(name):
    cues = loaded(name).random_cue(20_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(cues, minlength=10)
    assert len(counts) == 10 and cues.min() >= 0
    assert chisquare(counts.numpy()).pvalue > 0.001


def test_random_cues_are_fixed_by_the_generators_seed():
    dataset = loaded("digits-box")
    first, again, other = (dataset.random_cue(50, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_images_of_another_number_of_classes_are_refused():
    with pytest.raises(UserError, match=r"7 classes.*made for 10"):
        loaded("cifar10-box", FakeSources(classes=7))
