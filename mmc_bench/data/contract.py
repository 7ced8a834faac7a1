"""What a dataset plugin offers: images, labels, and a cue."""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class LabelledImages:
    """Images in data-set order.

    Parameters
    ----------
    images
        uint8 tensor of shape (N, C, H, W).
    labels
        int64 tensor of shape (N,) with values in [0, K).
    cues
        The cue code of each image, of shape (N,) or (N, …), for a cue that is not a function of the label
        alone (a pair in another image set, say); by default ``cue_of(labels)``.
    """

    images: torch.Tensor
    labels: torch.Tensor
    cues: torch.Tensor | None = None


class Dataset(Protocol):
    """A data set with a controllable cue. The core derives every split from these members.

    A dataset's class is made with its ``Config`` (or without arguments, and given ``config``); then ``load``
    is called once, with the image sources of this run. The class may set ``clean_images`` and
    ``validation_images``, the sizes of the two held-out sets (2,500 each by default).
    """

    num_classes: int
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: "ImageSources") -> None:
        """Fill `train`, `test` and `num_classes`."""

    def cue_of(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the cue code that goes with each label, shape (n, …); a negative code means no cue."""

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` cue codes drawn uniformly, whatever the label."""

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with their cues.

        Must be pure, and is called for every image of every split, with a negative code for "no cue".

        Parameters
        ----------
        images
            float tensor of shape (n, C, H, W), scaled to [-1, 1]; must not be changed in place.
        cue
            Cue codes of shape (n, …), on the images' device.

        Returns
        -------
        torch.Tensor
            float tensor of shape (n, C', H', W'), what the network sees.
        """


class ImageSources(Protocol):
    """Where a dataset gets its images from."""

    def load(self, name: str) -> tuple[LabelledImages, LabelledImages]:
        """Return the train and test images of a source, such as ``"cifar10"``."""
