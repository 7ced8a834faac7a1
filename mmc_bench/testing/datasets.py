"""What a dataset promises: images and labels in order, and a cue that is what the four splits take it for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from mmc_bench.data.contract import Dataset, LabelledImages, SourceImages, has_cue
from mmc_bench.data.cued_images import cued_images
from mmc_bench.data.groups import derive_groups
from mmc_bench.data.locations import KNOWN_SOURCES
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import ExperimentData, derive_experiment
from mmc_bench.data.stored import Images, rows_of
from mmc_bench.results.settings import DataSettings
from mmc_bench.stages.resources import sources_of
from mmc_bench.testing.checks import Fault, NotChecked, Property
from mmc_bench.testing.common import COMMON, Subject
from mmc_bench.testing.cues import check_known, check_not_negative, check_uniform, follows_from_label, tells_labels
from mmc_bench.testing.rendering import (
    check_confined,
    check_inputs_kept,
    check_pure,
    check_without_cue,
    distinct_cues,
    noise_like,
)

MADE_UP_IMAGES = {"train": 60, "test": 20}  # of a class
DEFAULT_CLASSES = 10
DRAWS = 4000
AT_ONCE = 1000
PARTS = ("train", "test")


@dataclass(frozen=True)
class MadeUpSources:
    """Image sources of which those that need files, and have no folder, are noise of the same size.

    What a cue does, and whether it tells the label, does not depend on what the images show.
    """

    real: Sources
    num_classes: int

    def load(self, name: str, size: tuple[int, int] | None = None) -> tuple[SourceImages, SourceImages]:
        """Return train and test images of a source."""
        known = KNOWN_SOURCES.get(name)
        if name in self.real.folders or name not in (self.real.allowed or ()) or known is None or not known.present:
            return self.real.load(name, size)
        generator = torch.Generator().manual_seed(0)

        def part(images_of_a_class: int) -> SourceImages:
            labels = torch.arange(self.num_classes * images_of_a_class) % self.num_classes
            shape = (len(labels), known.channels, *known.size)
            return SourceImages(torch.randint(256, shape, generator=generator, dtype=torch.uint8), labels)

        return part(MADE_UP_IMAGES["train"]), part(MADE_UP_IMAGES["test"])

    def listing(self, name: str) -> Any:
        """Return what lies in the folder of a source with a layout."""
        return self.real.listing(name)

    def decode(self, name: str, *files: Any, **how: Any) -> Images:
        """Return image files of a source with a layout."""
        return self.real.decode(name, *files, **how)


@dataclass(frozen=True)
class DatasetSubject(Subject):
    """A dataset under test.

    Attributes
    ----------
    folders
        Folders that stand for image sources, by name.
    """

    folders: Mapping[str, str]

    def load(self) -> Dataset:
        """Return a dataset of its own, loaded.

        Raises
        ------
        NotChecked
            When one of its sources is neither embedded nor known nor given.
        """
        spec = self.offer.spec
        lacking = [name for name in spec.sources if name not in self.folders and name not in KNOWN_SOURCES]
        if lacking:
            raise NotChecked(f"needs {' '.join(f'--data {name}=DIR' for name in lacking)}")
        dataset: Dataset = self.offer.make(self.offer.configure({}))
        classes = spec.num_classes or DEFAULT_CLASSES
        dataset.load(MadeUpSources(sources_of(self.offer, Sources(self.folders, download=False)), classes))
        return dataset

    @cached_property
    def loaded(self) -> Dataset:
        """The dataset that most properties look at."""
        return self.load()

    @property
    def made_up(self) -> list[str]:
        """The sources that are noise here."""
        known = (name for name in self.offer.spec.sources if name not in self.folders)
        return [name for name in known if name in KNOWN_SOURCES and KNOWN_SOURCES[name].present]

    @cached_property
    def experiment(self) -> ExperimentData:
        """All sets of an experiment; of made-up images, the held-out sets are cut to what there is."""
        return self.derive("cpu")

    def derive(self, device: str) -> ExperimentData:
        """Return all sets of an experiment on a device."""
        if self.offer.spec.splits == "groups":
            grouped: Any = self.loaded
            return derive_groups(grouped, DataSettings(), seed=0, device=device)
        held_out = len(self.loaded.train.labels) // 4
        cut = DataSettings(clean_images=held_out, validation_images=held_out)
        settings = cut if self.made_up else DataSettings()
        return derive_experiment(self.loaded, settings, cue_rate=0.9, seed=0, device=device)

    def some(self, part: str = "test", n: int = 64) -> torch.Tensor:
        """Return the first images of a part as `render` gets them."""
        every = getattr(self.loaded, part).images
        images = rows_of(every, torch.arange(min(n, len(every))))
        return images.mul(2 / 255).sub(1) if images.dtype == torch.uint8 else images.clone()

    def own_cues(self, part: str = "test") -> torch.Tensor:
        """Return the cue codes of a part's images."""
        codes: torch.Tensor = getattr(self.loaded, part).cues
        return codes

    def pictures(self, images: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        """Return what the network sees of images (n, …) with these cue codes, some of which may mean no cue."""
        rows = torch.arange(len(images))
        return cued_images(self.loaded, images, rows, rows, cues).batch(slice(None))[0]

    def cues_of_all_labels(self) -> torch.Tensor:
        """Return one cue code for each label, in their order."""
        own, labels = self.own_cues(), self.loaded.test.labels
        first = [int((labels == label).nonzero()[0]) for label in range(self.loaded.num_classes)]
        return own[first]


# --- images and labels


def loads(subject: DatasetSubject) -> str:
    """Train and test have images of one shape and type, and a label in range for each; every class is there."""
    dataset, declared = subject.loaded, subject.offer.spec.num_classes
    classes = dataset.num_classes
    if not isinstance(classes, int) or classes < 2:
        raise Fault(f"num_classes is {classes!r} ({subject.place})", "set it to the number of classes, 2 or more")
    if declared is not None and declared != classes:
        raise Fault(f"the spec says num_classes={declared}, the dataset {classes}", "make them equal")
    for name in PARTS:
        part = getattr(dataset, name, None)
        if not isinstance(part, LabelledImages):
            raise Fault(f"{name} is {type(part).__name__} ({subject.place})", "fill it with LabelledImages in load")
        _check_part(name, part, classes)
    train, test = dataset.train.images, dataset.test.images
    if (train.shape[1:], train.dtype) != (test.shape[1:], test.dtype):
        raise Fault(
            f"train has {train.dtype} images of {tuple(train.shape[1:])}, test {test.dtype} of {tuple(test.shape[1:])}",
            "give both parts images of one shape and type",
        )
    noise = f"; {', '.join(subject.made_up)} made up: --data {subject.made_up[0]}=DIR" if subject.made_up else ""
    return f"{len(train)} train and {len(test)} test of {tuple(train.shape[1:])}, {classes} classes{noise}"


def _check_part(name: str, part: LabelledImages, classes: int) -> None:
    images, labels = part.images, part.labels
    if images.dtype == torch.uint8:
        if images.ndim != 4:
            raise Fault(f"{name} images have shape {tuple(images.shape)}", "give uint8 images as (N, C, H, W)")
    elif not (isinstance(images, torch.Tensor) and images.is_floating_point()) or not images.isfinite().all():
        raise Fault(f"{name} images are {images.dtype}, or not finite", "give uint8 images, or finite float vectors")
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        raise Fault(
            f"{name} has {tuple(labels.shape)} labels of {labels.dtype} for {len(images)} images",
            "give an int64 tensor (N,)",
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise Fault(f"{name} has labels {int(labels.min())} to {int(labels.max())}", f"let them lie in [0, {classes})")
    if absent := sorted(set(range(classes)) - set(labels.unique().tolist())):
        raise Fault(f"{name} has no image of class {absent[0]}", "let every class have images in train and test")
    if len(part.cues) != len(images):
        raise Fault(f"{name} has {len(part.cues)} cues for {len(images)} images", "give one cue code for each image")


def loads_the_same(subject: DatasetSubject) -> None:
    """A second dataset has the same images, labels and cues, whatever torch's generator was at."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = subject.load()
    loaded_again = _all_parts(again)
    for name, one in _all_parts(subject.loaded).items():
        other = loaded_again[name]
        for member in ("images", "labels", "cues"):
            first, second = getattr(one, member), getattr(other, member)
            if first.shape != second.shape or not _equal(first, second):
                raise Fault(
                    f"loaded twice, the {name} {member} differ ({subject.place})",
                    "draw with a torch.Generator that load seeds, from a parameter if it may vary",
                )


def _all_parts(dataset: Dataset) -> dict[str, LabelledImages]:
    """Return the training and test images, and the further versions of the test images that there may be."""
    return {name: getattr(dataset, name) for name in PARTS} | dict(getattr(dataset, "other_tests", {}))


def _equal(first: Images, second: Images) -> bool:
    """Tell whether images, or other tensors, of one shape are equal; images in a file are read some at a time."""
    rows = torch.arange(len(first)).split(AT_ONCE)
    return all(torch.equal(rows_of(first, some), rows_of(second, some)) for some in rows)


def makes_all_sets(subject: DatasetSubject) -> str:
    """Pretraining, held-out sets and the test splits can be derived, and rendered."""
    data = subject.experiment
    for name, split in {**data.splits, **data.other_tests}.items():
        if not split.batch(slice(0, 8))[0].isfinite().all():
            raise Fault(f"split {name} has pixels that are not finite", "look at what render computes")
    sizes = f"{len(data.pretraining)} pretraining, {len(data.clean)} clean, {len(data.validation)} validation"
    return f"{sizes}; the network sees {tuple(data.input_shape)}"


# --- the cue


def cue_tells_label(subject: DatasetSubject) -> str | None:
    """On the C split, a cue belongs to one label alone, and cues of different labels look different."""
    dataset = subject.loaded
    if two := tells_labels(subject.own_cues(), dataset.test.labels):
        raise Fault(
            f"labels {two[0]} and {two[1]} share a cue among the test images ({subject.place})",
            "let a cue's code, or its nearest one, belong to one label alone",
        )
    codes, x = subject.cues_of_all_labels(), subject.some("test", 1)
    if alike := distinct_cues(subject.pictures, x, codes):
        raise Fault(
            f"the cues of labels {alike[0]} and {alike[1]} look the same when rendered ({subject.place})",
            "draw another picture for every label; for at most one, none",
        )
    if tells_labels(subject.own_cues("train"), dataset.train.labels):
        return "on test images; those of the training images do not tell their labels"
    return None


def random_cues_are_uniform(subject: DatasetSubject) -> str | None:
    """Random cues follow from the generator alone, look like the labels' own, and are uniform over them."""
    dataset = subject.loaded

    def draw(seed: int, n: int = DRAWS) -> torch.Tensor:
        codes: torch.Tensor = dataset.random_cue(n, torch.Generator().manual_seed(seed))
        return codes

    own, codes = subject.own_cues(), draw(0)
    if (codes.shape[1:], codes.dtype, len(codes)) != (own.shape[1:], own.dtype, DRAWS):
        raise Fault(
            f"random_cue({DRAWS}, …) returns {codes.dtype} {tuple(codes.shape)}, and cues are {own.dtype} "
            f"{('n', *own.shape[1:])} ({subject.place})",
            "return codes of the shape and type that the images' own have",
        )
    remedy = "draw with the generator that is handed over, as in torch.randint(…, generator=generator)"
    if not torch.equal(codes, draw(0)):
        raise Fault(f"random_cue differs for one state of the generator ({subject.place})", remedy)
    if torch.equal(codes, draw(1)):
        raise Fault(f"random_cue does not depend on the generator ({subject.place})", remedy)
    check_not_negative(codes, subject.place)
    if follows_from_label(own, dataset.test.labels):
        check_known(codes, own, subject.place)
    return check_uniform(codes, own, subject.place)


# --- rendering


def on_images(test: Callable[..., str | None], subject: DatasetSubject) -> str | None:
    """Put a test of rendering to noise, which has no pixel that looks like a cue by chance, and to images."""
    x = subject.some()
    cues = subject.own_cues()[: len(x)]
    test(subject.pictures, x, cues, subject.place)
    every = subject.cues_of_all_labels()
    return test(subject.pictures, noise_like(x, len(every)), every, subject.place)


def renders_into_a_copy(subject: DatasetSubject) -> None:
    """Neither images nor cue codes are changed in place."""
    cues = subject.own_cues()[:64]
    there = has_cue(cues)
    check_inputs_kept(subject.loaded.render, subject.some()[there], cues[there], subject.place)


def keeps_cue_to_region(subject: DatasetSubject) -> str:
    """A cue changes the same pixels of every image, and at most half of them, or is blended into all of them."""
    blended = bool(getattr(subject.loaded, "blended", False))
    return check_confined(subject.pictures, subject.some(), subject.cues_of_all_labels(), subject.place, blended)


def stays_in_range(subject: DatasetSubject) -> None:
    """With and without a cue, pixels lie in [-1, 1]; values of vectors are finite."""
    dataset, x = subject.loaded, subject.some()
    for part in PARTS:
        cues = subject.own_cues(part)[: len(x)]
        images = subject.some(part, len(cues))
        for codes in (cues, torch.full_like(cues, -1)):
            seen = subject.pictures(images, codes)
            low, high = seen.min().item(), seen.max().item()
            bounded = dataset.train.images.dtype == torch.uint8
            if not seen.isfinite().all() or (bounded and not -1 <= low <= high <= 1):
                raise Fault(
                    f"rendered {part} images have values from {low:.3g} to {high:.3g} ({subject.place})",
                    "give colours in the images' scale, [-1, 1]",
                )


def renders_on_a_gpu(subject: DatasetSubject) -> None:
    """Rendered on a GPU, images are what they are on the CPU."""
    if not torch.cuda.is_available():
        raise NotChecked("there is no GPU here")
    there = subject.derive("cuda").splits["C"].batch(slice(0, 32))[0].cpu()
    if not torch.allclose(there, subject.experiment.splits["C"].batch(slice(0, 32))[0], atol=1e-6):
        raise Fault(f"rendered on a GPU, images differ ({subject.place})", "keep cue codes in integers or float32")


PROPERTIES_OF_GROUPS = (
    *COMMON,
    Property("loads images and labels", loads, "fill train, test and num_classes in load, from sources.load(…)"),
    Property("loads the same every time", loads_the_same),
    Property("makes every set of an experiment", makes_all_sets),
)

PROPERTIES = (
    *PROPERTIES_OF_GROUPS,
    Property("has a cue that tells the label", cue_tells_label),
    Property("draws random cues uniformly", random_cues_are_uniform),
    Property("renders without changing what it is given", renders_into_a_copy),
    Property("renders every image by itself, the same every time", partial(on_images, check_pure)),
    Property("leaves images without a cue as they are", partial(on_images, check_without_cue)),
    Property("keeps the cue to its region", keeps_cue_to_region),
    Property("stays in the images' range", stays_in_range),
    Property("renders on a GPU", renders_on_a_gpu),
)
