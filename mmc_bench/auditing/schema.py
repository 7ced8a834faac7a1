"""What an audit finds, as the JSON file and the page have it. Shares are fractions, means are over seeds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from mmc_bench.results.metrics import Count, Number, Part
from mmc_bench.results.settings import Fraction

#: Accuracy that a network must lose when its images' cues are swapped, for the cue to count as picked up.
PICKED_UP = 0.1

#: By how much images with their cue must be ahead of images without it, for the cue to show in the learning curve.
AHEAD = 0.1


class SplitAccuracies(Part):
    """Accuracies without cues, with each image's own cue, with a random one, and with the cue on a random image."""

    NC: Fraction
    C: Fraction
    RC: Fraction
    RI: Fraction

    @property
    def fall(self) -> float:
        """The accuracy that is lost when the cues are swapped."""
        return self.C - self.RC


class EpochAccuracies(Part):
    """The learning curve after one epoch, on test images without cues and with their own."""

    epoch: Annotated[int, Field(ge=1)]
    NC: Fraction
    C: Fraction


class Repair(Part):
    """What one method makes of the network that was trained with one cue.

    Parameters
    ----------
    method
        Its name.
    seeds
        Those of which there is a result.
    accuracy
        Of the repaired network.
    flips
        Share of test images whose prediction changes when their cue is swapped.
    left
        These flips over those of the network before the repair.
    gain
        Its accuracy without cues minus that before the repair.
    behind_reference
        The accuracy without cues of a network that never saw a cue, minus this one's.
    seconds
        Time of the repair.
    words
        What became of the cue, for each seed: removed, hidden, unlinked, kept or undecided
        (`mmc_bench.mechanisms.verdicts`); none where the cue was not picked up, or the networks were not probed.
    """

    method: str
    seeds: tuple[int, ...]
    accuracy: SplitAccuracies
    flips: Fraction
    left: Number | None
    gain: Number
    behind_reference: Number | None
    seconds: Annotated[Number, Field(ge=0)]
    words: tuple[str, ...] = ()


class CueStrength(Part):
    """One kind of cue at one strength, in the network that was trained with it.

    Parameters
    ----------
    word, value
        The strength in words, and as the suite's axis has it.
    seeds
        Those of which there is a network.
    accuracy
        Its accuracies; None until it is trained.
    flips
        Share of test images whose prediction changes when their cue is swapped; None where no method was applied.
    reference_flips
        The same of the network that never saw a cue, where it was probed.
    picked_up
        Whether swapped cues cost `PICKED_UP` of accuracy.
    first_epoch
        The first epoch after which images with their cue are `AHEAD` of images without; None where there is none.
    curve
        The learning curve.
    repairs
        One for each method that has a result.
    """

    word: str
    value: float
    seeds: tuple[int, ...] = ()
    accuracy: SplitAccuracies | None = None
    flips: Fraction | None = None
    reference_flips: Fraction | None = None
    picked_up: bool = False
    first_epoch: int | None = None
    curve: tuple[EpochAccuracies, ...] = ()
    repairs: tuple[Repair, ...] = ()


class Cue(Part):
    """One kind of cue at several strengths, weak to strong; `name` is short for the `dataset` that plants it."""

    dataset: str
    name: str
    summary: str
    strengths: tuple[CueStrength, ...]

    @property
    def picked_up(self) -> bool:
        """Whether the cue is picked up at one of its strengths."""
        return any(strength.picked_up for strength in self.strengths)


class MethodSummary(Part):
    """One method over all cues that were picked up; means are None where it has been applied to none of them.

    `needs` is the data that it asks for; `repaired` counts the networks that the means are of. `words` counts what
    became of the cues in them.
    """

    method: str
    summary: str
    needs: tuple[str, ...]
    repaired: Count
    flips_before: Fraction | None = None
    flips: Fraction | None = None
    reference_flips: Fraction | None = None
    left: Number | None = None
    gain: Number | None = None
    behind_reference: Number | None = None
    seconds: Number | None = None
    words: dict[str, Count] = Field(default_factory=dict)


class Reference(Part):
    """The network that never saw a cue, trained by the same recipe: its accuracy on test images without cues."""

    NC: Fraction
    seeds: tuple[int, ...]


class Images(Part):
    """The images: where they are, how many are used for what, and their size in pixels."""

    folders: tuple[str, ...]
    classes: Count | None = None
    pretraining: Count | None = None
    clean: Count | None = None
    test: Count | None = None
    size: tuple[int, ...]


class AuditProblem(Part):
    """What failed, and why, in one sentence."""

    label: str
    error: str


class AuditReport(Part):
    """A whole audit.

    `answer` is the result in a few sentences. `missing` counts the pretrainings and cells that have not run yet, but
    for those that failed. `cue_rate` is the share of pretraining images that carried their cue.
    """

    schema_version: Literal[1] = 1
    made: AwareDatetime | datetime
    mmc_bench: str
    backbone: str
    images: Images
    cue_rate: Fraction
    epochs: Count
    seeds: tuple[int, ...]
    picked_up_from: Number = PICKED_UP
    ahead_from: Number = AHEAD
    reference: Reference | None
    cues: tuple[Cue, ...]
    methods: tuple[MethodSummary, ...]
    answer: tuple[str, ...]
    problems: tuple[AuditProblem, ...] = ()
    missing: Count = 0
