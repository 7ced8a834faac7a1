"""A model's scores: on counterfactual test splits, or on groups of test images."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, SerializerFunctionWrapHandler, model_serializer

from mmc_bench.results.settings import Fraction

SPLITS = ("NC", "C", "RC", "RI")

#: The test splits where images come in groups: all images, and those whose attribute goes with their label, or not.
GROUP_SPLITS = ("all", "aligned", "conflicting")

#: What the names of a dataset's further test sets look like.
OTHER_NAME = r"^other_[a-zA-Z0-9_]+$"

LARGEST = 1e300  # a mean of numbers beyond it overflows

Number = Annotated[FiniteFloat, Field(ge=-LARGEST, le=LARGEST)]
Loss = Annotated[FiniteFloat, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Part(BaseModel):
    """A part of a record: frozen, and without fields of other names."""

    # Schemas are built when a record is first read: many commands read none.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class GrownPart(Part):
    """A part that fields were added to: one of `ADDED` is left out of a record while it has its default.

    Records from before thus stay what they are, byte for byte.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {
            name for name in self.ADDED if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in content(self).items() if name not in unused}


class Score(Part):
    """Accuracy (a fraction) and mean cross-entropy (nats) of a model on one set of images."""

    accuracy: Fraction
    loss: Loss


class Metrics(GrownPart):
    """A model's scores: the four counterfactual test splits, its training images, the validation set.

    `others` are those on the further test sets that a dataset offers, by name; records without such sets leave it out.
    """

    NC: Score
    C: Score
    RC: Score
    RI: Score
    train: Score
    validation: Score
    others: dict[Annotated[str, Field(pattern=OTHER_NAME)], Score] = Field(default_factory=dict)

    ADDED: ClassVar[frozenset[str]] = frozenset({"others"})

    @property
    def splits(self) -> dict[str, Score]:
        """The scores on the test splits, by name."""
        return {name: getattr(self, name) for name in SPLITS}


class GroupScore(Score):
    """A model's score on the test images of one group: those of one label and one attribute.

    `aligned` tells whether the two are positively associated among the training images.
    """

    label: Count
    attribute: Count
    aligned: bool
    train_images: Count
    test_images: Annotated[Count, Field(ge=1)]

    @property
    def name(self) -> str:
        """Label and attribute in words."""
        return group_name(self.label, self.attribute)


class GroupMetrics(Part):
    """A model's scores where test images come in groups: each group, its training images, the validation set.

    All other numbers follow from the groups that have test images.
    """

    groups: Annotated[tuple[GroupScore, ...], Field(min_length=1)]
    train: Score
    validation: Score

    @property
    def splits(self) -> dict[str, Score]:
        """The scores on all test images, on the aligned and on the conflicting ones, where there are such."""
        return pooled(self.groups)

    @property
    def worst_group(self) -> GroupScore:
        """The group with the lowest accuracy; of several, the first."""
        return worst_of(self.groups)

    @property
    def mean_accuracy(self) -> float:
        """The mean accuracy, as `mean_of` weights it."""
        return mean_of(self.groups)

    @property
    def accuracies(self) -> dict[str, float]:
        """The accuracies that are shown: of the worst group, the mean, and of the splits that there are."""
        return accuracies_of(self.groups)


def group_name(label: int, attribute: int) -> str:
    """Return the name of a group."""
    return f"label {label}, attribute {attribute}"


def worst_of(groups: Iterable[GroupScore]) -> GroupScore:
    """Return the group with the lowest accuracy; of several, the first."""
    return min(groups, key=lambda group: group.accuracy)


def mean_of(groups: Sequence[GroupScore]) -> float:
    """Return the mean accuracy of groups, weighted by their numbers of training images.

    This is the mean that papers on group robustness report (Sagawa et al., 2020). Where a test group has no training
    images, groups are weighted by their test images instead.
    """
    weights = [group.train_images for group in groups]
    weights = weights if all(weights) else [group.test_images for group in groups]
    return sum(weight * group.accuracy for weight, group in zip(weights, groups, strict=True)) / sum(weights)


def accuracies_of(groups: Sequence[GroupScore]) -> dict[str, float]:
    """Return the accuracies that are shown of a model's scores on groups."""
    halves = {name: score.accuracy for name, score in pooled(groups).items() if name != GROUP_SPLITS[0]}
    return {"worst_group": worst_of(groups).accuracy, "mean": mean_of(groups), **halves}


def pooled(groups: Sequence[GroupScore]) -> dict[str, Score]:
    """Return the scores on `GROUP_SPLITS`, but the empty ones, from those on the groups."""
    parts = (groups, [group for group in groups if group.aligned], [group for group in groups if not group.aligned])
    found = {}
    for name, own in zip(GROUP_SPLITS, parts, strict=True):
        if images := sum(group.test_images for group in own):
            correct = sum(round(group.accuracy * group.test_images) for group in own)
            loss = sum(group.loss * group.test_images for group in own)
            found[name] = Score(accuracy=correct / images, loss=loss / images)
    return found
