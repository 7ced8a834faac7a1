"""The records of probes: what a model has left of the cue."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mmc_bench.results.jobs import Probe
from mmc_bench.results.making import Provenance, Timing
from mmc_bench.results.metrics import Part
from mmc_bench.results.records import _JobRecord
from mmc_bench.results.settings import Fraction

#: What probes call the features that a network's last layer sees.
FEATURES = "features"


class Hold(Part):
    """What one model has left of the cue (`mmc_bench.mechanisms`).

    Parameters
    ----------
    read
        The accuracy of a linear probe that reads the cue from each stage's features, by stage, the last of which is
        `FEATURES`: what the network's last layer sees.
    classes, chance
        The classes that the probes tell apart, and the accuracy of always naming the most frequent one.
    presence
        Whether these classes are an image with its cue and without, since cue codes make none.
    flips
        The share of test images whose predicted class changes when their cue is replaced with another.
    attribution
        The share of the gradient of the predicted class's logit that falls on the pixels which the cue changes; None
        where every gradient is 0.
    cue_pixels
        The share of pixels that the cue changes.
    """

    read: dict[str, Fraction]
    classes: Annotated[int, Field(ge=2)]
    chance: Fraction
    presence: bool = False
    flips: Fraction
    attribution: Fraction | None
    cue_pixels: Fraction

    @model_validator(mode="after")
    def _ends_in_features(self) -> Self:
        if [*self.read][-1:] != [FEATURES]:
            raise ValueError(f"a probe reads several stages, the last of which is {FEATURES!r}")
        return self


class ProbeRecord(_JobRecord):
    """The result of probing one model."""

    kind: Literal["probe"] = "probe"
    probe: Probe
    hold: Hold
    timing: Timing
    provenance: Provenance
