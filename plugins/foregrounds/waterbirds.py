"""Waterbirds (Sagawa et al., 2020): birds of CUB-200-2011 on land and water of Places, any scene behind any bird."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from PIL.ExifTags import Base
from pydantic import Field

from mmc_bench import UserError
from mmc_bench.data.contract import ImageSources

from .birds import Pair
from .dataset import Foregrounds
from .layout import PARTS, Pictures

if TYPE_CHECKING:
    from mmc_bench.data.decoded import Box

#: EXIF orientations of photographs that are stored on their side.
ON_THEIR_SIDE = (5, 6, 7, 8)

#: What Pillow raises on damaged files.
DAMAGED = (
    *(OSError, EOFError, ValueError, SyntaxError, TypeError, ArithmeticError, LookupError, RuntimeError),
    *(struct.error, Image.DecompressionBombError),
)

#: What networks see of Waterbirds' pictures: stretched to 256 x 256, of which the middle 224 x 224 are cut out.
MIDDLE: "Box" = (1 / 16, 1 / 16, 15 / 16, 15 / 16)


class Waterbirds(Foregrounds):
    """Birds on land and water: the class is landbird, 0, or waterbird, 1, and a scene of its kind is the cue.

    Birds are cut out by their segmentations, and have CUB's own split; places are split in halves. Pictures have the
    official form: a photograph is stretched to a square, of which the middle 7/8 are seen.

    Of 5,994 birds for training 1,379 are waterbirds, and 1,284 of 5,794 for testing; by default as many landbirds are
    used. With all birds (`balanced` is false), a cue rate of .95 and conflicting minorities make a training set like
    the official one: 600 clean and 600 validation birds leave 4,794, and officially there are 4,795. Birds in front of
    the other kind of place are a random sample of their class, the same for all seeds.
    """

    class Config(Foregrounds.Config):
        """As for other cut-outs, at the official size."""

        size: int = Field(224, ge=8, le=1024, description="height and width of a picture, in pixels")

    clean_images = 600
    validation_images = 600

    def load(self, sources: ImageSources) -> None:
        """Decode birds and places, and draw a place for each bird."""
        birds, places = (self._chosen(sources.listing(name).of) for name in ("cub", "places"))
        self._decode(sources, birds, places, None)

    def _decode(
        self,
        sources: ImageSources,
        birds: Mapping[str, Pictures],
        places: Mapping[str, Pictures],
        boxes: "Sequence[Box] | None",
    ) -> None:
        self.num_classes = 2
        side = (self.config.size, self.config.size)
        images = {
            part: sources.decode("cub", each.names, side, 4, each.masks, boxes=[MIDDLE] * len(each.names))
            for part, each in birds.items()
        }
        names = [name for part in PARTS for name in places[part].names]
        scenes = sources.decode("places", names, side, boxes=boxes or [MIDDLE] * len(names))
        self._fill(images, birds, scenes, places, sources.listing("cub").root)


class Waterbirds95(Waterbirds):
    """Waterbirds with the pairs, labels and parts of the official ``metadata.csv``; in training, 95 % match.

    A training bird's own cue is its official place, whichever class that goes with: at a cue rate of 1, the training
    images are the official ones. A test bird whose official place goes with the other class has, on C, another test
    bird's place. The code of the i-th pair's place is i, training pairs first. A place is cut to the shape of its
    bird's photograph, as officially. Birds of the official validation part are left out: runs hold out their own, 600
    clean and 600 validation birds of the 4,795 for training, and train on 3,595.

    Classes are as in the official parts: 78 % of test birds are landbirds. Whoever always says so has a cue reliance of
    .56, and an accuracy of 78 % on NC, C and RC alike: read both with that in mind.
    """

    class Config(Waterbirds.Config):
        """As for Waterbirds, with all of the official pairs."""

        balanced: Literal[False] = Field(False, description="the official pairs are used as they are")

    def load(self, sources: ImageSources) -> None:
        """Decode the birds and places of the official pairs."""
        pairs, cub, places = (sources.listing(name) for name in ("waterbirds-metadata", "cub", "places"))
        masks = {name: mask for each in cub.of.values() for name, mask in zip(each.names, each.masks, strict=True)}
        scenes = {name.removeprefix("data_large/"): name for each in places.of.values() for name in each.names}
        shown, behind, boxes = {}, {}, []
        for part in PARTS:
            own: Sequence[Pair] = pairs.of[part]
            for pair in own:
                for name, known, root in ((pair.bird, masks, cub.root), (pair.place, scenes, places.root)):
                    if name not in known:
                        raise UserError(f"{pairs.root / 'metadata.csv'} names {name}, which is not in {root}")
            birds, labels = tuple(pair.bird for pair in own), tuple(pair.label for pair in own)
            shown[part] = Pictures(names=birds, labels=labels, masks=tuple(masks[name] for name in birds))
            names = tuple(scenes[pair.place] for pair in own)
            behind[part] = Pictures(names=names, labels=tuple(pair.place_label for pair in own))
            boxes += [middle_of(cub.root / bird, places.root / name) for bird, name in zip(birds, names, strict=True)]
        self._decode(sources, shown, behind, boxes)
        self.train = self.train.with_cues(torch.arange(self._first_test))
        official = torch.arange(self._first_test, len(self._scenes))
        matching = torch.tensor(behind["test"].labels) == self.test.labels
        self.test = self.test.with_cues(torch.where(matching, official, self.test.cues))


def middle_of(bird: Path, place: Path) -> "Box":
    """Return what is seen of a place behind a bird: the middle of what has the shape of the bird's photograph.

    Raises
    ------
    UserError
        When either is no image.
    """
    (width, height), (place_width, place_height) = _size(bird), _size(place)
    across = min(width / height * place_height / place_width, 1)
    down = min(height / width * place_width / place_height, 1)
    left, top, right, bottom = MIDDLE
    return (
        0.5 + (left - 0.5) * across,
        0.5 + (top - 0.5) * down,
        0.5 + (right - 0.5) * across,
        0.5 + (bottom - 0.5) * down,
    )


def _size(path: Path) -> tuple[int, int]:
    """Return the width and height that a viewer shows an image with, which its first bytes tell."""
    try:
        with Image.open(path) as image:
            try:
                turned = image.getexif().get(Base.Orientation) in ON_THEIR_SIDE
            except DAMAGED:  # as decoding does: what damaged metadata say is left aside
                turned = False
            return image.size[::-1] if turned else image.size
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read as an image: {getattr(error, 'strerror', None) or error}") from None
