"""The box cue (Lubana et al., 2023, App. A.1)."""

from collections.abc import Sequence

import torch

from mmc_bench import BaseConfig, UserError
from mmc_bench.data.contract import ImageSources, LabelledImages, SourceImages

BOX_SIZE = 3
NUM_CLASSES = 10


class BoxCue:
    """A 3x3 box at one of nine places of a grid tells labels 0 to 8; label 9 has no box.

    The grid's rows and columns start at 0, (side - 3) // 2 and side - 3. A cue code is the place, 0 to 9,
    row by row from the upper left; 9 means no box. RC draws from all ten.
    """

    class Config(BaseConfig):
        """This cue has no parameters."""

    source: str
    colour: tuple[float, float, float]  # in the images' scale, [-1, 1]
    num_classes = NUM_CLASSES
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: ImageSources) -> None:
        """Load the images and lay out the boxes."""
        train, test = load_classes(sources, self.source, self.num_classes)
        self.train, self.test = train.with_cues(train.labels), test.with_cues(test.labels)
        self._pixels = box_pixels(grid_corners(*self.train.images.shape[-2:]))
        self._colour = torch.tensor(self.colour)

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` places drawn uniformly from 0 to 9."""
        return torch.randint(NUM_CLASSES, (n,), generator=generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with a box each."""
        if self._pixels.device != images.device:  # moved once, not with every batch
            self._pixels, self._colour = self._pixels.to(images.device), self._colour.to(images.device)
        return with_boxes(images, cue, self._pixels, self._colour)


class DigitsBox(BoxCue):
    """The embedded default: scikit-learn's digits, a red box, 150 clean and 150 validation images."""

    source = "digits"
    colour = (1.0, -1.0, -1.0)
    clean_images = 150
    validation_images = 150


class Cifar10Box(BoxCue):
    """CIFAR-10 with the authors' green box."""

    source = "cifar10"
    colour = (0.0, 1.0, 0.0)


def load_classes(sources: ImageSources, source: str, num_classes: int) -> tuple[SourceImages, SourceImages]:
    """Return the train and test images of a source.

    Raises
    ------
    UserError
        When the source has another number of classes than the cue is made for.
    """
    train, test = sources.load(source)
    classes = int(train.labels.max()) + 1
    if classes != num_classes:
        raise UserError(f"{source} has {classes} classes, but the box cue is made for {num_classes}")
    return train, test


def grid_corners(height: int, width: int) -> list[tuple[int, int]]:
    """Return row and column of the upper left pixel of each of the grid's nine boxes, places 0 to 8."""
    rows, columns = ((0, (side - BOX_SIZE) // 2, side - BOX_SIZE) for side in (height, width))
    return [(row, column) for row in rows for column in columns]


def box_pixels(corners: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return row and column of each pixel of the box at each of P corners, of shape (P, 9, 2)."""
    within = torch.cartesian_prod(torch.arange(BOX_SIZE), torch.arange(BOX_SIZE))  # (9, 2)
    return torch.tensor(corners)[:, None] + within


def with_boxes(images: torch.Tensor, place: torch.Tensor, pixels: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Return a copy of images (n, C, H, W) with a box each; only the boxes' pixels are written.

    Parameters
    ----------
    place
        Of shape (n,): a row of `pixels`; a number beyond the last means no box.
    pixels
        As `box_pixels` returns them.
    colour
        Of shape (C,), or (n, 1, C) for a colour each.
    """
    boxed = images.clone()
    canvas = boxed.permute(0, 2, 3, 1)  # (n, H, W, C): a pixel's channels lie together
    rows, columns = pixels[place.clamp(max=len(pixels) - 1)].unbind(-1)  # (n, 9) each
    where = (torch.arange(len(images), device=images.device)[:, None], rows, columns)
    has_box = place < len(pixels)
    canvas[where] = torch.where(has_box[:, None, None], colour.to(images.dtype), canvas[where])  # (n, 9, C)
    return boxed
