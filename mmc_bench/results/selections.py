"""Selections: which trial of a method is the best by each rule, of validation images alone."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mmc_bench.results.jobs import RULES, RULES_OF_GROUPS, Selection
from mmc_bench.results.making import Checksum
from mmc_bench.results.metrics import Part, Score
from mmc_bench.results.records import TrialRecord, _JobRecord, trial_splits


class TriedParameters(Part):
    """One trial: what differs from the published parameters, and the mean scores over the tuning seeds.

    A trial that diverged on any seed has no scores, and is never chosen.
    """

    parameters: dict[str, Any]
    validation: dict[str, Score] = Field(default_factory=dict)
    diverged: str | None = None


class SelectionRecord(_JobRecord):
    """What was tried of a method in one setting, and the trial that each rule chose.

    `space` says in words what each parameter was drawn from; trial 0 is not drawn. `winners` are places in `trials`;
    there are none where every trial diverged.
    """

    kind: Literal["selection"] = "selection"
    selection: Selection
    space: dict[str, str]
    trials: Annotated[tuple[TriedParameters, ...], Field(min_length=1)]
    winners: dict[str, int]
    sha256: Checksum = None

    @model_validator(mode="after")
    def _is_whole(self) -> "SelectionRecord":
        if len(self.trials) != len(self.selection.trials):
            raise ValueError("a selection has what came of each of its trials")
        names = {*trial_splits(self.selection.pretraining)}
        if any(trial.diverged is None and trial.validation.keys() != names for trial in self.trials):
            raise ValueError(f"a selection has scores of its trials on {', '.join(sorted(names))}")
        if self.winners != winners_of(self.trials):
            raise ValueError("the winners are not the best of the trials")
        return self


def select(
    selection: Selection,
    space: Mapping[str, str],
    parameters: Sequence[Mapping[str, Any]],
    records: Sequence[Sequence[TrialRecord]],
) -> SelectionRecord:
    """Return the record of a selection.

    Parameters
    ----------
    space
        What the parameters were drawn from, in words.
    parameters
        What each trial draws.
    records
        The records of each trial, one a tuning seed.
    """
    trials = tuple(
        TriedParameters(
            parameters=dict(drawn),
            diverged=next((record.diverged for record in own if record.diverged), None),
            validation={} if any(record.diverged for record in own) else _means(own),
        )
        for drawn, own in zip(parameters, records, strict=True)
    )
    return SelectionRecord(
        key=selection.key, selection=selection, space=dict(space), trials=trials, winners=winners_of(trials)
    )


def winners_of(trials: Sequence[TriedParameters]) -> dict[str, int]:
    """Return the place of the best trial by each rule.

    The best has the highest accuracy on the worst of the rule's validation splits; of several, that whose largest loss
    on them is the smallest; of several, the first. Accuracies are compared to nine digits: as many right images, spread
    otherwise over the seeds, can have a mean with another last bit.
    """
    standing = [place for place, trial in enumerate(trials) if trial.diverged is None]
    if not standing:
        return {}

    def worst(place: int, splits: Sequence[str]) -> tuple[float, float]:
        scores = [trials[place].validation[split] for split in splits]
        return round(min(score.accuracy for score in scores), 9), -max(score.loss for score in scores)

    rules = RULES_OF_GROUPS if "worst_group" in trials[standing[0]].validation else RULES
    return {rule: max(standing, key=lambda place: worst(place, splits)) for rule, splits in rules.items()}


def _means(records: Sequence[TrialRecord]) -> dict[str, Score]:
    def mean(split: str, figure: str) -> float:
        return fmean(getattr(record.validation[split], figure) for record in records)

    return {split: Score(accuracy=mean(split, "accuracy"), loss=mean(split, "loss")) for split in records[0].validation}
