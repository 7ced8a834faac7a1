"""Cells as plain data: what is pretrained, what is fine-tuned, and the keys that name their results."""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

KEY_VERSION = 1

Fraction = Annotated[float, Field(ge=0, le=1)]

#: Straight; straight after the first model's units were permuted; bent, the bend trained with or without cues.
PathName = Literal["linear", "permuted", "quadratic", "quadratic-nc"]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        for name in ("key", "canonical"):  # a changed copy (`model_copy`) has its own
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def canonical(self) -> str:
        """This as canonical JSON; cells share most of their parts, whose JSON is thus made once."""
        return canonical_json(self.model_dump(mode="json"))


class PluginRef(_Plain):
    """A dataset, backbone or method: who offers it, in which version, with which explicit parameters."""

    name: str
    distribution: str
    version: str
    parameters: dict[str, Any] = {}


class DataSettings(_Plain):
    """Sizes of the training sets; ``None`` stands for the dataset's own."""

    pretrain_images: Annotated[int, Field(ge=2)] | None = None
    clean_images: Annotated[int, Field(ge=2)] | None = None
    validation_images: Annotated[int, Field(ge=1)] | None = None


class Recipe(_Plain):
    """How a backbone is pretrained: SGD with steps in the learning rate (paper, App. A.1).

    `lr_drops` are fractions of the epochs: (.4, .8) of 100 epochs are epochs 40 and 80.
    `curve_images` bounds the test images behind each epoch's point of the learning curve.
    """

    epochs: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=2)] = 256
    lr: Annotated[FiniteFloat, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 1e-4
    lr_drops: tuple[Fraction, ...] = (0.4, 0.8)
    lr_drop_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    curve_images: Annotated[int, Field(ge=1)] | None = None


#: What permutations of units are found by: `mmc_bench.landscape.alignment.align` says how.
Matching = Literal["activations", "inner-products", "weights"]


class QuadraticSettings(_Plain):
    """How the bend θ₁₂ of a quadratic path is trained (Garipov et al., 2018; paper, App. C.1).

    It starts at the chord's middle, or at random weights as in the authors' code.
    """

    start: Literal["middle", "random"] = "middle"
    epochs: Annotated[int, Field(ge=1)] = 15
    batch_size: Annotated[int, Field(ge=2)] = 256
    lr: Annotated[FiniteFloat, Field(gt=0)] = 0.1
    lr_drops: tuple[Fraction, ...] = (2 / 3,)
    lr_drop_factor: Annotated[float, Field(gt=0, le=1)] = 0.1


class ConnectSettings(_Plain):
    """How the paths between two models are measured.

    `batchnorm_images` bounds the cue-free training images that re-estimate the BatchNorm statistics and that
    permutations are matched on. `train_images` is the number of training images on which the paths are measured
    besides the test images.
    """

    points: Annotated[int, Field(ge=2)] = 11
    batchnorm_images: Annotated[int, Field(ge=2)] | None = None
    train_images: Annotated[int, Field(ge=0)] = 0
    paths: Annotated[tuple[PathName, ...], Field(min_length=1)] = ("linear",)
    matching: Matching = "activations"
    quadratic: QuadraticSettings = QuadraticSettings()


class Pretraining(_Plain):
    """One pretrained model θ_C: everything that decides its weights and scores.

    `core` is the version of the core with a digest of its own source, as plugins have theirs.
    """

    core: str
    dataset: PluginRef
    images: dict[str, str]
    data: DataSettings
    backbone: PluginRef
    cue_rate: Fraction
    recipe: Recipe
    seed: Annotated[int, Field(ge=0)]

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this pretraining's record and weights."""
        return key_of({"stage": "pretrain", **{name: getattr(self, name) for name in type(self).model_fields}})

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{self.dataset.name} {self.backbone.name} cue rate {self.cue_rate:g} seed {self.seed}"


class Cell(_Plain):
    """One method applied to one pretrained model."""

    pretraining: Pretraining
    method: PluginRef
    connect: ConnectSettings

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this cell's record."""
        return key_of(
            {
                "stage": "cell",
                "pretraining": self.pretraining.key,
                "method": self.method,
                "connect": self.connect,
            }
        )

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{self.pretraining.label} · {self.method.name}"


class Pair(_Plain):
    """Two pretrained models of one architecture, and how the paths between them are measured.

    `data` is the experiment on whose data they are compared: that of the first, unless a suite says otherwise.
    """

    first: Pretraining
    second: Pretraining
    data: Pretraining
    connect: ConnectSettings

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this pair's record."""
        return key_of(
            {
                "stage": "pair",
                "first": self.first.key,
                "second": self.second.key,
                "data": self.data.key,
                "connect": self.connect,
            }
        )

    @property
    def label(self) -> str:
        """One line for people: the second model where it differs from the first."""
        first, second = (_places(end) for end in (self.first, self.second))
        other = ", ".join(f"{name} {second[name]}" for name in second if first[name] != second[name])
        return f"{self.first.label} – {other or 'another recipe'}"


Job = Pretraining | Cell | Pair


class Checkpoint(_Plain):
    """Trained weights, whoever trained them: the SHA-256 of their file, and the key of their record, if any."""

    label: str
    weights_sha256: str
    record: str | None = None


class Connection(_Plain):
    """Two checkpoints of one architecture, and how the paths between them are measured.

    `experiment` describes the data that they are compared on, and the backbone that they are loaded into.
    """

    first: Checkpoint
    second: Checkpoint
    experiment: Pretraining
    connect: ConnectSettings

    @cached_property
    def key(self) -> str:
        """SHA-256 that names this connection's record; what weights are called, and how they were trained, is no part.

        Neither is the cue rate: the test splits and the training images along a path all carry cues or none.
        """
        return key_of(
            {
                "stage": "connection",
                "weights": [self.first.weights_sha256, self.second.weights_sha256],
                "experiment": self.experiment.model_dump(mode="json", exclude={"cue_rate", "recipe"}),
                "connect": self.connect,
            }
        )


def _places(end: Pretraining) -> dict[str, str]:
    return {
        "data set": end.dataset.name,
        "backbone": end.backbone.name,
        "cue rate": f"{end.cue_rate:g}",
        "seed": str(end.seed),
    }


def models_of(job: Job) -> tuple[Pretraining, ...]:
    """Return the pretrainings that must be done before a job."""
    if isinstance(job, Pair):
        return (job.first, job.second)
    return (job.pretraining,) if isinstance(job, Cell) else ()


def key_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of `content`, plain data or parts of cells by name, as canonical JSON with the key version."""
    members = {"key_version": KEY_VERSION, **content}
    text = ",".join([f'"{name}":{_text_of(members[name])}' for name in sorted(members)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def canonical_json(content: Any) -> str:
    """Return JSON that is equal for equal content: sorted keys, no spaces, 1.0 written as 1."""
    return _encoded(_canonical(content))


_encoded = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _text_of(value: Any) -> str:
    if isinstance(value, _Plain):
        return value.canonical
    return _encoded(value if isinstance(value, str) else _canonical(value))


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
