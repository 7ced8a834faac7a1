"""Layouts without a table, whose folders say label and attribute: UrbanCars and Spawrious."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from mmc_bench.errors import UserError

from .listing import TEST, TRAIN, VALIDATION, GroupListing, Image, folder_with

PICTURES = {".png", ".jpg", ".jpeg"}

AREAS = ("urban", "country")
#: The folder of each split of UrbanCars: the training images' background and object go with 95 % of the cars.
URBANCARS = {
    TRAIN: "bg-0.95_co_occur_obj-0.95/train",
    VALIDATION: "bg-0.5_co_occur_obj-0.5/val",
    TEST: "bg-0.5_co_occur_obj-0.5/test",
}

SPAWRIOUS = "spawrious224"
BREEDS = ("bulldog", "corgi", "dachshund", "labrador")
PLACES = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
#: The two training environments of Spawrious, and the images of each breed in one.
ENVIRONMENTS = ("0", "1")
IMAGES = 3168
#: Of a one-to-one benchmark, the share of each environment in which a breed is in its own place.
SHARES = (0.97, 0.87)
#: The order of the breeds in the benchmarks, and in each the places of the training images, of the test images, and the
#: place in which all breeds are now and then (Lynch et al., 2023; aengusl/spawrious, spawrious/torch.py).
ORDER = ("bulldog", "dachshund", "labrador", "corgi")
BENCHMARKS = {
    "o2o_easy": (("desert", "jungle", "dirt", "snow"), ("dirt", "snow", "desert", "jungle"), "beach"),
    "o2o_medium": (("mountain", "beach", "dirt", "jungle"), ("jungle", "dirt", "beach", "snow"), "desert"),
    "o2o_hard": (("jungle", "mountain", "snow", "desert"), ("mountain", "snow", "desert", "jungle"), "beach"),
    "m2m_easy": (("desert", "mountain", "dirt", "jungle"), ("dirt", "jungle", "mountain", "desert"), None),
    "m2m_medium": (("beach", "snow", "mountain", "desert"), ("desert", "mountain", "beach", "snow"), None),
    "m2m_hard": (("dirt", "jungle", "snow", "beach"), ("snow", "beach", "dirt", "jungle"), None),
}


def read_urbancars(folder: Path) -> GroupListing:
    """Return the images of UrbanCars; an attribute is ``BACKGROUND OBJECT``.

    Raises
    ------
    UserError
        When a folder is missing or empty.
    """
    root = folder_with(folder, URBANCARS[TRAIN], ["urbancars"])
    if root is None:
        raise UserError(f"{folder} holds no {URBANCARS[TRAIN]}, nor urbancars/{URBANCARS[TRAIN]}")
    images = []
    for (split, place), car, background, thing in product(URBANCARS.items(), AREAS, AREAS, AREAS):
        name = f"{place}/obj-{car}_bg-{background}_co_occur_obj-{thing}"
        if not (root / name).is_dir():
            raise UserError(f"{root} holds no folder {name} of UrbanCars")
        images += [Image(file, car, f"{background} {thing}", split) for file in _pictures(root, name)]
    return GroupListing.of(root, images, root)


def read_spawrious(folder: Path) -> GroupListing:
    """Return the images of Spawrious, all of the training split: a benchmark says which are for what.

    Raises
    ------
    UserError
        When there are none.
    """
    root = folder_with(folder, SPAWRIOUS)
    root = folder if root is None else root / SPAWRIOUS
    images = [
        Image(file, breed, place, TRAIN)
        for environment, place, breed in product(ENVIRONMENTS, PLACES, BREEDS)
        for file in _pictures(root, f"{environment}/{place}/{breed}")
    ]
    if not images:
        raise UserError(f"{folder} holds no images {SPAWRIOUS}/0/PLACE/BREED, such as {SPAWRIOUS}/0/desert/bulldog")
    files = tuple(image.file for image in images)
    return GroupListing(
        root=root, files=files, num_classes=len(BREEDS), images=tuple(images), labels=BREEDS, attributes=PLACES
    )


def images_of_benchmark(listing: GroupListing, benchmark: str) -> list[Image]:
    """Return the images of a benchmark of Spawrious, as the authors' loader chooses them, in the order of their names.

    Raises
    ------
    UserError
        When a folder of the benchmark is missing.
    """
    by_folder: dict[str, list[Image]] = {}
    for image in listing.images:
        by_folder.setdefault(image.file.rpartition("/")[0], []).append(image)
    chosen = []
    for split, folder, most in _folders(benchmark):
        if folder not in by_folder:
            raise UserError(f"{listing.root} has no images in {folder}, which the benchmark {benchmark} needs")
        chosen += [image._replace(split=split) for image in by_folder[folder][:most]]
    return chosen


def _folders(benchmark: str) -> Iterator[tuple[str, str, int | None]]:
    """Yield the folders of a benchmark: split, name, and how many images are taken; None is all."""
    training, test, common = BENCHMARKS[benchmark]
    for number, breed in enumerate(ORDER):
        if common is None:  # breeds come in pairs, which share two places
            pair = (number, number + 1 - number % 2 * 2)
            for split, places, most in ((TRAIN, training, IMAGES), (TEST, test, None)):
                yield from ((split, f"0/{places[one]}/{breed}", most) for one in pair)
            continue
        for environment, share in zip(ENVIRONMENTS, SHARES, strict=True):
            own = int(share * IMAGES)
            yield TRAIN, f"{environment}/{training[number]}/{breed}", own
            yield TRAIN, f"{environment}/{common}/{breed}", IMAGES - own
            yield TEST, f"{environment}/{test[number]}/{breed}", None


def _pictures(root: Path, name: str) -> Iterator[str]:
    """Yield the image files in a folder, sorted, by their names below `root`."""
    if (root / name).is_dir():
        names = (path.name for path in (root / name).iterdir() if path.suffix.lower() in PICTURES)
        yield from (f"{name}/{file}" for file in sorted(names))
