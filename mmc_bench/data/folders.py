"""Class folders as tensors."""

from pathlib import Path

import torch

from mmc_bench.data.class_folders import PARTS, Order, identity_of_folders, read_class_folders
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.decoded import DecodedShape, PictureFiles, decode, several_sizes
from mmc_bench.data.listing import refuse_changed
from mmc_bench.data.stored import IMAGE_MEMORY


def load_folder(
    folder: Path,
    size: tuple[int, int] | None,
    channels: int | None,
    memory: int = IMAGE_MEMORY,
    order: Order = "by name",
    planned: str | None = None,
) -> tuple[SourceImages, SourceImages]:
    """Return the train and test images of a folder in ``ImageFolder`` layout.

    Parameters
    ----------
    folder
        Holds ``train/<class>/*`` and ``test/<class>/*``; class names sort into label order.
    size
        Height and width that every image is resized to (bilinear, antialiased); None keeps the images' own,
        which must then all be equal.
    channels
        1 (grey) or 3 (RGB); None means 3.
    memory
        Bytes; images that take more stay in a file.
    order
        How the training images are ordered.
    planned
        The identity of the images that a run was planned with, if there is one.

    Raises
    ------
    UserError
        When the folder is malformed, has other images than were planned with, or an image cannot be read.
    """
    found, shape = read_class_folders(folder, order), DecodedShape(size, channels or 3)
    identity = identity_of_folders(found)
    refuse_changed(folder, identity, planned)

    def part(name: str) -> SourceImages:
        listing = found.images[name]
        pictures = PictureFiles(folder, [image.name for image in listing], identity)
        labels = torch.tensor([image.label for image in listing], dtype=torch.int64)
        return SourceImages(decode(pictures, shape, memory), labels)

    train, test = map(part, PARTS)
    (height, width), (test_height, test_width) = train.images.shape[2:], test.images.shape[2:]
    if (test_width, test_height) != (width, height):
        raise several_sizes(folder / found.images["test"][0].name, (test_width, test_height), (width, height))
    return train, test
