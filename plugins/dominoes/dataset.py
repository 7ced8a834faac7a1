"""Dominoes (Shah et al., 2020, as Lubana et al., 2023, App. A.1 build it)."""

import torch
from torch.nn import functional as F

from mmc_bench import BaseConfig, UserError
from mmc_bench.data.contract import ImageSources, LabelledImages
from mmc_bench.data.mapped import in_memory

NUM_CLASSES = 10


class Dominoes:
    """A Fashion-MNIST image on top of each CIFAR-10 image tells its label; together they have 64x32 pixels.

    The i-th image of class k carries the i-th Fashion-MNIST image of class k, train with train and test with
    test, in dataset order; where Fashion-MNIST has fewer of a class, its images are used again from the first.

    The upper half is enlarged to CIFAR-10's size, in three equal channels. Its values lie in [0, 1], and are 0
    without a cue, as in the authors' code; those of the lower half lie in [-1, 1].

    A cue code is a row of all Fashion-MNIST images, the training ones first. RC draws from the test images, and random
    cues of training and validation images are drawn from the training images.
    """

    class Config(BaseConfig):
        """This cue has no parameters."""

    num_classes = NUM_CLASSES
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: ImageSources) -> None:
        """Load both image sets and pair them."""
        train, test = sources.load("cifar10")
        upper_train, upper_test = sources.load("fashion-mnist")
        for name, part in (("cifar10", train), ("cifar10", test), ("fashion-mnist", upper_train)):
            check_classes(name, part.labels)
        check_classes("fashion-mnist", upper_test.labels)
        size = train.images.shape[-2:]
        uppers = [enlarged(in_memory(upper.images), size) for upper in (upper_train, upper_test)]
        self._uppers = torch.cat(uppers)  # (M, 1, H, W)
        self._first_test = len(upper_train.labels)
        self.train = train.with_cues(partners(train.labels, upper_train.labels))
        self.test = test.with_cues(self._first_test + partners(test.labels, upper_test.labels))

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` Fashion-MNIST test images drawn uniformly, whatever their class."""
        return torch.randint(self._first_test, len(self._uppers), (n,), generator=generator)

    def random_train_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` Fashion-MNIST training images drawn uniformly, whatever their class."""
        return torch.randint(self._first_test, (n,), generator=generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return images of shape (n, 3, 2H, W): the cue's image above each image."""
        if self._uppers.device != images.device:  # moved once, not with every batch
            self._uppers = self._uppers.to(images.device)
        uppers = self._uppers[cue].to(images.dtype) / 255  # (n, 1, H, W)
        return torch.cat([uppers.expand_as(images), images], dim=2)

    def without_cue(self, images: torch.Tensor) -> torch.Tensor:
        """Return images of shape (n, 3, 2H, W): 0 above each image."""
        return torch.cat([torch.zeros_like(images), images], dim=2)


def check_classes(name: str, labels: torch.Tensor) -> None:
    """Raise a `UserError` unless each of the ten classes has an image."""
    counts = torch.bincount(labels, minlength=NUM_CLASSES)
    if len(counts) != NUM_CLASSES or not counts.all():
        classes = int((counts > 0).sum())
        raise UserError(f"{name} has images of {classes} classes, but the dominoes cue is made for {NUM_CLASSES}")


def partners(labels: torch.Tensor, upper_labels: torch.Tensor) -> torch.Tensor:
    """Return for the i-th of each class in `labels` the row of the i-th of that class in `upper_labels`.

    A class with fewer upper images starts again from its first.
    """
    one_hot = F.one_hot(labels, NUM_CLASSES)  # (N, K)
    rank = one_hot.cumsum(0).gather(1, labels[:, None])[:, 0] - 1  # position within the class
    by_class = upper_labels.argsort(stable=True)
    counts = torch.bincount(upper_labels, minlength=NUM_CLASSES)
    starts = counts.cumsum(0) - counts
    return by_class[starts[labels] + rank % counts[labels]]


def enlarged(images: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Return uint8 images (N, 1, h, w) resized bilinearly to `size`, rounded after each axis, as Pillow does it.

    In stretches, whose floats need little memory.
    """
    height, width = size

    def resized(stretch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(stretch, size=size, mode="bilinear", align_corners=False, antialias=True).add(0.5).floor()

    return torch.cat(
        [
            resized(resized(stretch.float(), (stretch.shape[-2], width)), (height, width)).byte()
            for stretch in images.split(500)
        ]
    )
