"""The README's picture of a cue: what it shows on the four splits is what the splits are."""

import matplotlib.image
import pytest
import torch
from mmc_bench_benchmarks.cue_picture import FOLDER, LABELS, THEMES, draw, tiles


@pytest.fixture(scope="module")
def shown():
    return tiles()


def box(image):
    """Return the red pixels of an image (16, 16, 3) as their rows and columns, (9, 2)."""
    return ((image[..., 0] == 1) & (image[..., 1] == 0)).nonzero()


def test_the_box_is_where_the_rule_of_the_picture_says(shown):
    for label, plain, cued, random_image in zip(LABELS, shown["NC"], shown["C"], shown["RI"], strict=True):
        assert len(box(plain)) == 0
        where = box(cued)
        assert len(where) == 9
        assert ((where.float().mean(0) - 1) / 13 * 2).round().tolist() == [label // 3, label % 3]
        assert torch.equal(box(random_image), where)
        different = (plain != cued).any(-1).nonzero().tolist()
        assert all(pixel in where.tolist() for pixel in different)


def test_a_random_cue_and_a_random_image_are_seen_to_be_others(shown):
    for plain, cued, moved, other in zip(*(shown[name] for name in ("NC", "C", "RC", "RI")), strict=True):
        assert len(box(moved)) == 9 and not torch.equal(box(moved), box(cued))
        outside = torch.ones(16, 16, dtype=torch.bool)
        outside[tuple(torch.cat([box(moved), box(cued)]).T)] = False
        assert torch.equal(moved[outside], plain[outside])
        assert not torch.equal(other[outside], plain[outside])


@pytest.mark.parametrize("theme", THEMES)
def test_the_committed_picture_has_the_size_that_is_drawn(shown, theme):
    height, width, _ = matplotlib.image.imread(FOLDER / f"cue-{theme}.png").shape
    assert [width, height] == [round(100 * side) for side in draw(shown, THEMES[theme]).get_size_inches()]
