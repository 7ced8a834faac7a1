"""Where images lie, and which images they are: checks and identities that need no torch."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmc_bench.errors import UserError, nearest
from mmc_bench.system.files import read_whole, write_whole

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


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
        KnownSource("digits", "", "", "", (32, 32), 3),
        KnownSource("cifar10", "CIFAR10", "cifar-10-batches-py/", "cifar-10-batches-py", (32, 32), 3),
        KnownSource("cifar100", "CIFAR100", "cifar-100-python/", "cifar-100-python", (32, 32), 3),
        KnownSource("fashion-mnist", "FashionMNIST", "FashionMNIST/raw/", "FashionMNIST/raw", (28, 28), 1),
    )
}


def cache_root() -> Path:
    """Return the folder for decoded images: ``$MMC_BENCH_CACHE``, or ``~/.cache/mmc-bench``."""
    try:
        return Path(os.environ.get("MMC_BENCH_CACHE") or Path.home() / ".cache" / "mmc-bench")
    except RuntimeError:
        raise UserError("there is no home folder for the cache: set MMC_BENCH_CACHE to a folder") from None


def data_root() -> Path:
    """Return the folder for downloaded datasets: ``$MMC_BENCH_DATA``, or ``data`` in the cache."""
    return Path(os.environ.get("MMC_BENCH_DATA") or cache_root() / "data")


def is_class_folder(folder: Path) -> bool:
    """Tell whether `folder` has the layout ``train/<class>/*`` and ``test/<class>/*``."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def class_names(folder: Path) -> list[str]:
    """Return the class names of a folder in ``ImageFolder`` layout, in label order.

    Raises
    ------
    UserError
        When train and test differ in their classes, or a class has no image.
    """
    names = {
        part: sorted(path.name for path in (folder / part).iterdir() if path.is_dir()) for part in ("train", "test")
    }
    if not names["train"]:
        raise UserError(f"{folder / 'train'} has no class folders")
    if names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))[0]
        raise UserError(f"{folder}: class {odd!r} is in only one of train and test")
    for part in ("train", "test"):
        for name in names[part]:
            if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in (folder / part / name).rglob("*")):
                raise UserError(f"{folder / part / name} holds no image")
    return names["train"]


def fingerprint(folder: Path) -> str:
    """Return a digest of a class folder's file names and contents; where the folder lies does not matter.

    The files are read once: the digest is remembered in the cache for as long as they are, by place, inode, size
    and times of change, the very files that were read.

    Raises
    ------
    UserError
        When a file or folder cannot be read.
    """
    try:
        listing = sorted(_listing(folder))
        state = "\n".join(f"{name} {size} {changes}" for name, size, changes in listing)
        memory = cache_root() / "fingerprints" / hashlib.sha256(_bytes(f"{folder.resolve()}\n{state}")).hexdigest()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            known = memory.read_text(encoding="ascii")
            if re.fullmatch("[0-9a-f]{16}", known):
                return known
        digest = hashlib.sha256()
        for name, size, _ in listing:
            digest.update(_bytes(f"{name} {size}\n"))
            digest.update(read_whole(folder / name))
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    result = digest.hexdigest()[:16]
    with contextlib.suppress(OSError):  # without a cache the files are read again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, result.encode())
    return result


def _listing(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Yield each image's name relative to the folder, its size, and what changes when the file does."""
    stack: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder / part, frozenset()) for part in ("train", "test")]
    while stack:
        here, above = stack.pop()
        own = here.stat()
        if (own.st_dev, own.st_ino) in above:
            raise UserError(f"{here} leads back to a folder that it lies in: remove the link")
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir():
                    stack.append((Path(entry.path), above | {(own.st_dev, own.st_ino)}))
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    status = entry.stat()
                    name = Path(entry.path).relative_to(folder).as_posix()
                    yield name, status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _bytes(text: str) -> bytes:
    """Return text as UTF-8; names of files may hold bytes that are none."""
    return text.encode(errors="surrogateescape")


def identify(folders: Mapping[str, str], wanted: Mapping[str, int | None]) -> dict[str, str]:
    """Check the folders that replace image sources, and return the identity of their images.

    Parameters
    ----------
    folders
        What ``--data`` gave, by source.
    wanted
        The sources that the selected datasets read, with the number of classes their cue is made for (or
        None).

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
    for name, path in folders.items():
        if name not in wanted:
            raise UserError(f"--data {name}=…: no selected dataset reads {name!r}: {nearest(name, wanted)}")
        folder, known, num_classes = Path(path), KNOWN_SOURCES.get(name), wanted[name]
        if not os.path.isdir(folder):  # noqa: PTH112 – Path.is_dir raises for names that are too long
            raise UserError(f"--data {name}={path}: there is no such folder")
        if is_class_folder(folder):
            classes = class_names(folder)
            if num_classes is not None and len(classes) != num_classes:
                raise UserError(f"--data {name}={path}: {len(classes)} classes, but the cue is made for {num_classes}")
            identities[name] = f"folder:{fingerprint(folder)}"
        elif not (known and known.present and (folder / known.present).exists()):
            files = f" or torchvision's {known.archive}" if known and known.archive else ""
            raise UserError(f"--data {name}={path}: holds neither train/<class>/ with test/<class>/{files}")
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
