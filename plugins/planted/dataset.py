"""Any images, with a cue of a chosen kind, size and strength."""

from typing import Literal

import torch
from pydantic import Field

from mmc_bench import BaseConfig, UserError
from mmc_bench.data.contract import ImageSources, LabelledImages
from mmc_bench.data.stored import Images

from .patterns import KINDS, Patterns

Kind = Literal["box", "patch", "border", "texture", "frequency"]

#: Of the training images, what the clean and the validation set are at most.
HELD_OUT, MOST_HELD_OUT = 0.1, 2500

#: Of images in [-1, 1].
GREY_LEVEL = 2 / 255


class CueOfEachClass:
    """Images with the cue of their class; a cue code is a class, and RC draws from all of them.

    The cue is blended into the image: at strength s, and where its picture is seen fully, an image x becomes
    (1 - s) x + s p, with p the picture of its class. The exact share of each pixel is in `masks`.
    """

    blended = True  # where its strength is below 1
    train: LabelledImages
    test: LabelledImages
    num_classes: int
    clean_images: int
    validation_images: int
    masks: torch.Tensor  # (K, 1, H, W)
    _pictures: torch.Tensor  # (K, C, H, W)

    def _set_sizes(self, labels: torch.Tensor) -> None:
        """Set the number of classes, and the sizes of the held-out sets, from the labels of the training images."""
        self.num_classes = int(labels.max()) + 1
        self.clean_images = self.validation_images = min(max(int(HELD_OUT * len(labels)), 1), MOST_HELD_OUT)

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` classes drawn uniformly."""
        return torch.randint(self.num_classes, (n,), generator=generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with their cues blended in."""
        if self._pictures.device != images.device:  # moved once, not with every batch
            self._pictures, self.masks = self._pictures.to(images.device), self.masks.to(images.device)
        pictures, masks = self._pictures[cue].to(images.dtype), self.masks[cue].to(images.dtype)
        return torch.lerp(images, pictures, masks)


class Planted(CueOfEachClass):
    """Images in class folders, each with the cue of its class."""

    class Config(BaseConfig):
        """What the cue is."""

        cue: Kind = Field("box", description="kind of cue")
        strength: float | None = Field(None, gt=0, le=1, description="opacity; by default the kind's own")
        relative_strength: float = Field(1.0, gt=0, le=1, description="what the opacity is multiplied by")
        size: float | None = Field(None, gt=0, le=0.5, description="of the shorter side; by default the kind's own")
        pixels: int | None = Field(None, ge=4, description="side that images are resized to; by default they are alike")

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self, sources: ImageSources) -> None:
        """Load the images, and draw the cue of each class.

        Raises
        ------
        UserError
            When there are too few pixels for as many different cues as there are classes.
        """
        config = self.config
        train, test = sources.load("images", None if config.pixels is None else (config.pixels, config.pixels))
        self.train, self.test = train.with_cues(train.labels), test.with_cues(test.labels)
        self._set_sizes(train.labels)
        self._pictures, self.masks = draw(config.cue, self.num_classes, train.images, config.size, config.strength)
        self.masks = self.masks * config.relative_strength
        check_apart(config.cue, self._pictures, self.masks)


def draw(kind: Kind, classes: int, images: Images, size: float | None, strength: float | None) -> Patterns:
    """Return the pictures (K, C, H, W) of a kind of cue in images (N, C, H, W), and their masks (K, 1, H, W)."""
    pattern, usual_size, usual_strength = KINDS[kind]
    channels, height, width = images.shape[1:]
    pictures, shares = pattern(classes, height, width, size or usual_size)
    return pictures[:, :channels], shares * (strength or usual_strength)


def check_apart(kind: Kind, pictures: torch.Tensor, masks: torch.Tensor) -> None:
    """Refuse cues that cannot be told apart, by a `UserError`."""
    if not _tell_apart(pictures * masks):
        classes, (height, width) = len(masks), masks.shape[-2:]
        raise UserError(f"{classes} classes are too many for a {kind} in {height}x{width} pixels")


def _tell_apart(cues: torch.Tensor) -> bool:
    """Tell whether each of K cues (K, C, H, W) is seen, and differs from the others by a grey level at some pixel."""
    flat = torch.cat([cues.flatten(1), torch.zeros(1, cues[0].numel())])
    return all((flat[k + 1 :] - flat[k]).abs().amax(1).min() >= GREY_LEVEL for k in range(len(cues)))
