"""Datasets of image files with a label and an attribute each."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.data.contract import ImageSources, LabelledImages

from .listing import TEST, VALIDATION, GroupListing, Image, in_order
from .trees import images_of_benchmark

_Codes = Mapping[str, int]


class GroupLabelled:
    """A folder with a metadata.csv of the columns ``filename,y,a,split``.

    A group is a label y and an attribute a. Without images for validation, a part of the training images is held out.
    """

    class Config(BaseConfig):
        """The images' shape."""

        size: int = Field(64, ge=8, description="pixels of a side")
        fit: Literal["cover", "stretch", "contain"] = Field(
            "cover", description="how an image becomes square: its middle, stretched, or all of it on black"
        )

    source: ClassVar[str] = "group-labelled"
    config: Config

    num_classes: int
    train: LabelledImages
    test: LabelledImages
    validation: torch.Tensor | None

    def load(self, sources: ImageSources) -> None:
        """Read the folder's list, and decode its images."""
        listing: GroupListing = sources.listing(self.source)
        images = self.chosen(listing)
        self.num_classes = len(listing.labels)
        codes = (_codes(listing.labels), _codes(in_order(image.attribute for image in images)))
        own, test = ([one for one in images if (one.split == TEST) == is_test] for is_test in (False, True))
        self.train, self.test = (self._part(part, codes, sources) for part in (own, test))
        held_out = torch.tensor([image.split == VALIDATION for image in own])
        self.validation = held_out if held_out.any() else None

    def chosen(self, listing: GroupListing) -> Sequence[Image]:
        """Return the images of the experiment: all, as they are listed."""
        return listing.images

    def _part(self, images: Sequence[Image], codes: tuple[_Codes, _Codes], sources: ImageSources) -> LabelledImages:
        side = (self.config.size, self.config.size)
        pixels = sources.decode(self.source, [image.file for image in images], side, fit=self.config.fit)
        labels = torch.tensor([codes[0][image.label] for image in images])
        return LabelledImages(pixels, labels, torch.tensor([codes[1][image.attribute] for image in images]))


class Pacs64(GroupLabelled):
    """PACS at 64 x 64: seven classes in four styles (Li et al., 2017)."""

    source = "pacs64"


class Large(GroupLabelled):
    """Images that papers show at 224 pixels."""

    class Config(GroupLabelled.Config):
        """The images' shape."""

        size: int = Field(224, ge=8, description="pixels of a side")


class Waterbirds(Large):
    """Waterbirds as published: birds on land or water backgrounds (Sagawa et al., 2020)."""

    source = "waterbirds-official"


class CelebaBlond(Large):
    """CelebA: blond hair is the label and gender the attribute (Liu et al., 2015; Sagawa et al., 2020)."""

    source = "celeba-blond"


class UrbanCars(Large):
    """UrbanCars: city and country cars, with a background and an object of either place (Li et al., 2023)."""

    class Config(Large.Config):
        """The images' shape, and what groups are made of."""

        attribute: Literal["both", "background", "object"] = Field(
            "both", description="what a group is made of, besides the car"
        )

    source = "urbancars"
    config: Config

    def chosen(self, listing: GroupListing) -> Sequence[Image]:
        """Return all images, with the attribute that groups are made of."""
        if self.config.attribute == "both":
            return listing.images
        place = ("background", "object").index(self.config.attribute)
        return [image._replace(attribute=image.attribute.split(" ")[place]) for image in listing.images]


class Spawrious(Large):
    """Spawrious: four breeds of dogs, each in places where the test images do not show it (Lynch et al., 2023)."""

    class Config(Large.Config):
        """The images' shape, and the benchmark."""

        benchmark: Literal["o2o_easy", "o2o_medium", "o2o_hard", "m2m_easy", "m2m_medium", "m2m_hard"] = Field(
            "o2o_easy", description="one place a breed (o2o) or two (m2m), and how hard the test images are"
        )

    source = "spawrious"
    config: Config

    def chosen(self, listing: GroupListing) -> Sequence[Image]:
        """Return the images of the benchmark, as the authors' loader chooses them, in the order of their names.

        Raises
        ------
        UserError
            When a folder of the benchmark is missing, or has too few images.
        """
        return images_of_benchmark(listing, self.config.benchmark)


def _codes(names: Sequence[str]) -> _Codes:
    return {name: code for code, name in enumerate(names)}
