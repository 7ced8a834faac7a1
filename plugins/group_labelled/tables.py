"""Layouts with a table: SubpopBench's, WILDS' and group DRO's metadata.csv, and CelebA's lists."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmc_bench.errors import UserError

from .listing import SPLITS, GroupListing, Image, folder_with, missing_of

TABLE = "metadata.csv"
#: The columns that are read, each by the names that it may have.
COLUMNS = {"file": ("filename", "img_filename"), "label": ("y",), "attribute": ("a", "place"), "split": ("split",)}
WANTED = "filename,y,a,split or img_filename,y,place,split"

#: Folders in which Waterbirds is packed, by group DRO and by WILDS.
WATERBIRDS = ("waterbird_complete95_forest2water2", "waterbirds_v1.0", "waterbirds")

CELEBA_IMAGES = ("img_align_celeba", "img_align_celeba/img_align_celeba")
CELEBA_LISTS = ("list_attr_celeba", "list_eval_partition")
LABEL, ATTRIBUTE = "Blond_Hair", "Male"

#: A line of a table: its number, and its fields.
Line = tuple[int, list[str]]


def read_table(folder: Path, inner: Sequence[str] = ()) -> GroupListing:
    """Return the images that a folder's metadata.csv lists; their names are below the folder.

    Raises
    ------
    UserError
        When the table is missing, lacks a column or a file, or has a value that is not allowed.
    """
    root = folder_with(folder, TABLE, inner)
    if root is None:
        others = "".join(f", nor {one}/{TABLE}" for one in inner)
        raise UserError(f"{folder} holds no {TABLE}{others} with the columns {WANTED}")
    table = root / TABLE
    columns, *lines = list(_rows(table)) or [(0, [])]
    places = {}
    for column, known in COLUMNS.items():
        if not (there := [name for name in known if name in columns[1]]):
            has = f"it has {', '.join(columns[1]) or 'none'}"
            raise UserError(f"{table} lacks the column {' or '.join(known)}: looked for {WANTED}, and {has}")
        places[column] = columns[1].index(there[0])
    images = [
        _image(table, number, {column: row[place] if place < len(row) else "" for column, place in places.items()})
        for number, row in lines
    ]
    if (lost := missing_of(root, (image.file for image in images))) is not None:
        raise UserError(f"{table} lists {lost}, and there is no such file in {root}")
    return GroupListing.of(root, images, table, [TABLE])


def read_waterbirds(folder: Path) -> GroupListing:
    """Return the images of Waterbirds, in its folder or in one that holds it; raises like `read_table`."""
    return read_table(folder, WATERBIRDS)


def read_celeba(folder: Path) -> GroupListing:
    """Return the images of CelebA, the label being blond hair and the attribute gender.

    The lists are the official text files, or Kaggle's CSV files of the same names.

    Raises
    ------
    UserError
        When a list or the folder of images is missing, or a list lacks what is read of it.
    """
    tables = [_celeba_list(folder, name) for name in CELEBA_LISTS]
    pictures = next((place for place in reversed(CELEBA_IMAGES) if (folder / place).is_dir()), None)
    if pictures is None:
        raise UserError(f"{folder} holds no folder {CELEBA_IMAGES[0]} with CelebA's aligned images")
    of_image, split_of = _read_celeba_list(tables[0], (LABEL, ATTRIBUTE)), _read_celeba_list(tables[1])
    images = []
    for file, flags in of_image.items():
        if file not in split_of:
            raise UserError(f"{tables[1]} says no split of {file}, which {tables[0].name} lists")
        label, attribute = (_flag(tables[0], file, flag) for flag in flags)
        given = {"file": f"{pictures}/{file}", "label": label, "attribute": attribute, "split": split_of[file][0]}
        images.append(_image(tables[1], None, given))
    if (lost := missing_of(folder, (image.file for image in images))) is not None:
        raise UserError(f"{tables[0]} lists {Path(lost).name}, and there is no file {folder / lost}")
    return GroupListing.of(folder, images, tables[1], [table.name for table in tables])


def _image(table: Path, number: int | None, given: Mapping[str, str]) -> Image:
    """Return an image as a line of a table has it, whose values are by the keys of `COLUMNS`."""
    place = f"{table}" if number is None else f"{table}, line {number}"
    for column, value in given.items():
        if value.lower() in ("", "nan"):
            raise UserError(f"{place}: the {column} is {value or 'missing'}")
    split = SPLITS.get(given["split"].lower())
    if split is None:
        raise UserError(f"{place}: split {given['split']!r} is none of 0, 1, 2 and train, val, test")
    return Image(given["file"], given["label"], given["attribute"], split)


def _rows(table: Path) -> Iterator[Line]:
    """Yield the lines of a CSV, or of a text file with spaces between the fields, that are not empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file) if table.suffix == ".csv" else (line.split() for line in file)
            for number, row in enumerate(rows, 1):
                if row:
                    yield number, [value.strip() for value in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as a table: {error}") from None


def _celeba_list(folder: Path, name: str) -> Path:
    for suffix in (".txt", ".csv"):
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise UserError(f"{folder} holds neither {name}.txt nor {name}.csv of CelebA")


def _read_celeba_list(table: Path, wanted: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return these values of each image, or its only one.

    A text file may begin with the number of images and the names of the values; a CSV begins with the names of all its
    columns.
    """
    names: list[str] = []
    found, width, places = {}, 1, [0]
    for number, row in _rows(table):
        if number <= 2 and "." not in row[0]:
            names = [] if row[0].isdecimal() else row[table.suffix == ".csv" :]
            width = max(len(names), 1)
            places = [names.index(name) for name in wanted if name in names] or [0]
        elif len(row) != 1 + width:
            raise UserError(f"{table}, line {number}: {len(row) - 1} values, not {width}")
        elif row[0] in found:
            raise UserError(f"{table} lists {row[0]} twice")
        else:
            found[row[0]] = [row[1 + place] for place in places]
    if lost := [name for name in wanted if name not in names]:
        raise UserError(f"{table} lacks the attribute {lost[0]}: it has {', '.join(names[:5]) or 'no names'}, …")
    return found


def _flag(table: Path, file: str, value: str) -> str:
    """Return a flag of CelebA, 1 or -1 (0 in some copies), as 1 or 0."""
    if value not in ("1", "0", "-1"):
        raise UserError(f"{table}: the attributes of {file} are 1 or -1, not {value!r}")
    return "1" if value == "1" else "0"
