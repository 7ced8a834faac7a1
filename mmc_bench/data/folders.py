"""Class folders as tensors: decoded once, and cached in a file that is checked before use."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL.Image import Resampling
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mmc_bench.data.cache import cache_root
from mmc_bench.data.class_folders import PARTS, ImageFile, fingerprint, read_class_folders
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.pictures import read_image
from mmc_bench.errors import UserError
from mmc_bench.system.files import write_whole


def load_folder(folder: Path, size: tuple[int, int] | None, channels: int | None) -> tuple[SourceImages, SourceImages]:
    """Return the train and test images of a folder in ``ImageFolder`` layout.

    Parameters
    ----------
    folder
        Holds ``train/<class>/*`` and ``test/<class>/*``; class names sort into label order.
    size
        Height and width that every image is resized to (bilinear, antialiased); None keeps the images' own,
        which must then all be equal.
    channels
        1 (grey) or 3 (RGB); None means 3.

    Raises
    ------
    UserError
        When the folder is malformed or an image cannot be read.
    """
    found, channels = read_class_folders(folder), channels or 3
    layout = f"{size}-{channels}-channels last-as shown"
    name = hashlib.sha256(f"{fingerprint(found)}-{layout}".encode()).hexdigest()[:24]
    cache = cache_root() / "decoded" / f"{name}.safetensors"
    tensors = _read_checked(cache)
    if tensors is None:
        with _lock(cache):  # one worker decodes, the others wait
            tensors = _read_checked(cache)
            if tensors is None:
                tensors = {}
                for part in PARTS:
                    pixels, labels = _decode(folder, found.images[part], size, channels)
                    tensors[f"{part}_pixels"], tensors[f"{part}_labels"] = pixels, labels
                _write(cache, tensors)
    train, test = (
        SourceImages(tensors[f"{part}_pixels"].permute(0, 3, 1, 2), tensors[f"{part}_labels"].long()) for part in PARTS
    )
    return train, test


def _lock(cache: Path) -> contextlib.AbstractContextManager[object]:
    """Return a lock on a cached file; nothing where the cache cannot be written, and each decodes for itself."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(cache.with_suffix(".lock")).acquire()
    except OSError:
        return contextlib.nullcontext()


def _decode(
    root: Path, listing: Sequence[ImageFile], size: tuple[int, int] | None, channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels (N, H, W, C) and labels (N,)."""
    pixels, expected = [], size
    for entry in listing:
        path = root / entry.name
        image = read_image(path, channels)
        if expected is None:
            expected = (image.height, image.width)
        if (image.height, image.width) != expected:
            if size is None:
                raise UserError(f"{path} is {image.width}x{image.height}; the first one is {expected[1]}x{expected[0]}")
            image = image.resize((expected[1], expected[0]), Resampling.BILINEAR)
        pixels.append(np.asarray(image))
    stacked = torch.from_numpy(np.stack(pixels))  # (N, H, W) or (N, H, W, 3)
    if stacked.ndim == 3:
        stacked = stacked[..., None]
    return stacked, torch.tensor([entry.label for entry in listing], dtype=torch.int64)


def _read_checked(cache: Path) -> dict[str, torch.Tensor] | None:
    """Return the cached tensors, or None when there are none or the file is damaged."""
    try:
        checksum = cache.with_suffix(".sha256").read_text()
        with cache.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
                return None
        return load_file(cache)  # maps the file: workers share its memory
    except (OSError, UnicodeDecodeError, SafetensorError):
        pass
    return None


def _write(cache: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write the tensors and their checksum; a cache that cannot be written is done without."""
    content = save(tensors)
    with contextlib.suppress(OSError):
        write_whole(cache, content)
        write_whole(cache.with_suffix(".sha256"), hashlib.sha256(content).hexdigest().encode())
