"""The records that results are kept in: pydantic models with a schema version."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from mmc_bench.results.jobs import Cell, Connection, Job, Pair, Pretraining, Trial
from mmc_bench.results.making import Budget, Checksum, Compilation, Provenance, Timing
from mmc_bench.results.metrics import GROUP_SPLITS, SPLITS, GroupMetrics, GrownPart, Loss, Metrics, Number, Part, Score
from mmc_bench.results.settings import Fraction

#: What a trial is scored on there: all validation images, and the group of them that is the worst.
TRIAL_GROUPS = ("all", "worst_group")

KEY_DIFFERS = "the key does not match the content"


class _JobRecord(Part):
    """The result of a job, which is the field that `kind` names."""

    schema_version: Literal[3] = 3
    kind: str
    key: str

    @model_validator(mode="after")
    def _key_matches(self) -> Self:
        if self.key != getattr(self, self.kind).key:
            raise ValueError(KEY_DIFFERS)
        return self


class Curve(Part):
    """Accuracy and loss along a path, one value for each `t`."""

    accuracy: tuple[Fraction, ...]
    loss: tuple[Loss, ...]


class Barrier(Part):
    """Height of the barrier on one split, in accuracy (a fraction) and loss (nats)."""

    accuracy: Number
    loss: Number


class Connectivity(Part):
    """What one kind of images shows along a path from one model (t = 0) to another (t = 1).

    Two points are the path's ends, between which nothing is measured. `barriers` are 0 then, and the verdicts are those
    of the ends: `height`, `connected`, `largest_barrier` and `fully_connected` say None of what is not known.
    """

    t: tuple[Fraction, ...]
    splits: dict[str, Curve]
    barriers: dict[str, Barrier]
    mode_connected: dict[str, bool]
    mechanistically_connected: bool
    tolerance: Number

    @model_validator(mode="after")
    def _is_whole(self) -> "Connectivity":
        names = self.splits.keys()
        if not names == self.barriers.keys() == self.mode_connected.keys() or not _are_test_splits(names):
            raise ValueError(
                f"a path has a curve, a barrier and a verdict on each of {', '.join(SPLITS)}, "
                f"or of {', '.join(GROUP_SPLITS)}"
            )
        if any(not len(curve.accuracy) == len(curve.loss) == len(self.t) for curve in self.splits.values()):
            raise ValueError("a path's curves have an accuracy and a loss for each t")
        return self

    @property
    def has_inner_points(self) -> bool:
        """Whether anything is measured between the ends."""
        return len(self.t) > 2

    def height(self, split: str) -> Barrier | None:
        """Return the barrier on a split; None where nothing is measured between the ends."""
        return self.barriers[split] if self.has_inner_points else None

    def connected(self, split: str) -> bool | None:
        """Return whether the path is mode connected on a split; ends alone can only tell that it is not."""
        return None if self.mode_connected[split] and not self.has_inner_points else self.mode_connected[split]

    @property
    def largest_barrier(self) -> float | None:
        """The largest barrier in loss (nats) of all splits."""
        return max(barrier.loss for barrier in self.barriers.values()) if self.has_inner_points else None

    @property
    def fully_connected(self) -> bool | None:
        """Whether the path is mode connected on every split."""
        verdict = self.mechanistically_connected
        return None if verdict and not self.has_inner_points else verdict


def _check_kind(pretraining: Pretraining, metrics: Metrics | GroupMetrics) -> None:
    """Refuse scores on groups of images that have counterfactuals, and the other way round."""
    if isinstance(metrics, GroupMetrics) != (pretraining.cue_rate is None):
        raise ValueError("scores on groups are those of a pretraining without a cue rate, and only those")


def _are_test_splits(names: Collection[str]) -> bool:
    """Tell whether these are the four counterfactual splits, with or without others, or those of grouped images."""
    return {*SPLITS} <= {*names} or {GROUP_SPLITS[0]} <= {*names} <= {*GROUP_SPLITS}


class AlignmentSummary(Part):
    """How the first model's units were permuted before a path was measured.

    `groups` are the sets of units that change places together, by the first weight that makes them, and how many
    of each moved; `pinned` says what stayed as it was, and why. `verified` tells whether the permuted model
    computes the same function, to within `difference` of the largest output in float64.
    """

    matching: str
    groups: dict[str, tuple[int, int]]
    pinned: dict[str, str]
    difference: Annotated[FiniteFloat, Field(ge=0)]
    verified: bool


class PathRecord(Part):
    """One path between two models, in a cell θ_C and θ_FT: on test images and, where asked for, on training images."""

    test: Connectivity
    train: Connectivity | None = None
    alignment: AlignmentSummary | None = None
    bend_loss: tuple[Loss, ...] | None = None


class Invariance(Part):
    """How the loss changes under one intervention on the input (definition 3)."""

    split: str
    loss_without: Loss
    loss_with: Loss
    accuracy_change: Number
    invariant: bool


class Effect(Part):
    """By how much one intervention changes two models, on the test images that carry their cues.

    Each pair is of the first and the second model: the changes of loss (nats) and accuracy (a fraction), and the share
    of images whose prediction changes. `flips_of_both` is the share whose prediction changes in both models.
    """

    split: str
    loss_changes: tuple[Number, Number]
    accuracy_changes: tuple[Number, Number]
    flips: tuple[Fraction, Fraction]
    flips_of_both: Fraction


class Comparison(Part):
    """Two models of one architecture: their scores, their mechanisms, and the paths between them.

    `scores` are those of the models as they are; a path's ends have re-estimated BatchNorm statistics. `similar` is
    definition 4: both have the same invariances, and `effects` say how much each model changes. `pattern_distance` is
    the Wasserstein-1 distance between the activation patterns of their last hidden layers on C (paper, App. F.3), None
    where `forward_features` puts out maps or tokens, which are pooled afterwards.
    """

    scores: dict[str, tuple[Score, Score]]
    invariance: tuple[dict[str, Invariance], dict[str, Invariance]]
    similar: bool
    effects: dict[str, Effect] = Field(default_factory=dict)
    paths: Annotated[dict[str, PathRecord], Field(min_length=1)]
    pattern_distance: Number | None = None

    @model_validator(mode="after")
    def _has_scores(self) -> "Comparison":
        if not self.scores.keys() >= {*SPLITS}:
            raise ValueError(f"a comparison has scores on each of {', '.join(SPLITS)}")
        return self


class Epoch(Part):
    """One point of the learning curve; `train` is the running accuracy over the epoch's batches."""

    train_loss: Loss
    train: Fraction
    NC: Fraction
    C: Fraction


class GroupEpoch(Part):
    """One point of the learning curve where test images come in groups."""

    train_loss: Loss
    train: Fraction
    aligned: Fraction | None = None
    conflicting: Fraction | None = None


class WeightsOrigin(GrownPart):
    """How weights were made; their file carries it, so that they can be scored and connected without training again.

    `key` names the weights (a job's ``weights_key``), `made_from` is the checksum of those that a method started from.
    """

    key: str
    made_from: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    curve: tuple[Epoch | GroupEpoch, ...] = ()
    seconds: dict[str, Number]
    images_per_second: Annotated[FiniteFloat, Field(ge=0)] | None = None
    budget: Budget | None = None
    compilation: Compilation | None = None
    provenance: Provenance

    ADDED: ClassVar[frozenset[str]] = frozenset({"compilation"})


class PretrainRecord(_JobRecord):
    """The result of one pretraining.

    `worst_group` is the lowest accuracy over groups of test images: where these have counterfactuals, over those of one
    label and one cue on RC, if cues make groups (`mmc_bench.data.contract.Dataset`).
    """

    kind: Literal["pretraining"] = "pretraining"
    pretraining: Pretraining
    num_classes: Annotated[int, Field(ge=2)]
    weights_sha256: str
    metrics: Metrics | GroupMetrics
    worst_group: Fraction | None = None
    invariance: dict[str, Invariance]
    curve: tuple[Epoch | GroupEpoch, ...]
    budget: Budget | None = None
    timing: Timing
    provenance: Provenance

    @model_validator(mode="after")
    def _is_whole(self) -> "PretrainRecord":
        _check_kind(self.pretraining, self.metrics)
        return self


class CellRecord(_JobRecord):
    """The result of one method on one pretrained model.

    `effects` are those of the interventions on the pretrained and the fine-tuned model. `worst_group` is that of a
    `PretrainRecord`.
    """

    kind: Literal["cell"] = "cell"
    cell: Cell
    pretraining_key: str
    pretrained_sha256: str
    num_classes: Annotated[int, Field(ge=2)]
    parameters: dict[str, Any]
    metrics: Metrics | GroupMetrics
    worst_group: Fraction | None = None
    paths: dict[str, PathRecord]
    invariance: dict[str, Invariance]
    effects: dict[str, Effect] = Field(default_factory=dict)
    budget: Budget | None = None
    timing: Timing
    provenance: Provenance
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "CellRecord":
        if self.pretraining_key != self.cell.pretraining.key:
            raise ValueError(KEY_DIFFERS)
        _check_kind(self.cell.pretraining, self.metrics)
        if "linear" not in self.paths:
            raise ValueError("a cell's record has its linear path")
        return self


def trial_splits(pretraining: Pretraining) -> tuple[str, ...]:
    """Return what the trials on a pretraining are scored on, of its validation images."""
    return TRIAL_GROUPS if pretraining.cue_rate is None else SPLITS


class TrialRecord(_JobRecord):
    """The result of one trial: no score on a test image.

    `validation` has the scores on the validation images as NC, C, RC and RI; where they come in groups, on ``all`` and
    on the ``worst_group``. Where a loss or weight was not finite, it is empty, and `diverged` says what was not.
    """

    kind: Literal["trial"] = "trial"
    trial: Trial
    pretraining_key: str
    pretrained_sha256: str
    num_classes: Annotated[int, Field(ge=2)]
    parameters: dict[str, Any]
    validation: dict[str, Score]
    diverged: str | None = None
    budget: Budget | None = None
    timing: Timing
    provenance: Provenance

    @model_validator(mode="after")
    def _is_whole(self) -> "TrialRecord":
        if self.pretraining_key != self.trial.pretraining.key:
            raise ValueError(KEY_DIFFERS)
        names = trial_splits(self.trial.pretraining)
        if self.validation.keys() != ({*names} if self.diverged is None else set()):
            raise ValueError(f"a trial has scores on {', '.join(names)}, or says why it has none")
        return self


class PairRecord(_JobRecord):
    """The result of comparing two pretrained models."""

    kind: Literal["pair"] = "pair"
    pair: Pair
    weights_sha256: tuple[str, str]
    num_classes: Annotated[int, Field(ge=2)]
    comparison: Comparison
    timing: Timing
    provenance: Provenance


AnyRecord = PretrainRecord | CellRecord | TrialRecord | PairRecord


class ConnectionRecord(_JobRecord):
    """The result of comparing two checkpoints."""

    kind: Literal["connection"] = "connection"
    connection: Connection
    num_classes: Annotated[int, Field(ge=2)]
    comparison: Comparison
    timing: Timing
    provenance: Provenance


class Failure(Part):
    """Why a cell or pretraining has no record."""

    key: str
    label: str
    error: str
    traceback: str
    started: AwareDatetime | datetime
    sha256: Checksum = None

    @classmethod
    def of(cls, job: Job, error: str, started: datetime | None = None, traceback: str = "") -> Self:
        """Return the failure of a job, by default one that failed before it started."""
        started = started or datetime.now(UTC)
        return cls(key=job.key, label=job.label, error=error, traceback=traceback, started=started)
