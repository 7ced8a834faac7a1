"""Images that stay in a file, where they take more memory than they may: only a batch of them is read at a time."""

import contextlib
import mmap
import warnings
from pathlib import Path

import torch

#: What decoded images, and rendered splits, may take of memory by default, in bytes; more stays in a file.
IMAGE_MEMORY = 2 * 2**30

#: After so many bytes, pages that were read are given back: they would count as this process's memory.
KEPT_PAGES = 256 * 2**20


class MappedImages:
    """8-bit images in a file, in channels_last order, that `rows` reads as they are asked for.

    Parameters
    ----------
    path
        The file: the images one after another, each (H, W, C).
    shape
        (N, C, H, W).
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.shape = torch.Size(shape)
        n, channels, height, width = shape
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), n * channels * height * width, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the buffer that cannot be written, which nobody does
            self._pixels = torch.frombuffer(self._map, dtype=torch.uint8).view(n, height, width, channels)
        self._touched = 0

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.shape)

    @property
    def bytes_of_image(self) -> int:
        """Bytes of one image."""
        return self.shape[1:].numel()

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return the chosen images (n, C, H, W), channels_last, on the device of `index`, int64 of shape (n,)."""
        on_gpu = index.device.type == "cuda"
        chosen = torch.empty(len(index), *self._pixels.shape[1:], dtype=torch.uint8, pin_memory=on_gpu)
        torch.index_select(self._pixels, 0, index.cpu(), out=chosen)
        self._touched += len(index) * self.bytes_of_image
        if self._touched > KEPT_PAGES:
            self._touched = 0
            with contextlib.suppress(AttributeError, OSError):  # where there is no such advice, the system decides
                self._map.madvise(mmap.MADV_DONTNEED)
        return chosen.to(index.device, non_blocking=True).permute(0, 3, 1, 2)


#: Images (N, C, H, W), or vectors (N, D): in memory, or in a file.
Images = torch.Tensor | MappedImages


def in_memory(images: Images) -> torch.Tensor:
    """Return all images as a tensor, however much memory that takes."""
    return images if isinstance(images, torch.Tensor) else images.rows(torch.arange(len(images)))


def rows_of(images: Images, index: torch.Tensor) -> torch.Tensor:
    """Return the chosen images, in channels_last memory: each is one stretch of it to copy."""
    if isinstance(images, MappedImages):
        return images.rows(index)
    if images.ndim != 4:
        return images.index_select(0, index)
    return images.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
