"""The sets of one experiment, derived from any dataset: pretraining, clean, validation, and four test splits."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch

from mmc_bench.data.contract import Dataset, LabelledImages, has_cue
from mmc_bench.data.cued_images import CuedImages, cued_images, laid_out
from mmc_bench.data.stored import IMAGE_MEMORY, StoredImages
from mmc_bench.errors import UserError
from mmc_bench.results.metrics import OTHER_NAME, SPLITS, GroupMetrics, Metrics, Score
from mmc_bench.results.settings import DataSettings
from mmc_bench.seeds import derive_seed
from mmc_bench.system.devices import in_float64

HELD_OUT_IMAGES = 2500
MOST_CUE_GROUPS = 100  # codes of more values count as no groups


def _no_classes(cues: torch.Tensor) -> None:
    return None


@dataclass(frozen=True)
class ExperimentData:
    """Every set of one experiment.

    `pretraining` carries cues at the cue rate, its other images no cue or another class's, and `pretraining_nc` is the
    same images without cues. `environments` (N,), int64, tells the images of `pretraining` that carry their own cue, 1,
    from all others, 0. `clean` and `validation` carry no cue, or random ones, and are held out of both, unless the
    settings make the pretraining images the clean set.

    `splits` are the test images as NC, C, RC and RI, and `validation_splits` those of the validation set, of which
    methods see no more than `validation`; `train_splits` are the pretraining images, all with their own cue on C
    whatever the cue rate. `fully_cued` are the images of all three training sets, each with its own cue. `rc_groups`
    (N,), int64, are the groups of label and cue of the images of RC, where cues make groups. `clean_environments` (N,)
    are those of the clean images, where these are not all of environment 0. `other_tests` are the test images in
    further versions that the dataset offers, in the order of `splits`.
    `cue_classes` returns the class of each cue code (n, …), int64 of shape (n,), -1 for no cue; or None where cues make
    no classes.
    """

    pretraining: CuedImages
    pretraining_nc: CuedImages
    environments: torch.Tensor
    clean: CuedImages
    validation: CuedImages
    splits: dict[str, CuedImages]
    validation_splits: dict[str, CuedImages]
    train_splits: dict[str, CuedImages]
    fully_cued: CuedImages
    num_classes: int
    input_shape: tuple[int, ...]
    image_memory: int = IMAGE_MEMORY
    rc_groups: torch.Tensor | None = None
    clean_environments: torch.Tensor | None = None
    cue_classes: Callable[[torch.Tensor], torch.Tensor | None] = _no_classes
    other_tests: dict[str, CuedImages] = field(default_factory=dict)

    @property
    def all_cued(self) -> CuedImages:
        """The pretraining images, each with its own cue."""
        return self.train_splits["C"]

    @property
    def watched(self) -> dict[str, CuedImages]:
        """The test images behind the learning curve, by the names that it has for them."""
        return {name: self.splits[name] for name in ("NC", "C")}

    def metrics(self, scores: Mapping[str, Score]) -> Metrics | GroupMetrics:
        """Return a model's scores as records keep them: on `splits`, ``train``, ``validation`` and `other_tests`."""
        others = {name: scores[name] for name in self.other_tests}
        return Metrics(**{name: score for name, score in scores.items() if name not in others}, others=others)

    def test_scores(self, scores: Mapping[str, Score]) -> dict[str, Score]:
        """Return the scores that paths are drawn of, from those on `splits`."""
        return {name: scores[name] for name in SPLITS}

    def scores_of_sets(self, metrics: Metrics | GroupMetrics) -> Mapping[str, Score]:
        """Return the scores on `splits` that metrics were made of."""
        return metrics.splits

    def trial_scores(self, scores: Mapping[str, Score]) -> dict[str, Score]:
        """Return what trials are chosen by, from the scores on `validation_splits`."""
        return dict(scores)

    @cached_property
    def rendered(self) -> dict[str, CuedImages]:
        """The test splits, rendered once: they are scored again and again, along every path.

        They take 16 bytes a pixel and channel for each test image, and are made when they are first asked for. Where
        that is more than `image_memory`, they are rendered batch by batch each time.
        """
        return self.held(self.splits)

    @cached_property
    def rendered_validation(self) -> dict[str, CuedImages]:
        """The validation splits, rendered once, as `rendered`."""
        return self.held(self.validation_splits)

    def held(self, sets: Mapping[str, CuedImages]) -> dict[str, CuedImages]:
        """Return sets of images with these rendered once, or as they are where they would take too much memory."""
        total = 4 * math.prod(self.input_shape) * sum(map(len, sets.values()))
        return {name: images.rendered() if total <= self.image_memory else images for name, images in sets.items()}


def derive_experiment(
    dataset: Dataset,
    settings: DataSettings,
    cue_rate: float,
    seed: int,
    device: torch.device | str = "cpu",
    image_memory: int = IMAGE_MEMORY,
) -> ExperimentData:
    """Derive all sets of one experiment from a loaded dataset.

    Held-out sets are drawn at random without replacement; the cue goes to the first `cue_rate` of each class
    of the pretraining images in dataset order, which must therefore be random within a class. RC and RI are drawn once,
    from the seed alone, so that every method is scored on the very same images. A training image's conflicting or
    random cue follows from the seed alone, too, whatever the cue rate and the sizes of the sets.

    Every set lies in a random order of its own, fixed by the seed: a dataset may come class by class, and
    the first images of a set, or a batch of it in order, must be a sample of all classes.

    Parameters
    ----------
    dataset
        A loaded dataset.
    settings
        Sizes of the sets, where they differ from the dataset's own.
    cue_rate
        Share of pretraining images that carry the cue, in [0, 1].
    seed
        The experiment's seed.
    device
        Where the images lie, unless they lie in a file.
    image_memory
        Bytes that rendered splits may take.

    Raises
    ------
    UserError
        When the training images are too few for the sizes asked for, or cue codes cannot be negative.
    """
    _check_codes({"train": dataset.train, "test": dataset.test, **getattr(dataset, "other_tests", {})})
    train, test = placed(dataset.train, device), placed(dataset.test, device)
    rows = _partition(len(train.labels), dataset, settings, seed)
    no_cue = torch.full_like(train.cues, -1)

    def of_train(which: torch.Tensor, cues: torch.Tensor) -> CuedImages:
        return cued_images(dataset, train.images, which, train.labels[which], cues[which])

    pretrain_rows = rows["pretraining"].to(device)
    in_order = pretrain_rows.sort().values
    cued_rows = in_order[first_of_each_class(train.labels[in_order], dataset.num_classes, cue_rate)]
    cues = _conflicting_cues(train, seed) if settings.minority == "conflicting" else no_cue.clone()
    cues[cued_rows] = train.cues[cued_rows]
    environments = torch.zeros_like(train.labels)
    environments[cued_rows] = has_cue(train.cues[cued_rows]).to(environments.dtype)
    held_out_cues = no_cue
    if settings.clean_cues == "random":
        held_out_cues = _random_train_cue(dataset)(len(train.labels), generator_of("clean cues", seed)).to(device)
    validation_rows = rows["validation"].to(device)
    order = torch.randperm(len(test.labels), generator=generator_of("test order", seed)).to(device)
    order = order[: settings.test_images]
    splits = _four_splits(test, order, dataset, seed)
    example, _ = splits["NC"].batch(slice(0, 1))
    return ExperimentData(
        pretraining=of_train(pretrain_rows, cues),
        pretraining_nc=of_train(pretrain_rows, no_cue),
        environments=environments[pretrain_rows],
        clean=of_train(rows["clean"].to(device), held_out_cues),
        validation=of_train(validation_rows, held_out_cues),
        splits=splits,
        validation_splits=_four_splits(train, validation_rows, dataset, seed, "validation "),
        train_splits=_four_splits(train, pretrain_rows, dataset, seed, "train "),
        fully_cued=of_train(torch.cat([*rows.values()]).unique().to(device), train.cues),
        num_classes=dataset.num_classes,
        input_shape=tuple(example.shape[1:]),
        image_memory=image_memory,
        rc_groups=_groups_of(dataset, splits["RC"]),
        cue_classes=partial(cue_classes, dataset),
        other_tests=_other_tests(dataset, order, device),
    )


def _check_codes(parts: Mapping[str, LabelledImages]) -> None:
    """Refuse cue codes of a type without negative numbers: -1 would become a cue."""
    for name, part in parts.items():
        if not part.cues.dtype.is_signed:
            has = str(part.cues.dtype).removeprefix("torch.")
            raise UserError(f"the {name} images have {has} cue codes: make them int64, since -1 means no cue")


def first_of_each_class(labels: torch.Tensor, num_classes: int, rate: float) -> torch.Tensor:
    """Return a boolean mask (N,) of the first ``int(rate * n)`` images of each class of n, in order."""
    one_hot = torch.nn.functional.one_hot(labels, num_classes)  # (N, K)
    rank = one_hot.cumsum(0).gather(1, labels[:, None])[:, 0] - 1  # position within the class
    quota = (in_float64(one_hot.sum(0)) * rate).long().to(labels.device)
    return rank < quota[labels]


def placed(part: LabelledImages, device: torch.device | str) -> LabelledImages:
    """Return a part of a dataset on the device, where batches are gathered fastest; images in a file stay there."""
    images = part.images if isinstance(part.images, StoredImages) else laid_out(part.images.to(device))
    return LabelledImages(images, part.labels.to(device), part.cues.to(device))


def _partition(total: int, dataset: Dataset, settings: DataSettings, seed: int) -> dict[str, torch.Tensor]:
    """Split the training rows into clean, validation and pretraining sets, by the seed."""
    held_out = settings.clean_set == "held-out"
    clean: int = (settings.clean_images or int(getattr(dataset, "clean_images", HELD_OUT_IMAGES))) if held_out else 0
    validation: int = settings.validation_images or int(getattr(dataset, "validation_images", HELD_OUT_IMAGES))
    left = total - clean - validation
    pretraining = settings.pretrain_images or left
    if left < 2 or pretraining > left:
        raise UserError(
            f"{total} training images are too few for {clean} clean, {validation} validation and "
            f"{max(pretraining, 2)} pretraining images"
        )
    order = torch.randperm(total, generator=generator_of("held-out sets", seed))
    clean_rows, validation_rows, pretrain_rows = order.split([clean, validation, left])
    pretrain_rows = pretrain_rows[:pretraining]
    return {
        "clean": clean_rows if held_out else pretrain_rows[: settings.clean_images],
        "validation": validation_rows,
        "pretraining": pretrain_rows,
    }


def _four_splits(
    part: LabelledImages, rows: torch.Tensor, dataset: Dataset, seed: int, draws: str = ""
) -> dict[str, CuedImages]:
    """Return the chosen images of a part as NC, C, RC and RI; `draws` begins the names of what is drawn."""
    n, device = len(rows), rows.device
    labels, own_cues = part.labels[rows], part.cues[rows]
    other = rows.sort().values[torch.randint(n, (n,), generator=generator_of(f"{draws}RI images", seed)).to(device)]
    random_cue = _random_train_cue(dataset) if draws else dataset.random_cue
    random_cues = random_cue(n, generator_of(f"{draws}RC cues", seed)).to(device)
    no_cue = torch.full_like(own_cues, -1)

    def split(index: torch.Tensor, cues: torch.Tensor) -> CuedImages:
        return cued_images(dataset, part.images, index, labels, cues)

    return {
        "NC": split(rows, no_cue),
        "C": split(rows, own_cues),
        "RC": split(rows, random_cues),
        "RI": split(other, own_cues),
    }


def cue_classes(dataset: Dataset, cues: torch.Tensor) -> torch.Tensor | None:
    """Return the class of each cue code (n, …), int64 (n,), -1 for no cue; or None where cues make no classes."""
    own: Callable[[torch.Tensor], torch.Tensor | None] | None = getattr(dataset, "cue_groups", None)
    shown = has_cue(cues)
    codes, no_cue = cues[shown], torch.full_like(shown, -1, dtype=torch.int64)
    is_code = cues.ndim == 1 and not cues.is_floating_point() and len(codes.unique()) <= MOST_CUE_GROUPS
    classes = own(codes) if own and len(codes) else codes if own or is_code else None
    return None if classes is None else no_cue.masked_scatter(shown, classes.to(no_cue))


def _other_tests(dataset: Dataset, order: torch.Tensor, device: torch.device | str) -> dict[str, CuedImages]:
    """Return the further versions of the test images that a dataset offers, in the order of the splits."""
    found: Mapping[str, LabelledImages] = getattr(dataset, "other_tests", {})
    sets = {}
    for name, version in found.items():
        if not re.match(OTHER_NAME, name):
            raise UserError(f"other_tests has a set {name!r}: its names begin with other_, and are words")
        if not torch.equal(version.labels, dataset.test.labels):
            raise UserError(f"other_tests has other labels in {name!r} than test: it must have its images in order")
        part = placed(version, device)
        sets[name] = cued_images(dataset, part.images, order, part.labels[order], part.cues[order])
    return sets


def _groups_of(dataset: Dataset, images: CuedImages) -> torch.Tensor | None:
    """Return the group of label and cue of each image (N,), or None where cues make no groups."""
    cues = images.cues
    codes = cue_classes(dataset, cues)
    if codes is None:
        return None
    groups: torch.Tensor = torch.stack([images.labels, codes.to(images.labels)], dim=1).unique(
        dim=0, return_inverse=True
    )[1]
    return groups


def _random_train_cue(dataset: Dataset) -> Callable[[int, torch.Generator], torch.Tensor]:
    """Return what draws cues for training images: some datasets have others for these than for test images."""
    draw: Callable[[int, torch.Generator], torch.Tensor] = getattr(dataset, "random_train_cue", dataset.random_cue)
    return draw


def _conflicting_cues(part: LabelledImages, seed: int) -> torch.Tensor:
    """Return for each image (N, …) the own cue of another, drawn uniformly from the images of all other classes.

    Where a class is told by having no cue, this is what its images lend.
    """
    labels = part.labels.cpu()
    by_class = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    uniform = torch.rand(len(labels), dtype=torch.float64, generator=generator_of("minority cues", seed))
    place = (uniform * (len(labels) - counts[labels])).long()  # among the images of other classes, class by class
    place += torch.where(place >= starts[labels], counts[labels], 0)
    return part.cues[by_class[place].to(part.cues.device)]


def generator_of(what: str, seed: int) -> torch.Generator:
    """Return the source of randomness of one draw of an experiment, on the CPU."""
    return torch.Generator().manual_seed(derive_seed(what, seed))
