"""The box cue (Lubana et al., 2023, App. A.1)."""

import torch

from mmc_bench import BaseConfig, UserError
from mmc_bench.data.contract import ImageSources, LabelledImages

BOX_SIZE = 3
NUM_CLASSES = 10


class BoxCue:
    """A 3x3 box at one of nine places of a grid tells labels 0 to 8; label 9 has no box.

    The grid's rows and columns start at 0, (side - 3) // 2 and side - 3. A cue code is the place, 0 to 9,
    row by row from the upper left; 9, like every negative code, means no box. RC draws from all ten.
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
        self.train, self.test = sources.load(self.source)
        classes = int(self.train.labels.max()) + 1
        if classes != NUM_CLASSES:
            raise UserError(f"{self.source} has {classes} classes, but the box cue is made for {NUM_CLASSES}")
        self._boxes = box_masks(*self.train.images.shape[-2:])

    def cue_of(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the place of each label's box: the label itself."""
        return labels.clone()

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` places drawn uniformly from 0 to 9."""
        return torch.randint(NUM_CLASSES, (n,), generator=generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with a box each."""
        boxes = self._boxes.to(images.device)[cue.clamp(min=-1)]  # (n, H, W); -1 is the last place: no box
        colour = images.new_tensor(self.colour)[:, None, None]
        return torch.where(boxes[:, None], colour, images)


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


def box_masks(height: int, width: int) -> torch.Tensor:
    """Return a boolean mask of shape (10, H, W): the pixels of each place's box, none for place 9."""
    masks = torch.zeros(NUM_CLASSES, height, width, dtype=torch.bool)
    rows, columns = ((0, (side - BOX_SIZE) // 2, side - BOX_SIZE) for side in (height, width))
    for place in range(9):
        row, column = rows[place // 3], columns[place % 3]
        masks[place, row : row + BOX_SIZE, column : column + BOX_SIZE] = True
    return masks
