"""The files that a dataset reads of a folder, and the digest that identifies them."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmc_bench.data.cache import cache_root
from mmc_bench.errors import UserError
from mmc_bench.system.files import read_whole, write_whole


@dataclass(frozen=True)
class FileState:
    """One file: its name below a root folder, its size, and what changes when the file does."""

    name: str
    size: int
    state: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files that a dataset reads of a folder, as its plugin finds them; a plugin may add fields of its own.

    Parameters
    ----------
    root
        The folder.
    files
        Every file that decides results, images and tables, by its name below `root`; ``..`` may lead out of it.
    num_classes
        Number of classes, where the folder tells it.
    """

    root: Path
    files: tuple[str, ...] = field(repr=False)
    num_classes: int | None = None


#: Returns the `Listing` of a folder, or raises a `UserError` that says what it looked for.
Layout = Callable[[Path], Any]


def read_listing(layout: Layout, folder: Path) -> Listing:
    """Return what a layout function finds in a folder.

    Raises
    ------
    UserError
        When the folder is not what the function looks for, or the function returns something else.
    """
    listing = layout(folder)
    if not isinstance(listing, Listing):
        raise UserError(f"the layout of {folder} is a {type(listing).__name__}, and must be a Listing")
    return listing


def identity_of(listing: Listing) -> str:
    """Return a digest of the listed files' names and contents; where their folder lies does not matter.

    Raises
    ------
    UserError
        When a file cannot be read.
    """
    return fingerprint(listing.root, map(state_of(listing.root), dict.fromkeys(listing.files)))


def state_of(root: Path) -> Callable[[str], FileState]:
    """Return what looks up the state of a file by its name below `root`."""

    def look(name: str) -> FileState:
        try:
            status = (root / name).stat()
        except OSError as error:
            raise unreadable(error, root / name) from None
        return FileState(name, status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}")

    return look


def fingerprint(root: Path, files: Iterable[FileState]) -> str:
    """Return a digest of files' names and contents.

    The files are read once: the digest is kept in the cache for as long as the files are the same by place, inode,
    size and times of change.

    Raises
    ------
    UserError
        When a file cannot be read.
    """
    listing = sorted((file.name, file.size, file.state) for file in files)
    state = "\n".join(f"{name} {size} {changes}" for name, size, changes in listing)
    place = _bytes(f"{root.resolve()}\n{state}")
    memory = cache_root() / "fingerprints" / hashlib.sha256(place).hexdigest()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = memory.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{16}", known):
            return known
    digest = hashlib.sha256()
    try:
        for name, size, _ in listing:
            digest.update(_bytes(f"{name} {size}\n"))
            digest.update(read_whole(root / name))
    except OSError as error:
        raise unreadable(error, root) from None
    result = digest.hexdigest()[:16]
    with contextlib.suppress(OSError):  # without a cache the files are read again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, result.encode())
    return result


def refuse_changed(folder: Path, identity: str, planned: str | None) -> None:
    """Raise a `UserError` where a folder's images have another identity than those that a run was planned with."""
    if planned not in (None, f"folder:{identity}"):
        raise UserError(f"images of {folder} were changed during the run: run the same command again")


def drawn_place(name: str) -> bytes:
    """Return a key that sorts training files into an order drawn once, from their names alone.

    Names and folders often sort images into kinds. In their order, the first images of a class, to which the cue goes,
    would be of other kinds than the rest.
    """
    return hashlib.sha256(_bytes(name)).digest()


def unreadable(error: OSError, place: Path) -> UserError:
    """Return the error of a file or folder that cannot be read."""
    return UserError(f"{error.filename or place} cannot be read: {error.strerror}")


def _bytes(text: str) -> bytes:
    """Return text as UTF-8; names of files may hold bytes that are none."""
    return text.encode(errors="surrogateescape")
