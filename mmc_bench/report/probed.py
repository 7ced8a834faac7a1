"""Probed models beside their references, and the rows that tables and frames are made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmc_bench.mechanisms.verdicts import Verdict, verdict
from mmc_bench.report.rows import PRETRAINED
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.probes import FEATURES, Hold

#: What rows call θ_NC, the model that never saw the cue; θ_C is `PRETRAINED`.
CUE_FREE = "cue-free"


@dataclass(frozen=True)
class ProbedModel:
    """What became of the cue in one model θ, with its references θ_C and θ_NC.

    Parameters
    ----------
    name
        The method that repaired it, or what a caller calls it.
    experiment
        The pretraining of θ_C, on whose images all three were probed.
    own, cued, cue_free
        What θ, θ_C and θ_NC have of the cue.
    barrier
        The largest barrier in loss (nats) on the straight path from θ_C to θ; None where it was not measured.
    tolerance
        The barrier (nats) up to which the path counts as open.
    """

    name: str
    experiment: Pretraining
    own: Hold
    cued: Hold
    cue_free: Hold
    barrier: float | None
    tolerance: float

    @cached_property
    def verdict(self) -> Verdict:
        """The word for it, and the readability that is left."""
        return verdict(self.own, self.cued, self.cue_free, self.barrier, self.tolerance)
