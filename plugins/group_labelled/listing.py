"""Image files with a label, an attribute and a split each, as every layout is read into them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from mmc_bench.data.listing import Listing
from mmc_bench.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
#: What splits are called, as words and as the numbers of WILDS and SubpopBench.
SPLITS = {
    **dict.fromkeys(("0", "train", "tr", "training"), TRAIN),
    **dict.fromkeys(("1", "val", "va", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("2", "test", "te"), TEST),
}


class Image(NamedTuple):
    """One image: its file below a folder, its label and attribute in words or numbers, and its split."""

    file: str
    label: str
    attribute: str
    split: str


@dataclass(frozen=True, kw_only=True)
class GroupListing(Listing):
    """The images of a folder.

    Parameters
    ----------
    images
        In the order in which they are listed.
    labels, attributes
        The different labels and attributes, sorted: a code is a place among them.
    """

    images: tuple[Image, ...] = field(repr=False)
    labels: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, images: Sequence[Image], origin: Path, tables: Iterable[str] = ()) -> "GroupListing":
        """Return the listing of images.

        Parameters
        ----------
        origin
            The file or folder that lists them, for messages.
        tables
            Further files that decide results.

        Raises
        ------
        UserError
            When an image is listed twice, training or test images are missing, a class has test images alone, there
            are no two classes or attributes, or one number is written in two ways.
        """
        times = Counter(os.path.normpath(image.file) for image in images)
        if again := [file for file, count in times.items() if count > 1]:
            raise UserError(f"{origin} lists {again[0]} twice")
        found = {
            split: {image.label for image in images if image.split == split} for split in (TRAIN, VALIDATION, TEST)
        }
        for split in (TRAIN, TEST):
            if not found[split]:
                raise UserError(f"{origin} has no {split} images")
        for split in (VALIDATION, TEST):
            if unseen := found[split] - found[TRAIN]:
                raise UserError(f"{origin}: class {min(unseen)} has {split} images and no train images")
        if len(found[TRAIN]) < 2:
            raise UserError(f"{origin} has the class {min(found[TRAIN])} alone: a dataset needs two classes or more")
        if len(trained := {image.attribute for image in images if image.split == TRAIN}) < 2:
            raise UserError(f"{origin}: all train images have the attribute {min(trained)}: groups need two or more")
        files = tuple(dict.fromkeys((*tables, *(image.file for image in images))))
        labels, attributes = in_order(image.label for image in images), in_order(image.attribute for image in images)
        _check_spelling(origin, "labels", labels)
        _check_spelling(origin, "attributes", attributes)
        return cls(
            root=root, files=files, num_classes=len(labels), images=tuple(images), labels=labels, attributes=attributes
        )


def in_order(values: Iterable[str]) -> tuple[str, ...]:
    """Return the different values, sorted: as numbers where all are numbers, else as words."""
    different = {*values}
    words = any(_number(value) is None for value in different)
    return tuple(sorted(sorted(different), key=None if words else Decimal))  # the same order in every process


def _check_spelling(origin: Path, what: str, values: Iterable[str]) -> None:
    """Refuse different values that are one number."""
    spelt: dict[Decimal, str] = {}
    for value in values:
        number = _number(value)
        if number is not None and (other := spelt.setdefault(number, value)) != value:
            raise UserError(f"{origin}: the {what} {other} and {value} are the same number: write it in one way")


def _number(value: str) -> Decimal | None:
    """Return a finite number of any length, or None for a word."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def folder_with(folder: Path, name: str, inner: Iterable[str] = ()) -> Path | None:
    """Return the folder itself, or the first of these inside it, that holds a file or folder of a name."""
    places = (folder, *(folder / one for one in inner))
    return next((place for place in places if os.path.lexists(place / name)), None)


def missing_of(root: Path, files: Iterable[str]) -> str | None:
    """Return the first of these files that is not below a folder."""
    # Unlike Path.is_file, os.path.isfile takes a name that is too long.
    return next((file for file in files if not os.path.isfile(root / file)), None)  # noqa: PTH113
