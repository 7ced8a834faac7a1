"""Any images with two cues: one that methods are to remove, and a second that the clean images keep.

Removing one cue can make a model rely more on another: see Li et al., "A Whac-A-Mole Dilemma: Shortcuts Come in
Multiples Where Mitigating One Amplifies Others", CVPR 2023. There, cues are those of UrbanCars; here, any two kinds.
"""

from collections.abc import Mapping

import torch
from pydantic import Field, field_validator

from mmc_bench import BaseConfig, UserError
from mmc_bench.data.contract import ImageSources, LabelledImages, SourceImages

from .dataset import CueOfEachClass, Kind, check_apart, draw
from .patterns import ALL_OVER, Patterns

SEED = 20260301
AT_ONCE = 1000  # images


class TwoCues(CueOfEachClass):
    """Images with two cues of their class, of which `render` draws the first.

    The second is part of the stored images, and so of those without a cue, the clean set's as well: a share
    `other_rate` of each class's training images has that of their class, the others none. All images of `test` have it.
    `other_tests` are the test images without any cue, and with the second cue of a random class: without the first
    (``other_random_NC``) or with that of their own class (``other_random_C``).

    `masks` and `other_masks` have each cue's exact share of the pixels. Where a pixel could be of both, and neither is
    all over the image, it is the smaller one's.
    """

    class Config(BaseConfig):
        """What the cues are."""

        cues: tuple[Kind, ...] = Field(("box", "patch"), description="kinds of the cue to remove, and of the other")
        strength: float | None = Field(None, gt=0, le=1, description="opacity of the first; by default its kind's own")
        size: float | None = Field(None, gt=0, le=0.5, description="of the first, in shares of the shorter side")
        other_strength: float | None = Field(None, gt=0, le=1, description="opacity of the other")
        other_size: float | None = Field(None, gt=0, le=0.5, description="of the other, in shares of the shorter side")
        other_rate: float = Field(0.9, ge=0, le=1, description="share of training images that carry the other")

        @field_validator("cues")
        @classmethod
        def _two_kinds(cls, cues: tuple[Kind, ...]) -> tuple[Kind, ...]:
            if len(cues) != 2 or len({*cues}) != 2:
                raise ValueError("name two different kinds")
            return cues

    def __init__(self, config: Config) -> None:
        self.config = config

    def _images(self, sources: ImageSources) -> tuple[SourceImages, SourceImages]:
        raise NotImplementedError

    def load(self, sources: ImageSources) -> None:
        """Load the images, draw the cues of each class, and put the second into the images.

        Raises
        ------
        UserError
            When the images take too much memory, or there are too few pixels for as many different cues as classes.
        """
        config, (train, test) = self.config, self._images(sources)
        first, other = config.cues
        self._set_sizes(train.labels)
        cue = draw(first, self.num_classes, train.images, config.size, config.strength)
        planted = draw(other, self.num_classes, train.images, config.other_size, config.other_strength)
        if not ALL_OVER & {first, other}:
            cue, planted = _apart(cue, planted)
        (self._pictures, self.masks), (pictures, self.other_masks) = cue, planted
        check_apart(first, self._pictures, self.masks)
        check_apart(other, pictures, self.other_masks * (1 - self.masks.amax(0)))  # as it is seen behind the first
        generator = torch.Generator().manual_seed(SEED)
        there = _share_of_each_class(train.labels, config.other_rate, generator)
        random = torch.randint(self.num_classes, test.labels.shape, generator=generator)

        def with_other(part: SourceImages, codes: torch.Tensor) -> SourceImages:
            return SourceImages(_drawn(part, codes, pictures, self.other_masks), part.labels)

        self.train = with_other(train, train.labels.where(there, -1)).with_cues(train.labels)
        self.test = with_other(test, test.labels).with_cues(test.labels)
        none, with_random = torch.full_like(test.labels, -1), with_other(test, random)
        self.other_tests: Mapping[str, LabelledImages] = {
            "other_absent": test.with_cues(none),
            "other_random_NC": with_random.with_cues(none),
            "other_random_C": with_random.with_cues(test.labels),
        }


class TwoCuesInDigits(TwoCues):
    """The embedded digits with two cues."""

    def _images(self, sources: ImageSources) -> tuple[SourceImages, SourceImages]:
        return sources.load("digits")


class TwoCuesInImages(TwoCues):
    """Images in class folders with two cues."""

    class Config(TwoCues.Config):
        """What the cues are."""

        pixels: int | None = Field(None, ge=4, description="side that images are resized to; by default they are alike")

    config: Config

    def _images(self, sources: ImageSources) -> tuple[SourceImages, SourceImages]:
        pixels = self.config.pixels
        return sources.load("images", None if pixels is None else (pixels, pixels))


def _apart(first: Patterns, other: Patterns) -> tuple[Patterns, Patterns]:
    """Return two cues of which none hides the other: where both could be, the smaller one alone is."""
    (pictures, masks), (other_pictures, other_masks) = first, other
    if masks.count_nonzero() < other_masks.count_nonzero():
        other_masks = other_masks.where(masks.amax(0) == 0, 0)
    else:
        masks = masks.where(other_masks.amax(0) == 0, 0)
    return (pictures, masks), (other_pictures, other_masks)


def _share_of_each_class(labels: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Return a boolean mask (N,) of ``int(rate * n)`` random images of each class of n."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        chosen[own[torch.randperm(len(own), generator=generator)[: int(rate * len(own))]]] = True
    return chosen


def _drawn(part: SourceImages, codes: torch.Tensor, pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return 8-bit images (N, C, H, W) with the cues of these codes (N,), where they are not negative."""
    if not isinstance(part.images, torch.Tensor):
        raise UserError("two cues need their images in memory: allow more with --image-memory, or make them smaller")
    images = part.images.clone()
    for rows in (codes >= 0).nonzero()[:, 0].split(AT_ONCE):
        levels = (pictures[codes[rows]] + 1) * 127.5
        images[rows] = torch.lerp(images[rows].float(), levels, masks[codes[rows]]).round().byte()
    return images
