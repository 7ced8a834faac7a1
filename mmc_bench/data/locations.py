"""Where images lie, and which images they are: checks and identities that need no torch."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmc_bench.data.cache import cache_root
from mmc_bench.data.class_folders import Order, identity_of_folders, is_class_folder, read_class_folders
from mmc_bench.data.listing import Layout, identity_of, read_listing
from mmc_bench.errors import UserError, nearest


@dataclass(frozen=True)
class KnownSource:
    """An image source that the core reads: torchvision's, or (without a class of its own) embedded.

    Where labels have a meaning, `digits` says that they are the digits 0 to 9, and class folders must be named so.
    """

    name: str
    torchvision_class: str
    archive: str
    present: str
    size: tuple[int, int]
    channels: int
    digits: bool = False


KNOWN_SOURCES = {
    source.name: source
    for source in (
        KnownSource("digits", "", "", "", (16, 16), 3),
        KnownSource("cifar10", "CIFAR10", "cifar-10-batches-py/", "cifar-10-batches-py", (32, 32), 3),
        KnownSource("cifar100", "CIFAR100", "cifar-100-python/", "cifar-100-python", (32, 32), 3),
        KnownSource("mnist", "MNIST", "MNIST/raw/", "MNIST/raw", (28, 28), 1, digits=True),
        KnownSource("fashion-mnist", "FashionMNIST", "FashionMNIST/raw/", "FashionMNIST/raw", (28, 28), 1),
    )
}


@dataclass(frozen=True)
class Wanted:
    """An image source that a dataset reads.

    Parameters
    ----------
    num_classes
        What the dataset's cue is made for, or None.
    layout
        What finds the files in its folder, where these are no class folders.
    """

    num_classes: int | None = None
    layout: Layout | None = None


def data_root() -> Path:
    """Return the folder for downloaded datasets: ``$MMC_BENCH_DATA``, or ``data`` in the cache."""
    return Path(os.environ.get("MMC_BENCH_DATA") or cache_root() / "data")


def order_of(source: str) -> Order:
    """Return the order of the training images where class folders stand for a source.

    Copies of the built-in datasets number the images of a class in the dataset's own order, which is random.
    """
    return "by name" if source in KNOWN_SOURCES else "drawn"


def identify(
    folders: Mapping[str, str],
    wanted: Mapping[str, Wanted],
    report: Callable[[str], None] = lambda remark: None,
) -> dict[str, str]:
    """Check the folders that replace image sources, and return the identity of their images.

    Parameters
    ----------
    folders
        What ``--data`` gave, by source.
    wanted
        The sources that the selected datasets read.
    report
        Called with one sentence for each folder in which files are left out.

    Returns
    -------
    dict
        ``"folder:<fingerprint>"`` for each source that is a folder of images; torchvision's own files are the
        originals, wherever they lie, and need no mention.

    Raises
    ------
    UserError
        When a folder is missing, empty or of the wrong kind, its classes are not those wanted, or no dataset reads
        the source.
    """
    identities = {}
    remarks = []
    for name, path in folders.items():
        if name not in wanted:
            raise UserError(f"--data {name}=…: no selected dataset reads {name!r}: {nearest(name, wanted)}")
        folder, known, need = Path(path), KNOWN_SOURCES.get(name), wanted[name]
        if not os.path.isdir(folder):  # noqa: PTH112 – Path.is_dir raises for names that are too long
            raise UserError(f"--data {name}={path}: there is no such folder")
        if need.layout is not None:
            listing = read_listing(need.layout, folder)
            _check_classes(name, path, listing.num_classes, need.num_classes)
            identities[name] = f"folder:{identity_of(listing)}"
        elif is_class_folder(folder):
            found = read_class_folders(folder, order_of(name))
            _check_classes(name, path, len(found.classes), need.num_classes)
            if known and known.digits:
                _check_digits(name, path, found.classes)
            identities[name] = f"folder:{identity_of_folders(found)}"
            remarks += [found.remark] if found.remark else []
        elif not (known and known.present and (folder / known.present).exists()):
            own = f", and not torchvision's {known.archive} either" if known and known.archive else ""
            raise UserError(f"--data {name}={path}: holds no class folders train/<class>/ and test/<class>/{own}")
    for remark in dict.fromkeys(remarks):  # one folder may stand for several sources
        report(remark)
    return identities


def _check_classes(name: str, path: str, found: int | None, wanted: int | None) -> None:
    if None not in (found, wanted) and found != wanted:
        raise UserError(f"--data {name}={path}: {found} classes, but the cue is made for {wanted}")


def _check_digits(name: str, path: str, classes: Sequence[str]) -> None:
    numbers = [[*map(int, re.findall("[0-9]+", each))] for each in classes]
    if numbers != [[digit] for digit in range(10)]:
        raise UserError(f"--data {name}={path}: its classes must be named 0 to 9, and are {', '.join(classes[:12])}")


def check_present(folders: Mapping[str, str], wanted: Mapping[str, Wanted], download: bool) -> None:
    """Raise a `UserError` that says what to give where images are missing, and may not or cannot be downloaded."""
    for name, need in wanted.items():
        known = KNOWN_SOURCES.get(name)
        if name not in folders and (known is None or need.layout is not None):
            raise UserError(f"the images of {name} are not given: say where they are with --data {name}=DIR")
        given = name in folders or not (known and known.present) or (data_root() / known.present).exists()
        if known and not (download or given):
            raise UserError(
                f"{name} is not in {data_root()} and --no-download was given: put {known.archive} there, "
                f"or give class folders with --data {name}=DIR"
            )
