"""The settings of an experiment as plain data: its data, how a backbone is pretrained, how paths are measured."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from mmc_bench.results.canonical import Plain

Fraction = Annotated[float, Ge(0), Le(1)]

#: Straight; straight after the first model's units were permuted; bent, the bend trained with or without cues.
PathName = Literal["linear", "permuted", "quadratic", "quadratic-nc"]

#: What permutations of units are found by: `mmc_bench.landscape.alignment.align` says how.
Matching = Literal["correlations-before-relu", "correlations-after-relu", "inner-products", "weights"]

#: The training images that permutations are matched on.
MatchingImages = Literal["cue-free", "cued"]


@dataclass(frozen=True, kw_only=True)
class DataSettings(Plain):
    """The training sets: their sizes (``None`` stands for the dataset's own), and how they are drawn.

    `clean_set` says what methods repair a model with: images held out of pretraining, or the pretraining images
    themselves without their cues, as in the paper's Fig. 5; `clean_images` bounds those, too. `seed` draws the sets
    and the random cues and images of the splits; ``None`` stands for the experiment's own seed, which always decides
    initial weights and the order of batches. Models of one data seed share all their images.

    `minority` says what the pretraining images outside the cue rate carry: no cue, or the own cue of a random training
    image of another class. `clean_cues` says what the clean and validation images carry: no cue, or one that is drawn
    whatever the label. `test_images` bounds the test images; which of them are kept, the data's seed says.
    """

    pretrain_images: Annotated[int, Ge(2)] | None = None
    clean_images: Annotated[int, Ge(2)] | None = None
    validation_images: Annotated[int, Ge(1)] | None = None
    clean_set: Literal["held-out", "pretraining"] = "held-out"
    seed: Annotated[int, Ge(0)] | None = None
    minority: Literal["uncued", "conflicting"] = field(default="uncued", metadata={"added": True})
    clean_cues: Literal["none", "random"] = field(default="none", metadata={"added": True})
    test_images: Annotated[int, Ge(2)] | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Recipe(Plain):
    """How a backbone is pretrained: SGD with steps in the learning rate (paper, App. A.1).

    `lr_drops` are fractions of the epochs: (.4, .8) of 100 epochs are epochs 40 and 80.
    `curve_images` bounds the test images behind each epoch's point of the learning curve.
    `augment` says what is done to an image before its cue is drawn, anew at each visit: nothing, or a random crop after
    padding and a random flip (`mmc_bench.data.augmentation`).
    """

    epochs: Annotated[int, Ge(1)] = 100
    batch_size: Annotated[int, Ge(2)] = 256
    lr: Annotated[float, Gt(0)] = 0.1
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    lr_drops: tuple[Fraction, ...] = (0.4, 0.8)
    lr_drop_factor: Annotated[float, Gt(0), Le(1)] = 0.1
    curve_images: Annotated[int, Ge(1)] | None = None
    augment: Literal["none", "crop-flip"] = field(default="none", metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class QuadraticSettings(Plain):
    """How the bend θ₁₂ of a quadratic path is trained (Garipov et al., 2018; paper, App. B.1).

    It starts at the chord's middle, or at random weights as in the authors' code.
    """

    start: Literal["middle", "random"] = "middle"
    epochs: Annotated[int, Ge(1)] = 15
    batch_size: Annotated[int, Ge(2)] = 256
    lr: Annotated[float, Gt(0)] = 0.1
    lr_drops: tuple[Fraction, ...] = (2 / 3,)
    lr_drop_factor: Annotated[float, Gt(0), Le(1)] = 0.1


@dataclass(frozen=True, kw_only=True)
class ConnectSettings(Plain):
    """How the paths between two models are measured.

    `batchnorm_images` bounds the training images without cues that re-estimate the BatchNorm statistics, and those
    that permutations are matched on, without cues or with them as `matching_images` says (paper, App. B.2).
    `train_images` is the number of training images on which the paths are measured besides the test images.
    """

    points: Annotated[int, Ge(2)] = 11
    batchnorm_images: Annotated[int, Ge(2)] | None = None
    train_images: Annotated[int, Ge(0)] = 0
    paths: Annotated[tuple[PathName, ...], MinLen(1)] = ("linear",)
    matching: Matching = "correlations-before-relu"
    matching_images: MatchingImages = "cue-free"
    quadratic: QuadraticSettings = QuadraticSettings()
