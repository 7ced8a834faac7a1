"""Random crops and flips of training images, before their cues are drawn."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.errors import UserError


def augmented(images: CuedImages, generator: torch.Generator) -> CuedImages:
    """Return the set with a new `crop_flip` of each image in each epoch; what its cue draws is neither cut nor flipped.

    `shuffled` and `stream` show the images so; `batch` and `in_order` show them as they are.

    Raises
    ------
    UserError
        When the set is not one of 8-bit images, as vectors are not.
    """
    if images.storage.ndim != 4 or images.storage.dtype != torch.uint8:
        shape = ", ".join(map(str, ["N", *images.storage.shape[1:]]))
        has = f"{images.storage.dtype} of shape ({shape})".removeprefix("torch.")
        raise UserError(f"pretrain.augment = crop-flip needs images of 8 bits, not {has}: set it to none")
    return replace(images, held=None, augment=lambda stored: crop_flip(stored, generator))


def crop_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a random crop of each image after padding, mirrored left to right with chance ½ (He et al., 2016).

    An eighth of each side is added at either end, 4 pixels to 32, as black: -1 once images are scaled to [-1, 1].

    Parameters
    ----------
    images
        uint8 of shape (n, C, H, W).
    generator
        On the images' device.
    """
    n, _, height, width = images.shape
    down, right = height // 8, width // 8

    def draw(bound: int) -> torch.Tensor:
        return torch.randint(bound, (n, 1), generator=generator, device=images.device)

    rows = draw(2 * down + 1) + torch.arange(height, device=images.device)  # (n, H)
    columns = draw(2 * right + 1) + torch.arange(width, device=images.device)  # (n, W)
    columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    padded = F.pad(images, (right, right, down, down)).permute(0, 2, 3, 1)  # (n, H', W', C)
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
