"""Images that stay in a file, where they take more memory than they may: a batch of them is read at a time."""

import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

#: What decoded images, and rendered splits, may take of memory by default, in bytes; more stays in a file.
IMAGE_MEMORY = 2 * 2**30


class StoredImages:
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
        self.path, self.shape = path, torch.Size(shape)
        self._file, self._one_at_a_time = path.open("rb", buffering=0), Lock()
        weakref.finalize(self, self._file.close)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies, and other processes, open the file anew."""
        return type(self), (self.path, tuple(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes, 4."""
        return len(self.shape)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return the chosen images (n, C, H, W), channels_last, on the device of `index`, int64 of shape (n,)."""
        return self._read(index.cpu(), index.device).permute(0, 3, 1, 2)

    def read_ahead(self, batches: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the images of each batch on a device, as `rows` returns them, and read those of the next meanwhile.

        Parameters
        ----------
        batches
            Indices (n,) of the images of each batch, on the CPU.
        """
        copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        waiting: deque[Future[tuple[torch.Tensor, torch.cuda.Event | None]]] = deque()

        def read(index: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
            if copies is None:
                return self._read(index, self.device), None
            with torch.cuda.stream(copies):
                return self._read(index, device), copies.record_event()

        def next_one() -> torch.Tensor:
            images, copied = waiting.popleft().result()
            if copied is not None:  # the device waits for the copy, and the host does not
                torch.cuda.current_stream(device).wait_event(copied)
                images.record_stream(torch.cuda.current_stream(device))
            return images.to(device).permute(0, 3, 1, 2)

        with ThreadPoolExecutor(1) as reader:
            for index in batches:
                waiting.append(reader.submit(read, index))
                if len(waiting) > 1:
                    yield next_one()
            while waiting:
                yield next_one()

    def _read(self, index: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return the chosen images (n, H, W, C) on a device; those for a GPU are copied from pinned memory.

        Each is a read of its own: a mapped file would count as this process's memory, by up to 2 MB for an image.
        """
        _, channels, height, width = self.shape
        images = torch.empty(len(index), height, width, channels, dtype=torch.uint8, pin_memory=device.type == "cuda")
        size = channels * height * width
        for row, place in zip(images.numpy(), (index * size).tolist(), strict=True):
            if self._read_into(row, place) != size:
                raise OSError(f"{self.path} is shorter than it was")
        return images.to(device, non_blocking=device.type == "cuda")  # Apple's would read memory that is free by then

    def _read_into(self, row: np.ndarray, place: int) -> int:
        """Fill an array with the bytes from a place on, and return how many there were."""
        if hasattr(os, "preadv"):  # leaves the file's position alone, which forked processes share
            return os.preadv(self._file.fileno(), [row.data], place)
        with self._one_at_a_time:
            self._file.seek(place)
            return self._file.readinto(row.data) or 0


#: Images (N, C, H, W), or vectors (N, D): in memory, or in a file.
Images = torch.Tensor | StoredImages


def in_memory(images: Images) -> torch.Tensor:
    """Return all images as a tensor, however much memory that takes."""
    return images if isinstance(images, torch.Tensor) else images.rows(torch.arange(len(images)))


def rows_of(images: Images, index: torch.Tensor) -> torch.Tensor:
    """Return the chosen images, in channels_last memory: each is one stretch of it to copy."""
    if isinstance(images, StoredImages):
        return images.rows(index)
    if images.ndim != 4:
        return images.index_select(0, index)
    return images.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
