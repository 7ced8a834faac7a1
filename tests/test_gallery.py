"""The gallery of a data set: which images it shows, their pixels, and the command that draws it."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.report.figures import save
from mmc_bench.report.gallery import draw_gallery, sample_rows, tiled
from mmc_bench.results.metrics import SPLITS


def splits_of(labels, shape=(3, 8, 8), storage=None):
    """Return four splits over the same random images; a split's cue is a shift of all pixels."""
    if storage is None:
        storage = torch.randint(256, (len(labels), *shape), dtype=torch.uint8)
    return {
        name: CuedImages(
            storage,
            torch.arange(len(labels)),
            torch.tensor(labels),
            torch.full((len(labels),), 0.25 * place),
            lambda images, cue: images + cue.view(-1, *[1] * (images.ndim - 1)),
        )
        for place, name in enumerate(SPLITS)
    }


# --- which images


def test_the_first_image_of_each_class_is_shown_in_the_order_of_the_labels():
    assert sample_rows(torch.tensor([2, 0, 2, 1, 0, 3])).tolist() == [1, 3, 0, 5]


def test_of_few_classes_several_images_each_are_shown_as_far_as_there_are_any():
    assert sample_rows(torch.tensor([2, 0, 2, 1, 0, 2])).tolist() == [1, 4, 3, 0, 2]
    assert sample_rows(torch.arange(40) % 2).tolist() == [0, 2, 4, 1, 3, 5]


def test_of_a_hundred_classes_ten_are_shown_evenly_spread():
    labels = torch.arange(100).repeat(2).flip(0)
    assert labels[sample_rows(labels)].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]


def test_classes_without_an_image_leave_no_gap():
    assert sample_rows(torch.tensor([7, 3, 7])).tolist() == [1, 0, 2]
    assert sample_rows(torch.tensor([7])).tolist() == [0]


# --- pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mosaic_is_what_a_loop_over_pixels_paints(channels):
    images = torch.rand(4, 3, channels, 5, 7) * 3 - 1.5  # beyond [-1, 1], which is cut off
    mosaic = tiled(images)
    expected = np.ones((4 * 5 + 3 * 2, 3 * 7 + 2 * 2, 3))
    for row in range(4):
        for column in range(3):
            for y in range(5):
                for x in range(7):
                    for channel in range(3):
                        value = images[row, column, channel % channels, y, x].item()
                        expected[row * 7 + y, column * 9 + x, channel] = min(max((value + 1) / 2, 0), 1)
    assert np.allclose(mosaic.numpy(), expected, atol=1e-6)


def test_the_picture_has_a_row_for_each_split_and_a_column_for_each_image(tmp_path):
    splits = splits_of([1, 0, 2, 0])
    figure = draw_gallery("stripes", splits)
    (axes,) = figure.axes
    assert axes.get_title() == "stripes"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0", "1", "2"]
    assert [label.get_text().split("\n")[0] for label in axes.get_yticklabels()] == list(SPLITS)
    assert axes.get_xticks().tolist() == [3.5, 13.5, 23.5, 33.5]
    drawn = axes.images[0].get_array()
    for row, split in enumerate(splits.values()):
        images, _ = split.batch(torch.tensor([1, 3, 0, 2]))
        for column, image in enumerate(images):
            shown = drawn[row * 10 : row * 10 + 8, column * 10 : column * 10 + 8]
            assert np.allclose(shown, ((image + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy())
    # In the file every pixel is a square of 12 x 12 dots, after margins of 1.35 and .35 inches.
    (path,) = save(figure, tmp_path, "stripes", ["png"])
    dots = np.asarray(Image.open(path).convert("RGB")) / 255
    dots = dots[56 : 56 + 12 * len(drawn), 216 : 216 + 12 * drawn.shape[1]]
    assert np.abs(dots - np.kron(drawn, np.ones((12, 12, 1)))).max() <= 1 / 255


def test_the_same_gallery_is_the_same_file(tmp_path):
    splits = splits_of([0, 1])
    files = [
        path.read_bytes()
        for name in ("a", "b")
        for path in save(draw_gallery("x", splits), tmp_path, name, ["png", "svg"])
    ]
    assert files[:2] == files[2:]


@pytest.mark.parametrize("shape", [(12,), (2, 8, 8)], ids=["vectors", "two channels"])
def test_what_is_no_picture_is_refused(shape):
    splits = splits_of([0, 1], storage=torch.zeros(2, *shape))
    with pytest.raises(UserError, match=r"noise has inputs of shape .*only images"):
        draw_gallery("noise", splits)


def test_further_test_sets_have_rows_below_the_four_splits():
    splits = splits_of([0, 1])
    (axes,) = draw_gallery("stripes", {"other_absent": splits["RI"], **splits}).axes
    assert [label.get_text().split("\n")[0] for label in axes.get_yticklabels()] == [*SPLITS, "other absent"]
    assert len(axes.images[0].get_array()) == 5 * 10 - 2


# --- the command


@pytest.mark.slow
def test_plot_draws_a_data_set_in_both_formats(bench):
    result = bench("plot", "--dataset", "digits-box", "--out", "pictures")
    assert (result.code, result.err) == (0, "")
    names = ["images-digits-box.png", "images-digits-box.svg"]
    assert sorted(path.name for path in (bench.folder / "pictures").iterdir()) == names
    assert [line.rpartition("/")[2] for line in result.out.split()] == names
    assert not (bench.folder / "results").exists()


def test_plot_draws_third_party_sets_and_those_of_a_glob(bench):
    result = bench("plot", "--dataset", "tiny-*", "--format", "png")
    assert (result.code, result.out.split()) == (0, ["figures/images-tiny-set.png"])


def test_an_unknown_data_set_is_answered_with_the_nearest(bench):
    result = bench("plot", "--dataset", "digit-box")
    assert result.code == 4
    assert "did you mean digits-box" in result.err


def test_missing_images_are_not_downloaded_against_the_users_will(bench):
    result = bench("plot", "--dataset", "cifar10-box", "--no-download")
    assert result.code == 4
    assert "cifar10 is not in" in result.err and "--no-download" in result.err


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_one_sentence(bench):
    (bench.folder / "taken").write_text("")
    result = bench("plot", "--dataset", "tiny-set", "--out", "taken")
    assert result.code == 4
    assert "choose another --out" in result.err
