"""What lies in a folder, by name: images of folders, rows of CSV files, and the sentence for what is missing."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmc_bench import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

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
    """Raise a `UserError` that says what was looked for where files or folders are missing.

    Parameters
    ----------
    names
        Below `folder`.
    wanted
        What they are to the user: ``"CUB-200-2011"``.
    """
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        more = f" and {len(missing) - QUOTED:,} more" if len(missing) > QUOTED else ""
        raise UserError(f"{folder} lacks {', '.join(missing[:QUOTED])}{more}: {wanted} was looked for there")


def read_rows(file: Path, columns: Iterable[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a CSV file as dictionaries; none of `columns` is empty in any row.

    Raises
    ------
    UserError
        When the file cannot be read, or lacks a column or a value.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, delimiter=delimiter)
            rows, header = list(reader), reader.fieldnames or ()
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for column in columns:
        if column not in header:
            raise UserError(f"{file} has no column {column!r}: its first line names {', '.join(header) or 'none'}")
        empty = next((number for number, row in enumerate(rows, start=2) if not row[column]), None)
        if empty:
            raise UserError(f"{file}, line {empty}: the column {column!r} is empty")
    return rows


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
        entries = [_entry(folder / where, row, column) for row in read_rows(folder / where, ("path", column))]
    else:
        entries = [Entry(name, kind) for kind, place in where.items() for name in images_below(folder, place)]
    if not entries:
        raise UserError(f"{folder / where if isinstance(where, str) else folder} names no image")
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise UserError(f"{folder / entry.name} is there twice: an image has one {column} and one part")
        seen.add(entry.name)
    return entries


def _entry(file: Path, row: Mapping[str, str], column: str) -> Entry:
    part = row.get("split") or None
    if part is not None and part not in PARTS_OF_TABLES:
        raise UserError(f"{file}: split {part!r} of {row['path']} is none of {', '.join(PARTS_OF_TABLES)}")
    return Entry(row["path"], row[column], part and PARTS_OF_TABLES[part], row.get("mask") or None)


def images_below(folder: Path, place: str) -> list[str]:
    """Return the names below `folder` of all images in one of its folders, hidden ones left out, in their order.

    Raises
    ------
    UserError
        When there is no such folder, or no image in it.
    """
    require(folder, [place], "a folder of images")
    below = [file.relative_to(folder / place) for file in (folder / place).rglob("*")]
    names = sorted(
        (Path(place) / name).as_posix()
        for name in below
        if name.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in name.parts)
    )
    if not names:
        raise UserError(f"{folder / place} holds no image")
    return names
