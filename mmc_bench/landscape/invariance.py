"""Invariances of a model to interventions on its input (definition 3), and similarity of two (definition 4)."""

from collections.abc import Mapping

from mmc_bench.results.metrics import Score
from mmc_bench.results.records import Invariance

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
    without it. Splits without such an intervention have none.
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
        if {without, with_it} <= scores.keys()
    }


def mechanistically_similar(first: Mapping[str, Invariance], second: Mapping[str, Invariance]) -> bool:
    """Tell whether two models have the same invariances (definition 4)."""
    return all(first[name].invariant == second[name].invariant for name in first)
