"""Image files with a label, an attribute and a split each, as every layout is read into them."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
            What told of them, for messages.
        tables
            Further files that decide results.

        Raises
        ------
        UserError
            When training or test images are missing, or a class has test images alone.
        """
        found = {
            split: {image.label for image in images if image.split == split} for split in (TRAIN, VALIDATION, TEST)
        }
        for split in (TRAIN, TEST):
            if not found[split]:
                raise UserError(f"{origin} has no {split} images")
        for split in (VALIDATION, TEST):
            if unseen := found[split] - found[TRAIN]:
                raise UserError(f"{origin}: class {min(unseen)} has {split} images and no train images")
        files = tuple(dict.fromkeys((*tables, *(image.file for image in images))))
        labels, attributes = in_order(image.label for image in images), in_order(image.attribute for image in images)
        return cls(
            root=root, files=files, num_classes=len(labels), images=tuple(images), labels=labels, attributes=attributes
        )


def in_order(values: Iterable[str]) -> tuple[str, ...]:
    """Return the different values, sorted: as numbers where all are whole numbers, else as words."""
    different = {*values}
    return tuple(sorted(different, key=int if all(value.isdecimal() for value in different) else None))


def folder_with(folder: Path, name: str, inner: Iterable[str] = ()) -> Path | None:
    """Return the folder itself, or the first of these inside it, that holds a file or folder of a name."""
    places = (folder, *(folder / one for one in inner))
    return next((place for place in places if os.path.lexists(place / name)), None)


def missing_of(root: Path, files: Iterable[str]) -> str | None:
    """Return the first of these files that is not below a folder."""
    return next((file for file in files if not (root / file).is_file()), None)
