"""The sets of one experiment of a dataset whose images come in groups: as they are, without counterfactuals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from mmc_bench.data.contract import GroupedDataset, LabelledImages
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.splits import ExperimentData, generator_of, placed
from mmc_bench.data.stored import IMAGE_MEMORY
from mmc_bench.errors import UserError
from mmc_bench.results.metrics import (
    GROUP_SPLITS,
    GroupMetrics,
    GroupScore,
    Metrics,
    Score,
    group_name,
    pooled,
    worst_of,
)
from mmc_bench.results.settings import DataSettings

#: The share of each group's training images that is held out where a dataset has no images for validation.
HELD_OUT = 0.2


@dataclass(frozen=True)
class LabelledGroup:
    """One label with one attribute, and how many training images and images of a split it has."""

    label: int
    attribute: int
    aligned: bool
    train_images: int
    images: int

    @property
    def name(self) -> str:
        """Label and attribute in words."""
        return group_name(self.label, self.attribute)

    def scored(self, score: Score) -> GroupScore:
        """Return a model's score on its images as records keep it."""
        return GroupScore(
            label=self.label,
            attribute=self.attribute,
            aligned=self.aligned,
            train_images=self.train_images,
            test_images=self.images,
            accuracy=score.accuracy,
            loss=score.loss,
        )


@dataclass(frozen=True)
class GroupedData(ExperimentData):
    """Every set of one experiment on images that come as they are, each with an attribute.

    `pretraining` and `pretraining_nc` are the training images. `environments` tells the aligned images, 1, from the
    conflicting ones, 0. `clean` has as many images of each group; `validation` is held out like it, with its groups as
    they come. `splits` and `validation_splits` are one set for each of `groups` and `validation_groups`, so that each
    image is scored once, and `train_splits` are those of `mmc_bench.results.metrics.GROUP_SPLITS` that have images.
    What is aligned, and each group's `train_images`, are told from all training images of the dataset, whatever the
    seed.
    """

    groups: tuple[LabelledGroup, ...] = ()
    validation_groups: tuple[LabelledGroup, ...] = ()
    test_halves: dict[str, CuedImages] = field(default_factory=dict)

    @property
    def all_cued(self) -> CuedImages:
        """The training images: each has its attribute."""
        return self.pretraining

    @property
    def watched(self) -> dict[str, CuedImages]:
        """The aligned and the conflicting test images, where there are such."""
        return self.test_halves

    def metrics(self, scores: Mapping[str, Score]) -> GroupMetrics:
        """Return a model's scores as records keep them."""
        return GroupMetrics(groups=self.scored(scores), train=scores["train"], validation=scores["validation"])

    def scored(self, scores: Mapping[str, Score]) -> tuple[GroupScore, ...]:
        """Return a model's scores on the groups, by their names, as records keep them."""
        return _scored(self.groups, scores)

    def test_scores(self, scores: Mapping[str, Score]) -> dict[str, Score]:
        """Return the scores on all, the aligned and the conflicting test images, from those on the groups."""
        return pooled(self.scored(scores))

    def scores_of_sets(self, metrics: Metrics | GroupMetrics) -> Mapping[str, Score]:
        """Return the scores on the groups."""
        assert isinstance(metrics, GroupMetrics)
        return {group.name: Score(accuracy=group.accuracy, loss=group.loss) for group in metrics.groups}

    def trial_scores(self, scores: Mapping[str, Score]) -> dict[str, Score]:
        """Return the scores on all validation images and on the worst of their groups."""
        groups = _scored(self.validation_groups, scores)
        worst = worst_of(groups)
        return {
            "all": pooled(groups)["all"],
            "worst_group": Score(accuracy=worst.accuracy, loss=worst.loss),
        }


def _scored(groups: Sequence[LabelledGroup], scores: Mapping[str, Score]) -> tuple[GroupScore, ...]:
    return tuple(group.scored(scores[group.name]) for group in groups)


@dataclass(frozen=True)
class _Association:
    """How many training images each label and attribute have, (K, A)."""

    counts: torch.Tensor

    @classmethod
    def of(cls, dataset: GroupedDataset, train: LabelledImages, num_attributes: int) -> "_Association":
        """Return the association in all training images but those that the dataset has for validation."""
        num_classes = dataset.num_classes
        places = train.labels * num_attributes + train.cues.long()
        if (mask := _validation_of(dataset)) is not None:
            places = places[~mask.to(places.device)]
        counts = torch.bincount(places, minlength=num_classes * num_attributes)
        return cls(counts.view(num_classes, num_attributes))

    @property
    def positive(self) -> torch.Tensor:
        """Whether a label and an attribute occur together more often than if they were independent, (K, A)."""
        return self.counts * self.counts.sum() > self.counts.sum(1, keepdim=True) * self.counts.sum(0, keepdim=True)

    def aligned(self, images: CuedImages) -> torch.Tensor:
        """Return whether each image's attribute goes with its label, (N,)."""
        return self.positive[images.labels, images.cues]

    def groups_of(self, images: CuedImages) -> tuple[tuple[LabelledGroup, ...], dict[str, CuedImages]]:
        """Return the groups that have images, and their images by name."""
        groups, sets = [], {}
        for label, attribute in torch.stack([images.labels, images.cues], dim=1).unique(dim=0).tolist():
            own = images.subset(((images.labels == label) & (images.cues == attribute)).nonzero()[:, 0])
            aligned, count = bool(self.positive[label, attribute]), int(self.counts[label, attribute])
            group = LabelledGroup(label, attribute, aligned, count, len(own))
            groups.append(group)
            sets[group.name] = own
        return tuple(groups), sets

    def halves_of(self, images: CuedImages) -> dict[str, CuedImages]:
        """Return the aligned and the conflicting images, where there are such."""
        aligned = self.aligned(images)
        masks = dict(zip(GROUP_SPLITS[1:], (aligned, ~aligned), strict=True))
        return {name: images.subset(mask.nonzero()[:, 0]) for name, mask in masks.items() if mask.any()}


def derive_groups(
    dataset: GroupedDataset,
    settings: DataSettings,
    seed: int,
    device: torch.device | str = "cpu",
    image_memory: int = IMAGE_MEMORY,
) -> GroupedData:
    """Derive all sets of one experiment from a loaded dataset whose images come in groups.

    The clean set is drawn as in deep feature reweighting (Kirichenko et al., 2023): from one half of the validation
    images, as many of each group as the smallest has; the other half is the validation set. Each group is halved for
    itself; the clean set's half has the odd image. Every set lies in a random order of its own, fixed by the seed.

    Parameters
    ----------
    dataset
        A loaded dataset.
    settings
        `clean_images` bounds the clean set, `validation_images` the validation set, `pretrain_images` the training set,
        `test_images` the test set.
    seed, device, image_memory
        Those of `mmc_bench.data.splits.derive_experiment`.

    Raises
    ------
    UserError
        When there are too few images, a label or attribute is no whole number from 0 on, or a class has no training
        images.
    """
    _check("training", dataset.train, dataset.num_classes)
    _check("test", dataset.test, dataset.num_classes)
    train, test = placed(dataset.train, device), placed(dataset.test, device)
    train_rows, validation_rows = _partition(dataset, settings, seed)
    clean_rows, held_out_rows = _halves(dataset.train, validation_rows)
    clean_rows = _balanced(dataset.train, clean_rows, settings.clean_images)
    pretraining, clean = _images(train, train_rows), _images(train, clean_rows)
    held_out = _images(train, held_out_rows[: settings.validation_images])
    tested = _images(test, _shuffled(len(test.labels), "test order", seed)[: settings.test_images])
    num_attributes = 1 + int(max(train.cues.max(), test.cues.max()))
    known = _Association.of(dataset, train, num_attributes)
    _check_classes(pretraining, tested)
    groups, splits = known.groups_of(tested)
    validation_groups, validation_splits = known.groups_of(held_out)
    return GroupedData(
        pretraining=pretraining,
        pretraining_nc=pretraining,
        environments=known.aligned(pretraining).long(),
        clean=clean,
        validation=held_out,
        splits=splits,
        validation_splits=validation_splits,
        train_splits={"all": pretraining, **known.halves_of(pretraining)},
        fully_cued=pretraining,
        num_classes=dataset.num_classes,
        input_shape=tuple(tested.batch(slice(0, 1))[0].shape[1:]),
        image_memory=image_memory,
        clean_environments=known.aligned(clean).long(),
        cue_classes=_attributes,
        groups=groups,
        validation_groups=validation_groups,
        test_halves=known.halves_of(tested),
    )


def _attributes(codes: torch.Tensor) -> torch.Tensor:
    return codes


def _images(part: LabelledImages, rows: torch.Tensor) -> CuedImages:
    rows = rows.to(part.labels.device)
    return CuedImages(part.images, rows, part.labels[rows], part.cues[rows].long(), lambda images, cues: images)


def _shuffled(n: int, what: str, seed: int) -> torch.Tensor:
    return torch.randperm(n, generator=generator_of(what, seed))


def _validation_of(dataset: GroupedDataset) -> torch.Tensor | None:
    """Return which training images the dataset has for validation, (N,), or None where it does not say."""
    return getattr(dataset, "validation", None)


def _partition(dataset: GroupedDataset, settings: DataSettings, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of the training set and those for validation, each in a random order."""
    rows = _shuffled(len(dataset.train.labels), "held-out sets", seed)
    mask = _validation_of(dataset)
    if mask is None:
        place, count = _places(dataset.train, rows)
        held_out = place <= (HELD_OUT * count).round()
    else:
        held_out = mask.cpu()[rows]
    left, validation = rows[~held_out], rows[held_out]
    wanted = settings.pretrain_images or max(len(left), 2)
    if len(left) < wanted or len(validation) < 4:
        raise UserError(
            f"{len(left)} training and {len(validation)} validation images are too few for {wanted} pretraining "
            "images, a clean and a validation set"
        )
    return left[:wanted], validation


def _places(part: LabelledImages, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's place among the rows of its group, from 1, and how many these are, both (N,)."""
    pairs = torch.stack([part.labels, part.cues.long()], dim=1).cpu()[rows]
    _, group, counts = pairs.unique(dim=0, return_inverse=True, return_counts=True)
    by_group = group.argsort(stable=True)
    place = torch.empty_like(group)
    place[by_group] = torch.arange(1, len(rows) + 1) - (counts.cumsum(0) - counts)[group[by_group]]
    return place, counts[group]


def _halves(part: LabelledImages, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows in two halves, group by group; the first has the odd row of each group."""
    place, count = _places(part, rows)
    if int(count.max()) < 2:
        raise UserError(f"{len(rows)} validation images, one a group, are too few for a clean and a validation set")
    return rows[place % 2 == 1], rows[place % 2 == 0]


def _balanced(part: LabelledImages, rows: torch.Tensor, most: int | None) -> torch.Tensor:
    """Return of these rows as many of each group as the smallest group has, and at most so many of all."""
    place, count = _places(part, rows)
    groups, smallest = int((place == 1).sum()), int(count.min())
    of_each = smallest if most is None else min(smallest, most // groups)
    if of_each * groups < 2:
        raise UserError(f"{most or len(rows)} clean images are too few for one of each of {groups} groups")
    return rows[place <= of_each]


def _check(name: str, part: LabelledImages, num_classes: int) -> None:
    if not len(part.labels):
        raise UserError(f"the {name} set has no images")
    if part.cues.ndim != 1 or part.cues.is_floating_point() or int(part.cues.min()) < 0:
        raise UserError(f"the {name} images have attributes that are not whole numbers from 0 on, one an image")
    if int(part.labels.min()) < 0 or int(part.labels.max()) >= num_classes:
        raise UserError(f"the {name} images have labels outside 0 to {num_classes - 1}")


def _check_classes(train: CuedImages, test: CuedImages) -> None:
    """Refuse a class that has test images alone."""
    if unseen := sorted({*test.labels.unique().tolist()} - {*train.labels.unique().tolist()}):
        raise UserError(f"class {unseen[0]} has test images and no training images")
