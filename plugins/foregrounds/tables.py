"""What lies in a folder, by name: images of folders, rows of CSV files, and the sentence for what is missing."""

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mmc_bench import UserError
from mmc_bench.data.listing import unreadable

#: What images are called, as in class folders.
SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)

#: What a table calls its parts. Runs hold validation images of their own out, so a table's are training images.
PARTS_OF_TABLES = {"train": "train", "val": "train", "valid": "train", "validation": "train", "test": "test"}

#: Missing files that a message names.
QUOTED = 5


@dataclass(frozen=True)
class Entry:
    """A cut-out or a scene: its name below the root, its kind, and its part ("train" or "test") and mask, if said."""

    name: str
    kind: str
    part: str | None = None
    mask: str | None = None


def require(folder: Path, names: Iterable[str], wanted: str) -> None:
    """Raise a `UserError` that says what was looked for where files or folders are missing, or named absolutely.

    Parameters
    ----------
    names
        Below `folder`.
    wanted
        What they are to the user: ``"CUB-200-2011"``.
    """
    names = list(names)
    for name in names:
        if Path(name).is_absolute():
            raise UserError(f"{name} is an absolute path: {wanted} is looked for below {folder}")
    missing = [name for name in names if not exists(folder / name)]
    if missing:
        more = f" and {len(missing) - QUOTED:,} more" if len(missing) > QUOTED else ""
        raise UserError(f"{folder} lacks {', '.join(missing[:QUOTED])}{more}: {wanted} was looked for there")


def exists(path: Path) -> bool:
    """Tell whether there is a file or folder; raises a `UserError` where that cannot be told."""
    try:
        return path.exists()
    except OSError as error:  # its name is too long, or a folder above it may not be read
        raise unreadable(error, path) from None


def read_rows(file: Path, columns: Iterable[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a CSV file as dictionaries; none of `columns` is empty in any row.

    Raises
    ------
    UserError
        When the file cannot be read, lacks a column or a value, or has a column twice.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, delimiter=delimiter)
            rows, header = [(reader.line_num, row) for row in reader], reader.fieldnames or ()
    except OSError as error:
        raise unreadable(error, file) from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    for column in filter(None, header):
        if header.count(column) > 1:
            raise UserError(f"{file} has two columns {column!r}")
    for column in columns:
        if column not in header:
            raise UserError(f"{file} has no column {column!r}: its first line names {', '.join(header) or 'none'}")
        for number, row in rows:
            if not row[column]:
                raise UserError(f"{file}, line {number}: the column {column!r} is empty")
    return [row for _, row in rows]


def entries_of(folder: Path, where: str | Mapping[str, str], column: str) -> list[Entry]:
    """Return the images that a CSV file lists (`path`, `column`, and `split` and `mask` if it has them), or of folders.

    Parameters
    ----------
    where
        The file, or a folder for each kind; below `folder`, as all paths are.

    Raises
    ------
    UserError
        When a file or folder is missing, empty or malformed, or an image is there twice.
    """
    if isinstance(where, str):
        require(folder, [where], "a CSV file")
        entries = [_entry(folder / where, row, column) for row in read_rows(folder / where, ("path", column))]
    else:
        entries = [Entry(name, kind) for kind, place in where.items() for name in images_below(folder, place)]
    if not entries:
        raise UserError(f"{folder / where if isinstance(where, str) else folder} names no image")
    check_once(folder, entries, column)
    return entries


def check_once(folder: Path, entries: Iterable[Entry], column: str) -> None:
    """Raise a `UserError` that names an image that two entries lead to, whatever links and ``..`` they go through."""
    folders: dict[Path, str] = {}
    seen: dict[Path, str] = {}
    for entry in entries:
        path = folder / entry.name
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        place = Path(folders[path.parent], path.name)
        if os.path.islink(place):  # noqa: PTH114 - Path.is_symlink raises for names that are too long
            place = Path(os.path.realpath(place))
        if place in seen:
            other = f", as {seen[place]}" if seen[place] != entry.name else ""
            raise UserError(f"{path} is there twice{other}: an image has one {column} and one part")
        seen[place] = entry.name


def _entry(file: Path, row: Mapping[str, str], column: str) -> Entry:
    part = row.get("split") or None
    if part is not None and part not in PARTS_OF_TABLES:
        raise UserError(f"{file}: split {part!r} of {row['path']} is none of {', '.join(PARTS_OF_TABLES)}")
    return Entry(row["path"], row[column], part and PARTS_OF_TABLES[part], row.get("mask") or None)


def images_below(folder: Path, place: str) -> list[str]:
    """Return the names below `folder` of all images in one of its folders, hidden ones left out, in their order.

    Links are followed, and each folder is read once.

    Raises
    ------
    UserError
        When there is no such folder, one cannot be read, or there is no image in it.
    """
    require(folder, [place], "a folder of images")

    def refuse(error: OSError) -> NoReturn:
        raise unreadable(error, folder / place)

    names, seen = [], set()
    for above, folders, files in os.walk(folder / place, onerror=refuse, followlinks=True):
        status = Path(above).stat()
        known = (status.st_dev, status.st_ino) in seen
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [] if known else sorted(name for name in folders if not name.startswith("."))
        if not known:
            inner = Path(place) / Path(above).relative_to(folder / place)
            names += [(inner / name).as_posix() for name in files if _is_image(Path(above, name))]
    if not names:
        raise UserError(f"{folder / place} holds no image")
    return sorted(names)


def _is_image(path: Path) -> bool:
    """Tell an image file, or a link with its name that leads nowhere, from folders, pipes and other files."""
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
        return False
    return not exists(path) or path.is_file()
