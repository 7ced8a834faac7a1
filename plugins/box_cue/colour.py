"""The box cue with colour, for a hundred classes (Lubana et al., 2023, App. A.1)."""

import torch

from mmc_bench import BaseConfig
from mmc_bench.data.contract import ImageSources, LabelledImages

from .dataset import BOX_SIZE, box_pixels, grid_corners, load_classes, with_boxes

PLACES = 10


class Cifar100BoxColour:
    """CIFAR-100 with a 3x3 box whose place tells label mod 10, and whose colour tells label div 10.

    Places 0 to 8 are those of the box cue without colour. At place 9 the box lies a quarter of the side up
    and left of the central one: its upper left pixel is at ((side - 3) // 2 - side // 4) on both axes, (6, 6)
    in an image of 32x32 pixels.

    The colour is the hue (label div 10) / 10 at full saturation and value, in channels (blue, red, green) as
    in the authors' code, from 0 to 1 in the images' scale of [-1, 1].

    A cue code has four numbers: the place, then the values of the box's three channels. RC draws the place from
    all ten and the hue from [0, 1), independently.
    """

    class Config(BaseConfig):
        """This cue has no parameters."""

    num_classes = 100
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: ImageSources) -> None:
        """Load the images and lay out the boxes."""
        train, test = load_classes(sources, "cifar100", self.num_classes)
        self.train, self.test = (part.with_cues(cues_of(part.labels)) for part in (train, test))
        height, width = self.train.images.shape[-2:]
        row, column = ((side - BOX_SIZE) // 2 - side // 4 for side in (height, width))
        self._pixels = box_pixels([*grid_corners(height, width), (row, column)])

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` places, uniform on 0 to 9, with colours of hues uniform on [0, 1); of shape (n, 4)."""
        place = torch.randint(PLACES, (n,), generator=generator)
        return cue_codes(place, torch.rand(n, generator=generator, dtype=torch.float64))

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with a coloured box each."""
        if self._pixels.device != images.device:  # moved once, not with every batch
            self._pixels = self._pixels.to(images.device)
        return with_boxes(images, cue[:, 0].long(), self._pixels, cue[:, None, 1:])


def cues_of(labels: torch.Tensor) -> torch.Tensor:
    """Return the place and colour of each label's box, of shape (n, 4)."""
    return cue_codes(labels % PLACES, (labels // PLACES).double() / 10)


def cue_codes(place: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Return codes of shape (n, 4), float32: the place, and the colour of a hue (float64) as (B, R, G)."""
    red, green, blue = saturated_colour(hue).unbind(1)
    return torch.stack([place.double(), blue, red, green], dim=1).float()


def saturated_colour(hue: torch.Tensor) -> torch.Tensor:
    """Return red, green and blue in [0, 1], of shape (n, 3), of hues in [0, 1) at full saturation and value.

    A channel is 1 up to a sixth of the circle from its own hue (0, 1/3 and 2/3), and falls to 0 at a third.
    """
    sixths = 6 * hue
    red, green, blue = (sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()
    return torch.stack([red, green, blue], dim=1).clamp(0, 1)
