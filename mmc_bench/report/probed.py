"""Probed models beside their references, and the rows that tables and frames are made of."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmc_bench.mechanisms.verdicts import UNKNOWN, Verdict, verdict
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
        The barrier in loss (nats) on the straight path from θ_C to θ; None where it was not measured.
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

    @property
    def setting(self) -> str:
        """A key of all that the experiment is but its seed."""
        return self.experiment.with_changes(seed=0).key

    @cached_property
    def verdict(self) -> Verdict:
        """The word for it, and the readability that is left."""
        return verdict(self.own, self.cued, self.cue_free, self.barrier, self.tolerance)


@dataclass(frozen=True)
class ProbedSetting:
    """The probed models of one setting, over its seeds: every name with its models, in the order in which they came."""

    models: tuple[ProbedModel, ...]

    @property
    def key(self) -> str:
        """What tells this setting from others."""
        return self.models[0].setting

    @property
    def title(self) -> tuple[str, str, str]:
        """The dataset, backbone and cue rate, for people."""
        return self.models[0].experiment.place

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all models."""
        return tuple(sorted({model.experiment.seed for model in self.models}))

    @cached_property
    def by_name(self) -> dict[str, tuple[ProbedModel, ...]]:
        """The models of each name, references left out."""
        names = dict.fromkeys(model.name for model in self.models)
        return {name: tuple(model for model in self.models if model.name == name) for name in names}

    @cached_property
    def holds(self) -> dict[str, tuple[Hold, ...]]:
        """What the models of each name have of the cue, the references first."""
        references = {model.experiment.key: (model.cued, model.cue_free) for model in self.models}
        cued, cue_free = zip(*references.values(), strict=True)
        own = {name: tuple(model.own for model in models) for name, models in self.by_name.items()}
        return {PRETRAINED: cued, CUE_FREE: cue_free, **own}

    def words(self, name: str) -> str:
        """Return the word for the models of a name: ``"kept"``, or ``"hidden 2, removed 1"`` where seeds differ."""
        counted = Counter(model.verdict.word or UNKNOWN for model in self.by_name.get(name, ()))
        if len(counted) <= 1:
            return next(iter(counted), "")
        return ", ".join(f"{word} {count}" for word, count in counted.most_common())


def settings_of(models: Sequence[ProbedModel]) -> list[ProbedSetting]:
    """Return probed models by the setting of their experiment, that is all but its seed."""
    found: dict[str, list[ProbedModel]] = {}
    for model in models:
        found.setdefault(model.setting, []).append(model)
    return [ProbedSetting(tuple(own)) for own in found.values()]


def references_first(models: Sequence[ProbedModel]) -> Iterator[tuple[ProbedModel, str, Hold, bool]]:
    """Yield each model, its name, and what it has of the cue, after its references; the last says whether it is one."""
    seen: set[str] = set()
    for model in models:
        if model.experiment.key not in seen:
            seen.add(model.experiment.key)
            yield model, PRETRAINED, model.cued, True
            yield model, CUE_FREE, model.cue_free, True
        yield model, model.name, model.own, False


def frame_rows(models: Sequence[ProbedModel]) -> list[dict[str, Any]]:
    """Return a row for each model and for each reference, as `mmc_bench.running.probing.Probed.to_frame` has them."""
    return [
        {
            "dataset": model.experiment.dataset.name,
            "backbone": model.experiment.network,
            "cue_rate": model.experiment.cue_rate,
            "seed": model.experiment.seed,
            "method": name,
            **{f"read_{stage}": value for stage, value in hold.read.items() if stage != FEATURES},
            "read": hold.read[FEATURES],
            "chance": hold.chance,
            "left": None if is_reference else model.verdict.left,
            "attribution": hold.attribution,
            "cue_pixels": hold.cue_pixels,
            "flips": hold.flips,
            "barrier": None if is_reference else model.barrier,
            "word": None if is_reference else model.verdict.word,
        }
        for model, name, hold, is_reference in references_first(models)
    ]
