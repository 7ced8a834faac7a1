"""What a dataset plugin offers: images, labels, and a cue."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mmc_bench.data.stored import Images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmc_bench.data.decoded import Box, Fit


@dataclass(frozen=True)
class SourceImages:
    """Images in dataset order, as an image source has them.

    Parameters
    ----------
    images
        uint8 of shape (N, C, H, W), in memory or in a file (`mmc_bench.data.stored`), or float vectors (N, D).
    labels
        int64 tensor of shape (N,) with values in [0, K).
    """

    images: Images
    labels: torch.Tensor

    def with_cues(self, cues: torch.Tensor) -> "LabelledImages":
        """Return the same images with the cue code of each, of shape (N,) or (N, …)."""
        return LabelledImages(self.images, self.labels, cues)


@dataclass(frozen=True)
class LabelledImages(SourceImages):
    """Images in dataset order, each with its own cue.

    Parameters
    ----------
    cues
        The code of each image's own cue, of shape (N,) or (N, …). A code whose first number is negative means that
        the image has no cue.
    """

    cues: torch.Tensor


def has_cue(cues: torch.Tensor) -> torch.Tensor:
    """Tell which cue codes (n, …) stand for a cue, as bool of shape (n,): those whose first number is not negative."""
    first = cues if cues.ndim == 1 else cues.flatten(1)[:, 0]
    return first >= 0


class Dataset(Protocol):
    """A dataset with a controllable cue. The core derives every split from these members.

    A dataset's class is made with its ``Config`` (or without arguments, and given ``config``); then ``load``
    is called once, with the image sources of this run. The class may set ``clean_images`` and
    ``validation_images``, the sizes of the two held-out sets (2,500 each by default).

    An image without a cue is the image itself, and never passed to `render`. Where a cue changes an image's shape,
    a function ``without_cue(images)`` returns pictures of that shape without a cue. Where training images have other
    random cues than test images, ``random_train_cue(n, generator)`` draws them. A class attribute ``blended = True``
    says that cues are blended into all of the image, and hide half of it at most.

    Records have the worst group over label and cue on RC besides the worst split. Cue codes (N,) that are whole numbers
    of at most 100 values make these groups as they are; for others, ``cue_groups(cues)`` returns a whole number (n,)
    for each code (n, …) of a cue, or None where cues make no groups. These are also the attributes that methods see.

    `other_tests`, a mapping of names to `LabelledImages`, may hold further versions of the test images, in the order of
    `test` and with its labels, each image drawn with the cue that it has there. Names begin with ``other_``. Models are
    scored on them as well; no method sees them. Where the images of `test` have a second cue, which goes with their
    label and is no part of cue codes, ``other_random_NC`` and ``other_random_C`` are those with a random second cue,
    and with no first one or that of their label: tables then have the reliance on the second
    (`mmc_bench.report.other_cue`).
    """

    num_classes: int
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: "ImageSources") -> None:
        """Fill `train`, `test` and `num_classes`."""

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` cue codes drawn uniformly, whatever the label; none of them is negative."""

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with their cues. Must be pure.

        Parameters
        ----------
        images
            float tensor of shape (n, C, H, W), scaled to [-1, 1]; must not be changed in place.
        cue
            Cue codes of shape (n, …), on the images' device; none of them is negative.

        Returns
        -------
        torch.Tensor
            float tensor of shape (n, C', H', W'), what the network sees.
        """


class GroupedDataset(Protocol):
    """A dataset whose images come as they are, each with an attribute; its spec has ``splits="groups"``.

    A group is a label and an attribute. `cues` of all parts are the attributes' codes (N,), whole numbers from 0 on.
    `validation` (N,), bool, tells which images of `train` are for validation, and for no training. Where it is missing
    or None, a random part of them is held out.
    """

    num_classes: int
    train: LabelledImages
    test: LabelledImages
    validation: torch.Tensor | None

    def load(self, sources: "ImageSources") -> None:
        """Fill `train`, `test`, `num_classes` and, where it is known, `validation`."""


class ImageSources(Protocol):
    """Where a dataset gets its images from."""

    def load(self, name: str, size: tuple[int, int] | None = None) -> tuple[SourceImages, SourceImages]:
        """Return the train and test images of a source, such as ``"cifar10"``.

        A source that is not built in has the size (H, W) of its images, which must then be alike, or that given here.
        """

    def listing(self, name: str) -> Any:
        """Return what the source's layout function, as the dataset's spec names it, found in its folder."""

    def decode(
        self,
        name: str,
        files: "Sequence[str]",
        size: tuple[int, int],
        channels: int = 3,
        masks: "Sequence[str] | None" = None,
        fit: "Fit" = "stretch",
        boxes: "Sequence[Box] | None" = None,
    ) -> Images:
        """Return image files of a source with a layout, uint8 of shape (N, C, H, W), decoded once and then cached.

        Parameters
        ----------
        files
            Names below the listing's root, N in all.
        size
            Height and width.
        channels
            1 (grey), 3 (RGB) or 4 (RGB and opacity).
        masks
            Names of N grey images that say how opaque each image is.
        fit
            How an image gets this shape: "stretch" it; "cover" the shape with the middle of it; or have the shape
            "contain" all of it.
        boxes
            What is seen of each image, before it is fitted: left, top, right and bottom, in shares of its sides. It is
            resized as a part of the whole: as if cut out afterwards.
        """
