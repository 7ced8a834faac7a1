"""What is seen of an image file: the part in its box, before it gets another shape."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmc_bench.data.listing import Listing
from mmc_bench.data.sources import Sources

SIZES = ((12, 18), (20, 8))  # height and width


@pytest.fixture
def decode(tmp_path):
    """Return what decodes two images of noise, with a red rectangle in the middle half of each side."""
    generator = np.random.default_rng(0)
    names = ("a.png", "b.png")
    for name, (height, width) in zip(names, SIZES, strict=True):
        pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
        pixels[height // 4 : -height // 4, width // 4 : -width // 4] = (255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / name)
    sources = Sources({"noise": str(tmp_path)}, layouts={"noise": lambda folder: Listing(root=folder, files=names)})
    return lambda **how: sources.decode("noise", names, **how).int()


def test_the_middle_is_what_is_cut_out_of_a_larger_picture(decode):
    larger = decode(size=(16, 32))
    boxes = [(0.25, 0.125, 0.75, 0.875), (0.5, 0.0, 1.0, 0.75)]
    first, second = decode(size=(12, 16), boxes=boxes)
    assert (first - larger[0, :, 2:14, 8:24]).abs().max() <= 1
    assert (second - larger[1, :, :12, 16:]).abs().max() <= 1


def test_what_is_seen_is_fitted_as_whole_images_are(decode):
    inside = [(0.35, 0.35, 0.65, 0.65)] * 2  # far enough within the red that no other pixel is weighed in
    red = torch.tensor([255, 0, 0])[:, None, None]
    assert (decode(size=(6, 6), boxes=inside, fit="cover") == red).all()
    wide, high = decode(size=(6, 6), boxes=inside, fit="contain")
    for picture, (height, width) in ((wide, (4, 6)), (high, (6, 2))):
        expected = torch.zeros(3, 6, 6, dtype=torch.int32)
        top, left = (6 - height) // 2, (6 - width) // 2
        expected[:, top : top + height, left : left + width] = red
        assert torch.equal(picture, expected)
