"""Image sources: torchvision's datasets, scikit-learn's digits, and class folders that replace them."""

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch.nn import functional as F

from mmc_bench.data.class_folders import is_class_folder
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.decoded import Box, DecodedShape, Fit, PictureFiles, decode
from mmc_bench.data.folders import load_folder
from mmc_bench.data.listing import Layout, Listing, identity_of, read_listing, refuse_changed
from mmc_bench.data.locations import KNOWN_SOURCES, KnownSource, data_root, order_of
from mmc_bench.data.stored import IMAGE_MEMORY, Images
from mmc_bench.errors import UserError, nearest

#: What pickle and numpy raise on truncated or foreign files.
UNREADABLE = (
    *(OSError, UnpicklingError, EOFError, KeyError, ValueError),
    *(AttributeError, IndexError, TypeError, AssertionError),
)

#: MD5 sums of the unpacked images and labels, by source and whether they are for training. torchvision checks archives
#: alone, and other datasets have files of the same names.
MNIST_MD5 = {
    ("mnist", True): ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
    ("mnist", False): ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    ("fashion-mnist", True): ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"),
    ("fashion-mnist", False): ("8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
}

DIGITS_SEED = 20260101
DIGITS_TEST_IMAGES = 500


@dataclass(frozen=True)
class Sources:
    """The image sources of one run.

    Parameters
    ----------
    folders
        What ``--data`` gave: a source's name and its folder.
    download
        Whether torchvision may download what is missing.
    allowed
        The sources that the dataset's spec lists; its keys hold no others.
    layouts
        What finds the files in the folders of sources that are no class folders.
    memory
        Bytes; images that take more stay in a file.
    images
        The identities of the images that the run was planned with, by source; those of others are not compared.
    """

    folders: Mapping[str, str] = field(default_factory=dict)
    download: bool = True
    allowed: tuple[str, ...] | None = None
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    memory: int = IMAGE_MEMORY
    images: Mapping[str, str] = field(default_factory=dict)
    _listings: dict[str, Listing] = field(default_factory=dict, init=False, repr=False, compare=False)

    def load(self, name: str, size: tuple[int, int] | None = None) -> tuple[SourceImages, SourceImages]:
        """Return the train and test images of a source.

        Raises
        ------
        UserError
            When the source is unknown, or its images are missing, damaged, malformed or others than were planned with.
        """
        self._check_allowed(name)
        known = KNOWN_SOURCES.get(name)
        folder = self.folders.get(name)
        if folder is not None and (known is None or is_class_folder(Path(folder))):
            size, channels = (known.size, known.channels) if known else (size, None)
            planned = self.images.get(name)
            return load_folder(Path(folder), size, channels, self.memory, order_of(name), planned)
        if name == "digits":
            return load_digits()
        if known is None:
            raise UserError(
                f"image source {name!r} is not built in: give its images with --data {name}=DIR "
                f"({nearest(name, KNOWN_SOURCES)})"
            )
        root = Path(folder) if folder is not None else data_root()
        return load_torchvision(known, root, download=self.download and folder is None)

    def listing(self, name: str) -> Any:
        """Return what the layout function of a source found in its folder.

        Raises
        ------
        UserError
            When the folder is not given, is not what the function looks for, or has other files than were planned with.
        """
        self._check_allowed(name)
        if name not in self.layouts:
            raise UserError(f"image source {name!r} has no layout: the dataset's spec must name it in layouts")
        if name not in self.folders:
            raise UserError(f"the images of {name} are not given: say where they are with --data {name}=DIR")
        if name not in self._listings:
            listing = read_listing(self.layouts[name], Path(self.folders[name]))
            self._identity_of(name, listing)
            self._listings[name] = listing
        return self._listings[name]

    def decode(
        self,
        name: str,
        files: Sequence[str],
        size: tuple[int, int],
        channels: int = 3,
        masks: Sequence[str] | None = None,
        fit: Fit = "stretch",
        boxes: Sequence[Box] | None = None,
    ) -> Images:
        """Return image files of a source with a layout (`mmc_bench.data.contract.ImageSources.decode`).

        Raises
        ------
        UserError
            When a file is not in the source's listing, and so no part of its identity, or cannot be read; or when files
            are others than were planned with.
        """
        listing = self.listing(name)
        if strange := {*files, *(masks or ())} - {*listing.files}:
            raise UserError(f"the listing of {name} lacks {min(strange)}: it must have every file that is read")
        pictures = PictureFiles(listing.root, files, self._identity_of(name, listing), masks, boxes)
        return decode(pictures, DecodedShape(size, channels, fit), self.memory)

    def _identity_of(self, name: str, listing: Listing) -> str:
        """Return the identity of a source's files; raises a `UserError` where others were planned with."""
        identity = identity_of(listing)
        refuse_changed(Path(self.folders[name]), identity, self.images.get(name))
        return identity

    def _check_allowed(self, name: str) -> None:
        if self.allowed is not None and name not in self.allowed:
            raise UserError(f"the dataset reads image source {name!r}: its spec must list it in sources")


def load_torchvision(known: KnownSource, root: Path, download: bool) -> tuple[SourceImages, SourceImages]:
    """Read one of torchvision's datasets from `root`, downloading it first where that is allowed.

    Raises
    ------
    UserError
        When the files are not there, are not the dataset's own, or cannot be downloaded.
    """
    where = f"put {known.archive} into {root}, or give class folders with --data {known.name}=DIR"
    try:
        try:
            return _read_torchvision(known, root)
        except RuntimeError:  # torchvision's word for files that are missing or fail its check
            if not download:
                raise
        try:
            _download(known, root)
        except (OSError, HTTPException, RuntimeError) as error:
            raise UserError(f"{known.name} could not be downloaded ({_short(error)}): {where}") from None
        return _read_torchvision(known, root)
    except RuntimeError:
        raise UserError(f"{known.name} is not in {root}, or is damaged: {where}") from None
    except UNREADABLE as error:
        raise UserError(f"{known.name} in {root} cannot be read ({_short(error)}): {where}") from None


def _download(known: KnownSource, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{known.name}.lock"):  # two workers must not download into the same files
        for train in (True, False):
            _dataset_class(known)(root, train=train, download=True)


def _read_torchvision(known: KnownSource, root: Path) -> tuple[SourceImages, SourceImages]:
    def read(train: bool) -> SourceImages:
        part = _dataset_class(known)(root, train=train, download=False)
        pixels = torch.as_tensor(part.data)  # (N, H, W, 3), or (N, H, W) for grey images
        images = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        labels = torch.as_tensor(part.targets, dtype=torch.int64)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        own = MNIST_MD5.get((known.name, train))
        if own and (md5_of_idx(pixels), md5_of_idx(labels)) != own:
            raise UserError(
                f"{known.name}: the files in {root} are damaged, or those of another dataset: put {known.archive} into "
                f"{root}, or give class folders with --data {known.name}=DIR"
            )
        return SourceImages(images.contiguous(memory_format=torch.channels_last), labels)  # as they lie: no copy

    return read(train=True), read(train=False)


def md5_of_idx(values: torch.Tensor) -> str:
    """Return the MD5 sum of 8-bit values in MNIST's file format, IDX."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return hashlib.md5(header + values.byte().numpy().tobytes(), usedforsecurity=False).hexdigest()


def _dataset_class(known: KnownSource) -> Any:
    import torchvision.datasets

    return getattr(torchvision.datasets, known.torchvision_class)


def load_digits() -> tuple[SourceImages, SourceImages]:
    """Return scikit-learn's bundled UCI digits as 16 x 16 images with three equal channels.

    1,797 scans of 8 x 8 pixels in 17 grey levels, bilinearly resized; larger images would show no more. A fixed
    permutation sets 500 apart for testing; 1,297 remain for training.
    """
    rows = _digit_rows()
    grey = torch.from_numpy(rows[:, :-1]).reshape(-1, 1, 8, 8) / 16  # in [0, 1]
    resized = F.interpolate(grey, size=(16, 16), mode="bilinear", align_corners=False)
    images = (resized * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(rows[:, -1]).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(DIGITS_SEED))
    test, train = order[:DIGITS_TEST_IMAGES], order[DIGITS_TEST_IMAGES:]
    return SourceImages(images[train], labels[train]), SourceImages(images[test], labels[test])


def _digit_rows() -> np.ndarray:
    """Return the 64 grey levels and the label of each scan, float32 of shape (1797, 65).

    They are read from scikit-learn's file, and by its own reader only where that is not at its place: importing the
    reader takes a second in every worker.
    """
    package = find_spec("sklearn")
    file = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else None
    if file and file.is_file():
        return np.loadtxt(file, delimiter=",", dtype=np.float32)
    from sklearn.datasets import load_digits as load

    digits = load()
    return np.column_stack([digits.data, digits.target]).astype(np.float32)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.replace(os.linesep, " ")[:200]
