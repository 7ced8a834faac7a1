"""Where images lie, and which images they are: checks and identities that need no torch."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmc_bench.data.cache import cache_root
from mmc_bench.data.class_folders import fingerprint, is_class_folder, read_class_folders
from mmc_bench.errors import UserError, nearest


@dataclass(frozen=True)
class KnownSource:
    """An image source that the core reads: torchvision's, or (without a class of its own) embedded."""

    name: str
    torchvision_class: str
    archive: str
    present: str
    size: tuple[int, int]
    channels: int


KNOWN_SOURCES = {
    source.name: source
    for source in (
        KnownSource("digits", "", "", "", (16, 16), 3),
        KnownSource("cifar10", "CIFAR10", "cifar-10-batches-py/", "cifar-10-batches-py", (32, 32), 3),
        KnownSource("cifar100", "CIFAR100", "cifar-100-python/", "cifar-100-python", (32, 32), 3),
        KnownSource("fashion-mnist", "FashionMNIST", "FashionMNIST/raw/", "FashionMNIST/raw", (28, 28), 1),
    )
}


def data_root() -> Path:
    """Return the folder for downloaded datasets: ``$MMC_BENCH_DATA``, or ``data`` in the cache."""
    return Path(os.environ.get("MMC_BENCH_DATA") or cache_root() / "data")


def identify(
    folders: Mapping[str, str],
    wanted: Mapping[str, int | None],
    report: Callable[[str], None] = lambda remark: None,
) -> dict[str, str]:
    """Check the folders that replace image sources, and return the identity of their images.

    Parameters
    ----------
    folders
        What ``--data`` gave, by source.
    wanted
        The sources that the selected datasets read, with the number of classes their cue is made for (or
        None).
    report
        Called with one sentence for each folder in which files are left out.

    Returns
    -------
    dict
        ``"folder:<fingerprint>"`` for each source that class folders replace; torchvision's own files are the
        originals, wherever they lie, and need no mention.

    Raises
    ------
    UserError
        When a folder is missing, empty or of the wrong kind or class count, or no dataset reads the source.
    """
    identities = {}
    remarks = []
    for name, path in folders.items():
        if name not in wanted:
            raise UserError(f"--data {name}=…: no selected dataset reads {name!r}: {nearest(name, wanted)}")
        folder, known, num_classes = Path(path), KNOWN_SOURCES.get(name), wanted[name]
        if not os.path.isdir(folder):  # noqa: PTH112 – Path.is_dir raises for names that are too long
            raise UserError(f"--data {name}={path}: there is no such folder")
        if is_class_folder(folder):
            found = read_class_folders(folder)
            if num_classes is not None and len(found.classes) != num_classes:
                raise UserError(
                    f"--data {name}={path}: {len(found.classes)} classes, but the cue is made for {num_classes}"
                )
            identities[name] = f"folder:{fingerprint(found)}"
            remarks += [found.remark] if found.remark else []
        elif not (known and known.present and (folder / known.present).exists()):
            files = f" or torchvision's {known.archive}" if known and known.archive else ""
            raise UserError(f"--data {name}={path}: holds neither train/<class>/ with test/<class>/{files}")
    for remark in dict.fromkeys(remarks):  # one folder may stand for several sources
        report(remark)
    return identities


def check_present(folders: Mapping[str, str], wanted: Iterable[str]) -> None:
    """Raise a `UserError` that says where to put the files when images are missing and may not be downloaded."""
    for name in wanted:
        known = KNOWN_SOURCES.get(name)
        if known and known.present and name not in folders and not (data_root() / known.present).exists():
            raise UserError(
                f"{name} is not in {data_root()} and --no-download was given: put {known.archive} there, "
                f"or give class folders with --data {name}=DIR"
            )
