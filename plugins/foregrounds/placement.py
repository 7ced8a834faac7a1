"""Where on the picture a cut-out lies, how large it is, and how soft its edge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from mmc_bench.data.stored import Images, StoredImages

AT_ONCE = 256  # images


@dataclass(frozen=True)
class Placement:
    """What is done to each of N cut-outs. It belongs to the cut-out, and is the same whatever scene is behind it.

    Parameters
    ----------
    scale
        Factors of shape (N,).
    shift
        To the right and down, in shares of the side, of shape (N, 2).
    soften
        Width of the edge in pixels; 0 leaves it as it is.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    soften: float

    def placed(self, images: Images) -> Images:
        """Return cut-outs (N, 4, H, W), uint8, in their places; those in a file are placed as they are read."""
        if not self.soften and bool((self.scale == 1).all()) and not self.shift.any():
            return images
        if isinstance(images, StoredImages):
            n, channels, height, width = images.shape
            return _PlacedWhenRead(images.path, (n, channels, height, width), self)
        parts = torch.arange(len(images)).split(AT_ONCE)
        return torch.cat([self.of(images[rows], rows) for rows in parts])

    def of(self, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the cut-outs (n, 4, H, W) of these rows (n,) in their places; all tensors are on the CPU.

        Colours are weighted with opacity while they are resampled, so that hidden ones do not show at the edge. The
        arithmetic is float32 whatever the run's, so that cut-outs look the same wherever they are kept.
        """
        with torch.autocast("cpu", enabled=False):
            return self._resampled(images, self.scale[rows], self.shift[rows])

    def _resampled(self, images: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        pixels = images.float() / 255
        pixels = torch.cat([pixels[:, :3] * pixels[:, 3:], pixels[:, 3:]], dim=1)
        back = torch.zeros(len(images), 2, 3)  # from picture to cut-out
        back[:, 0, 0] = back[:, 1, 1] = 1 / scale
        back[:, :, 2] = -2 * shift / scale[:, None]
        grid = F.affine_grid(back, list(images.shape), align_corners=False)
        pixels = F.grid_sample(pixels, grid, align_corners=False)
        colour, opacity = pixels[:, :3], pixels[:, 3:]
        colour = colour / opacity.clamp(min=1 / 255)
        if self.soften:
            opacity = softened(opacity, self.soften)
        placed = torch.cat([colour, opacity], dim=1).mul(255).round().clamp(0, 255).byte()
        return placed.contiguous(memory_format=torch.channels_last)


class _PlacedWhenRead(StoredImages):
    """Cut-outs in a file that are put in their places as they are read: on the CPU, and then copied to the device."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int], placement: Placement) -> None:
        super().__init__(path, shape)
        self._placement = placement

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies, and other processes, open the file anew."""
        return type(self), (self.path, tuple(self.shape), self._placement)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return the chosen cut-outs (n, 4, H, W), as `StoredImages.rows` does."""
        on_host = index.cpu()
        return self._placement.of(super().rows(on_host), on_host).to(index.device)

    def read_ahead(self, batches: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the cut-outs of each batch, as `StoredImages.read_ahead` does."""
        batches = list(batches)
        for index, images in zip(batches, super().read_ahead(batches, self.device), strict=True):
            yield self._placement.of(images, index).to(device)


def softened(opacity: torch.Tensor, width: float) -> torch.Tensor:
    """Return opacity (n, 1, H, W) that fades to 0 at the edge, within it: nothing hidden is uncovered.

    Blurred by a Gaussian with a standard deviation of half the width, a straight edge is one half; what lies above is
    stretched to [0, 1]. The picture's own border is no edge.
    """
    return opacity.minimum((2 * blurred(opacity, width / 2) - 1).clamp(min=0))


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return images (n, C, H, W) under a Gaussian of standard deviation `sigma` pixels; their border goes on."""
    reach = max(round(3 * sigma), 1)
    reach = min(reach, *(side - 1 for side in images.shape[-2:]))
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-((steps / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        padded = F.conv2d(
            padded, kernel.view(shape).expand(channels, 1, *kernel.view(shape).shape[2:]), groups=channels
        )
    return padded
