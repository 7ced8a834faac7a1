"""Sizes for an audit that follow from the images at hand."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import ceil

from PIL import Image, UnidentifiedImageError

from mmc_bench.data.class_folders import ClassFolders, ImageFile
from mmc_bench.errors import UserError
from mmc_bench.results.settings import DataSettings, Recipe

#: Training and test images that each class must have.
FEWEST = {"train": 10, "test": 2}

#: Pixels of the side that images are resized to where they are larger, or not all alike.
SIDE = 64

#: Images of train and of test that are looked at to tell whether all are alike.
SAMPLE = 100

#: Pretraining images that there must be for each clean one; otherwise the held-out sets are cut as well.
PER_CLEAN_IMAGE = 4

#: Steps of pretraining with fewer of which a network may learn nothing.
FEW_STEPS = 100

#: Share of the training images that is left where a dataset holds out its own shares.
LEFT = 0.8


def data_for(asked: DataSettings, folder: ClassFolders, report: Callable[[str], None]) -> DataSettings:
    """Return the sizes of an audit's sets: those asked for, or smaller ones where the images are too few for these.

    Parameters
    ----------
    asked
        The sizes of the suite.
    folder
        The images.
    report
        Called with one sentence where the sizes are cut.

    Raises
    ------
    UserError
        When a class has fewer images than `FEWEST`.
    """
    for part, fewest in FEWEST.items():
        counts = Counter(image.label for image in folder.images[part])
        label, count = min(counts.items(), key=lambda item: (item[1], item[0]))
        if count < fewest:
            name = folder.classes[label]
            raise UserError(f"{folder.root / part / name} holds {count} images: an audit needs {fewest} of each class")
    total, held_out = len(folder.images["train"]), (asked.clean_images or 0) + (asked.validation_images or 0)
    if asked.pretrain_images is None or total - held_out >= asked.pretrain_images:
        return asked
    if total - held_out >= PER_CLEAN_IMAGE * held_out:
        report(f"{folder.root}: pretraining is on {total - held_out} images, not on {asked.pretrain_images}")
        return replace(asked, pretrain_images=None)
    report(f"{folder.root}: {total} training images are few: the datasets' own shares of them are held out")
    return replace(asked, pretrain_images=None, clean_images=None, validation_images=None)


def about_steps(recipe: Recipe, data: DataSettings, folder: ClassFolders) -> str | None:
    """Return a sentence where pretraining has few steps, and how many epochs make enough."""
    total = len(folder.images["train"])
    own = data.clean_images is None and data.validation_images is None
    left = LEFT * total if own else total - (data.clean_images or 0) - (data.validation_images or 0)
    epoch = max(1, ceil(min(left, data.pretrain_images or left) / recipe.batch_size))
    if recipe.epochs * epoch >= FEW_STEPS:
        return None
    return (
        f"{folder.root}: {recipe.epochs * epoch} steps of training are few, and a network may learn nothing: "
        f"--set pretrain.epochs={ceil(FEW_STEPS / epoch)} trains longer"
    )


def pixels_for(folder: ClassFolders) -> int | None:
    """Return the side that images are resized to; None where they can stay as they are."""
    sizes = {
        _size_of(folder, image) for images in folder.images.values() for image in images[:: -(-len(images) // SAMPLE)]
    }
    return None if len(sizes) == 1 and max(*sizes.pop()) <= SIDE else SIDE


def _size_of(folder: ClassFolders, image: ImageFile) -> tuple[int, int]:
    try:
        with Image.open(folder.root / image.name) as picture:
            return picture.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return 0, 0  # what reads all images says what is wrong with this one
