"""What an audit finds, as the JSON file and the page have it. Shares are fractions, means are over seeds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from mmc_bench.results.metrics import Count, Number, Part
from mmc_bench.results.settings import Fraction

#: Accuracy that a network must lose when its images' cues are swapped, and more than by chance, for the cue to count as
#: picked up.
PICKED_UP = 0.1

#: Accuracy without cues that a method may cost and still be named as the one that leaves least.
COSTLY = 0.1

#: By how much images with their cue must be ahead of images without it, for the cue to show in the learning curve.
AHEAD = 0.1


class SplitAccuracies(Part):
    """Accuracies without cues, with each image's own cue, with a random one, and with the cue on a random image.

    One random cue in K is the image's own, for K classes.
    """

    NC: Fraction
    C: Fraction
    RC: Fraction
    RI: Fraction


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
        Share of test images whose prediction changes when their cue is swapped for another class's.
    flips_spread
        Its standard deviation over seeds, where there are several.
    left
        These flips over those of the network before the repair.
    gain
        Its accuracy without cues minus that before the repair.
    behind_reference
        The accuracy without cues of a network that never saw a cue, minus this one's.
    seconds
        Time of the repair.
    words
        What became of the cue in each network that was probed: removed, hidden, unlinked, kept or undecided
        (`mmc_bench.mechanisms.verdicts`), or "hidden or unlinked" where no barrier was measured. Networks that had not
        picked up their cue are not probed.
    """

    method: str
    seeds: tuple[int, ...]
    accuracy: SplitAccuracies
    flips: Fraction
    flips_spread: Number | None = None
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
    fall
        The accuracy that is lost when each image's cue is swapped for another class's: (C - RC) K / (K - 1), for K
        classes.
    flips
        Share of test images whose prediction then changes; None where no method was applied.
    chance
        What `fall` may be by chance (`mmc_bench.auditing.chance.cost_by_chance`). It is a mean over seeds: these share
        the test images.
    fall_spread, flips_spread
        Their standard deviations over seeds, where there are several.
    reference_flips
        The same of the network that never saw a cue, where it was probed.
    picked_up
        Whether `fall` is at least `PICKED_UP`, and at least `chance`.
    unclear
        Whether `fall` is at least `PICKED_UP`, but below `chance`.
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
    fall: Number | None = None
    fall_spread: Number | None = None
    chance: Number | None = None
    flips: Fraction | None = None
    flips_spread: Number | None = None
    reference_flips: Fraction | None = None
    picked_up: bool = False
    unclear: bool = False
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

    @property
    def unclear(self) -> bool:
        """Whether it cannot be told if the cue is picked up: at none of its strengths clearly, at one perhaps."""
        return not self.picked_up and any(strength.unclear for strength in self.strengths)


class MethodSummary(Part):
    """One method over all cues that were picked up; means are None where it has been applied to none of them.

    `needs` is the data that it asks for; `repaired` counts the networks, one a seed, that the means are of, and
    `failed` the repairs that failed. `words` counts what became of the cues in the probed networks.
    """

    method: str
    summary: str
    needs: tuple[str, ...]
    repaired: Count
    failed: Count = 0
    flips_before: Fraction | None = None
    flips: Fraction | None = None
    reference_flips: Fraction | None = None
    gain: Number | None = None
    behind_reference: Number | None = None
    seconds: Number | None = None
    words: dict[str, Count] = Field(default_factory=dict)


class Reference(Part):
    """The network that never saw a cue, trained by the same recipe: its accuracy on test images without cues."""

    NC: Fraction
    seeds: tuple[int, ...]


class Images(Part):
    """The images: where they are, how many are used for what, and their size in pixels.

    `largest_class` is the share of the test images that the largest class has.
    """

    folders: tuple[str, ...]
    classes: Count | None = None
    largest_class: Fraction | None = None
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
    for those that failed, and `unprobed` the repaired networks that have not been probed yet. `cue_rate` is the share
    of pretraining images that carried their cue; `strength` names the parameter that is how strong cues are, and
    `path_points` counts the points at which the straight path back from a repair is measured, its two ends included.
    """

    schema_version: Literal[1] = 1
    made: AwareDatetime | datetime
    mmc_bench: str
    backbone: str
    images: Images
    cue_rate: Fraction
    strength: str
    epochs: Count
    seeds: tuple[int, ...]
    path_points: Count
    picked_up_from: Number = PICKED_UP
    ahead_from: Number = AHEAD
    reference: Reference | None
    cues: tuple[Cue, ...]
    methods: tuple[MethodSummary, ...]
    answer: tuple[str, ...] = ()
    problems: tuple[AuditProblem, ...] = ()
    missing: Count = 0
    unprobed: Count = 0

    @property
    def picked_up_networks(self) -> int:
        """The number of networks, one a seed, in settings where the cue was picked up."""
        return sum(len(one.seeds) for cue in self.cues for one in cue.strengths if one.picked_up)
