"""Invariances of a model to interventions on its input (definition 3), and similarity of two (definition 4)."""

from collections.abc import Mapping

import torch

from mmc_bench.results.records import Effect, Invariance, Score

#: Losses (nats) that differ by no more count as equal.
TOLERANCE = 0.05

#: The interventions on an input: their name, the split without them, the split with them.
INTERVENTIONS = (
    ("remove cue", "C", "NC"),
    ("randomise cue", "C", "RC"),
    ("randomise image", "C", "RI"),
)


def invariances(scores: Mapping[str, Score], tolerance: float = TOLERANCE) -> dict[str, Invariance]:
    """Return, for each intervention, the loss with and without it (definition 3).

    A model is invariant to an intervention when the loss under it is at most `tolerance` above the loss
    without it.
    """
    return {
        name: Invariance(
            split=with_it,
            loss_without=scores[without].loss,
            loss_with=scores[with_it].loss,
            accuracy_change=scores[with_it].accuracy - scores[without].accuracy,
            invariant=scores[with_it].loss <= scores[without].loss + tolerance,
        )
        for name, without, with_it in INTERVENTIONS
    }


def mechanistically_similar(first: Mapping[str, Invariance], second: Mapping[str, Invariance]) -> bool:
    """Tell whether two models have the same invariances (definition 4)."""
    return all(first[name].invariant == second[name].invariant for name in first)


def effects(
    scores: tuple[Mapping[str, Score], Mapping[str, Score]],
    predictions: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]],
) -> dict[str, Effect]:
    """Return by how much each intervention changes two models, beside the verdicts of `mechanistically_similar`.

    Parameters
    ----------
    scores, predictions
        Of the two models, as they are, by test split; predictions are class indices of shape (N,), and the i-th image
        of each split is the i-th of C under an intervention.
    """
    found = {}
    for name, without, with_it in INTERVENTIONS:

        def change(what: str, of: Mapping[str, Score], without: str = without, with_it: str = with_it) -> float:
            return float(getattr(of[with_it], what) - getattr(of[without], what))

        flips = [of_model[with_it] != of_model[without] for of_model in predictions]
        shares = torch.stack([flips[0], flips[1], flips[0] & flips[1]]).double().mean(1).tolist()
        found[name] = Effect(
            split=with_it,
            loss_changes=(change("loss", scores[0]), change("loss", scores[1])),
            accuracy_changes=(change("accuracy", scores[0]), change("accuracy", scores[1])),
            flips=(shares[0], shares[1]),
            flips_of_both=shares[2],
        )
    return found
