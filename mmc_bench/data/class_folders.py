"""Class folders, ``train/<class>/*`` and ``test/<class>/*``: which files are images, and which images they are."""

import contextlib
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mmc_bench.data.cache import cache_root
from mmc_bench.errors import UserError
from mmc_bench.system.files import read_whole, write_whole

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
PARTS = ("train", "test")

#: File names that a message about left-out files quotes.
QUOTED = 3


@dataclass(frozen=True)
class ImageFile:
    """One image: its place below the class folders' root, its label, and what changes when the file does."""

    name: str
    label: int
    size: int
    state: str


@dataclass(frozen=True)
class ClassFolders:
    """What lies in a folder of class folders.

    Parameters
    ----------
    root
        The folder.
    classes
        Class names in label order.
    images
        For ``"train"`` and ``"test"``, the images by class, folder and file name.
    left_out
        For each reason (``"no image by its name"``), the files below `root` that are not read for it. Hidden files and
        folders are no part of the images, and not among these.
    """

    root: Path
    classes: tuple[str, ...]
    images: dict[str, tuple[ImageFile, ...]]
    left_out: dict[str, tuple[str, ...]]

    @property
    def remark(self) -> str | None:
        """One sentence that counts what is left out, or None when nothing is."""
        if not self.left_out:
            return None
        parts = []
        for reason, names in sorted(self.left_out.items()):
            quoted = ", ".join(names[:QUOTED]) + (", …" if len(names) > QUOTED else "")
            parts.append(f"{len(names)} {reason} ({quoted})")
        return f"{self.root}: left out {' and '.join(parts)}"


def is_class_folder(folder: Path) -> bool:
    """Tell whether `folder` has the layout ``train/<class>/*`` and ``test/<class>/*``."""
    return all((folder / part).is_dir() for part in PARTS)


def read_class_folders(root: Path) -> ClassFolders:
    """List the images of class folders.

    Class names sort into labels. Images may lie in folders below a class. Hidden files and folders
    (``.ipynb_checkpoints``, ``._photo.png``) are skipped. Links are followed, and a folder or file that is reached
    twice within a class is read once.

    Raises
    ------
    UserError
        When train and test differ in their classes, a class has no image, or a folder cannot be read.
    """
    classes = _class_names(root)
    left_out: dict[str, list[str]] = {}
    images: dict[str, tuple[ImageFile, ...]] = {}
    try:
        for part in PARTS:
            images[part] = tuple(
                image
                for label, name in enumerate(classes)
                for image in _images_of_class(root, root / part / name, label, left_out)
            )
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror}") from None
    for part in PARTS:
        filled = Counter(image.label for image in images[part])
        for label, name in enumerate(classes):
            if not filled[label]:
                raise UserError(f"{root / part / name} holds no image")
    return ClassFolders(root, classes, images, {reason: tuple(names) for reason, names in left_out.items()})


def _class_names(root: Path) -> tuple[str, ...]:
    names = {}
    for part in PARTS:
        try:
            entries = list((root / part).iterdir())
        except OSError as error:
            raise UserError(f"{root / part} cannot be read: {error.strerror}") from None
        names[part] = sorted(path.name for path in entries if path.is_dir() and not _is_hidden(path.name))
    if not names["train"]:
        raise UserError(f"{root / 'train'} has no class folders")
    if names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))[0]
        raise UserError(f"{root}: class {odd!r} is in only one of train and test")
    return tuple(names["train"])


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _images_of_class(root: Path, folder: Path, label: int, left_out: dict[str, list[str]]) -> list[ImageFile]:
    """Return a class's images, sorted by folder and name; add to `left_out` what else is there.

    Links are followed last, so that a file is read at its own place, and left out where a link leads to it again.
    """
    images: list[ImageFile] = []
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [folder]
    links: list[Path] = []
    while folders or links:
        if folders:
            here = folders.pop()
            seen.add(_inode(here.stat()))
            with os.scandir(here) as entries:
                found = [Path(entry.path) for entry in entries if not _is_hidden(entry.name)]
            links += sorted(path for path in found if path.is_symlink())
            paths = [path for path in found if not path.is_symlink()]
        else:
            paths = [links.pop(0)]
        for path in paths:
            name = path.relative_to(root).as_posix()
            try:
                status = path.stat()
            except OSError:
                left_out.setdefault("links that lead nowhere", []).append(name)
                continue
            again = _inode(status) in seen
            if again and (path.is_symlink() or path.is_dir()):
                left_out.setdefault("links to what is read already", []).append(name)
            elif path.is_dir():
                folders.append(path)
            elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
                seen.add(_inode(status))
                state = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
                images.append(ImageFile(name, label, status.st_size, state))
            else:
                left_out.setdefault("files that are no images by their names", []).append(name)
    return sorted(images, key=lambda image: (str(Path(image.name).parent), Path(image.name).name))


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def fingerprint(folders: ClassFolders) -> str:
    """Return a digest of the images' names and contents; where their folder lies does not matter.

    The files are read once: the digest is kept in the cache for as long as the files are the same by place, inode,
    size and times of change.

    Raises
    ------
    UserError
        When a file cannot be read.
    """
    listing = sorted((image.name, image.size, image.state) for part in PARTS for image in folders.images[part])
    state = "\n".join(f"{name} {size} {changes}" for name, size, changes in listing)
    place = _bytes(f"{folders.root.resolve()}\n{state}")
    memory = cache_root() / "fingerprints" / hashlib.sha256(place).hexdigest()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = memory.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{16}", known):
            return known
    digest = hashlib.sha256()
    try:
        for name, size, _ in listing:
            digest.update(_bytes(f"{name} {size}\n"))
            digest.update(read_whole(folders.root / name))
    except OSError as error:
        raise UserError(f"{error.filename or folders.root} cannot be read: {error.strerror}") from None
    result = digest.hexdigest()[:16]
    with contextlib.suppress(OSError):  # without a cache the files are read again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, result.encode())
    return result


def _bytes(text: str) -> bytes:
    """Return text as UTF-8; names of files may hold bytes that are none."""
    return text.encode(errors="surrogateescape")
