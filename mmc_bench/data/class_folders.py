"""Class folders, ``train/<class>/*`` and ``test/<class>/*``: which files are images, and which images they are."""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmc_bench.data.listing import FileState, drawn_place, fingerprint, unreadable
from mmc_bench.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
PARTS = ("train", "test")

#: The order of training images: by class, folder and file name; or drawn once (`mmc_bench.data.listing.drawn_place`).
#: Test images are always by class, folder and file name.
Order = Literal["by name", "drawn"]

#: File names that a message quotes for each reason why files are left out.
QUOTED = 3

#: Where a link leads when it leads nowhere: to nothing, to itself, or below a file.
NOWHERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


@dataclass(frozen=True)
class ImageFile(FileState):
    """One image below the class folders' root, and its label."""

    label: int


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
        For ``"train"`` and ``"test"``, the images.
    left_out
        For each reason (``"behind a dangling link"``), the names below `root` that are not read for it. Hidden files
        and folders are no part of the images, and not among these.
    order
        How the training images are ordered.
    """

    root: Path
    classes: tuple[str, ...]
    images: Mapping[str, tuple[ImageFile, ...]]
    left_out: Mapping[str, tuple[str, ...]]
    order: Order = "by name"

    @property
    def remark(self) -> str | None:
        """One sentence that counts what is left out, or None when nothing is."""
        return f"{self.root}: left out: {_counted(self.left_out)}" if self.left_out else None


@dataclass(frozen=True)
class _Place:
    """A file or folder of a class: its path below the root, and whether a link leads there."""

    name: str
    label: int
    linked: bool


def is_class_folder(folder: Path) -> bool:
    """Tell whether `folder` has the layout ``train/<class>/*`` and ``test/<class>/*``.

    Raises
    ------
    UserError
        When it may not be read.
    """
    try:
        return all(stat.S_ISDIR((folder / part).stat().st_mode) for part in PARTS)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(error, folder) from None


def read_class_folders(root: Path, order: Order = "by name") -> ClassFolders:
    """List the images of class folders.

    Class names sort into labels. Images may lie in folders below a class. Hidden files and folders
    (``.ipynb_checkpoints``, ``._photo.png``) are skipped. Links are followed, and what several of them lead to is
    read once in each of train and test: at its own place where that is in a class, or else at the first link.

    Raises
    ------
    UserError
        When train and test differ in their classes, there are no two classes, a class has no image, or a folder cannot
        be read.
    """
    left_out: dict[str, list[str]] = {}
    try:
        classes = _class_names(root, left_out)
        images = {part: _images_of(root, part, classes, left_out) for part in PARTS}
    except OSError as error:
        raise unreadable(error, root) from None
    _check_filled(root, classes, images, left_out)
    if order == "drawn":
        images["train"] = tuple(sorted(images["train"], key=lambda image: drawn_place(image.name)))
    return ClassFolders(root, classes, images, {reason: tuple(names) for reason, names in left_out.items()}, order)


def _class_names(root: Path, left_out: dict[str, list[str]]) -> tuple[str, ...]:
    """Return the names of the class folders; add to `left_out` what lies beside them."""
    names: dict[str, list[str]] = {}
    beside = [entry.name for entry in _entries(root) if entry.name not in PARTS]
    for part in PARTS:
        entries = _entries(root / part)
        names[part] = [entry.name for entry in entries if Path(entry.path).is_dir()]
        beside += [f"{part}/{entry.name}" for entry in entries if entry.name not in names[part]]
    if not names["train"]:
        raise UserError(f"{root / 'train'} has no class folders")
    if names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))
        spelt = [name for name in odd[1:] if name.casefold() == odd[0].casefold()]
        alike = f", and {spelt[0]!r} in only the other" if spelt else ""
        raise UserError(f"{root}: class {odd[0]!r} is in only one of train and test{alike}")
    if len(names["train"]) < 2:
        raise UserError(f"{root} has the class {names['train'][0]!r} alone: a dataset needs two classes or more")
    if beside:
        left_out["beside the class folders"] = beside
    return tuple(names["train"])


def _check_filled(
    root: Path,
    classes: Sequence[str],
    images: Mapping[str, Sequence[ImageFile]],
    left_out: Mapping[str, Sequence[str]],
) -> None:
    """Raise a `UserError` that names a class without images, and what is left out of its folder."""
    for part in PARTS:
        filled = {image.label for image in images[part]}
        for label, name in enumerate(classes):
            if label not in filled:
                own = f"{part}/{name}/"
                there = {why: [file for file in names if f"{file}/".startswith(own)] for why, names in left_out.items()}
                counted = _counted({why: names for why, names in there.items() if names})
                raise UserError(f"{root / part / name} holds no image" + (f"; left out: {counted}" if counted else ""))


def _images_of(root: Path, part: str, classes: Sequence[str], left_out: dict[str, list[str]]) -> tuple[ImageFile, ...]:
    """Return the images of train or test by class, folder and name; add to `left_out` what else is there."""
    images: list[ImageFile] = []
    above = (*(root / each for each in PARTS), root.resolve(), *root.resolve().parents)
    seen = {_inode(folder.stat()) for folder in above}  # a link back to these would read other classes again
    starts = [_Place(f"{part}/{name}", label, (root / part / name).is_symlink()) for label, name in enumerate(classes)]
    waiting = deque(place for place in starts if not place.linked)
    links = deque(place for place in starts if place.linked)  # come last: images are read at their own places first
    while waiting or links:
        place = waiting.popleft() if waiting else links.popleft()
        status = _status(root / place.name)
        reason = None if status is None else _reason_to_leave_out(place, status, seen)
        if status is None or reason:
            left_out.setdefault(reason or "behind a dangling link", []).append(place.name)
            continue
        seen.add(_inode(status))
        if not stat.S_ISDIR(status.st_mode):
            state = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            images.append(ImageFile(place.name, status.st_size, state, place.label))
            continue
        for entry in _entries(root / place.name):
            is_link = entry.is_symlink()
            there = _Place(f"{place.name}/{entry.name}", place.label, place.linked or is_link)
            if is_link:
                links.append(there)
            else:
                waiting.append(there)
    return tuple(sorted(images, key=lambda image: (image.label, *image.name.rpartition("/"))))


def _reason_to_leave_out(place: _Place, status: os.stat_result, seen: set[tuple[int, int]]) -> str | None:
    if place.linked and _inode(status) in seen:
        return "linked to, but read already"
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return "neither file nor folder"
    return None if Path(place.name).suffix.lower() in IMAGE_SUFFIXES else "without a known image suffix"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, in the order of names, without what is hidden."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _status(path: Path) -> os.stat_result | None:
    """Return what is at a path, or None where its link leads nowhere."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in NOWHERE and path.is_symlink():
            return None
        raise


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _counted(left_out: Mapping[str, Sequence[str]]) -> str:
    """Return how many names are left out for each reason, and the first of them."""
    parts = []
    for reason, names in sorted(left_out.items()):
        quoted = ", ".join(sorted(names)[:QUOTED]) + (", …" if len(names) > QUOTED else "")
        parts.append(f"{len(names)} {reason} ({quoted})")
    return "; ".join(parts)


def identity_of_folders(folders: ClassFolders) -> str:
    """Return a digest of the images' names, contents (`mmc_bench.data.listing.fingerprint`) and order."""
    files = fingerprint(folders.root, (image for part in PARTS for image in folders.images[part]))
    return files if folders.order == "by name" else hashlib.sha256(f"{files} {folders.order}".encode()).hexdigest()[:16]
