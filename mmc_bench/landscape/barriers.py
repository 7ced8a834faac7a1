"""Barriers and connectivity along a path (definitions 1 and 5), and invariances (definition 3)."""

from collections.abc import Mapping, Sequence

from mmc_bench.results.records import Barrier, Connectivity, Curve, Invariance, Score

#: Losses (nats) that differ by no more count as equal.
TOLERANCE = 0.05

#: The interventions on an input: their name, the split without them, the split with them.
INTERVENTIONS = (
    ("remove cue", "C", "NC"),
    ("randomise cue", "C", "RC"),
    ("randomise image", "C", "RI"),
)


def barrier(ts: Sequence[float], scores: Sequence[Score]) -> Barrier:
    """Return the height of a path above the chord between its ends.

    max over t of L(γ(t)) - ((1-t)·L(θ₁) + t·L(θ₂)) for the loss, and of the chord's accuracy minus the
    path's for accuracy. Neither is below 0, the ends being part of the path.
    """
    first, last = scores[0], scores[-1]

    def height(start: float, end: float, values: Sequence[float], sign: float) -> float:
        # The ends lie on their own chord: a barrier is 0 or more, free of their rounding.
        inner = zip(ts[1:-1], values[1:-1], strict=True)
        return max([0.0, *(sign * (value - ((1 - t) * start + t * end)) for t, value in inner)])

    return Barrier(
        accuracy=height(first.accuracy, last.accuracy, [score.accuracy for score in scores], -1.0),
        loss=height(first.loss, last.loss, [score.loss for score in scores], 1.0),
    )


def mode_connected(scores: Sequence[Score], tolerance: float = TOLERANCE) -> bool:
    """Tell whether no loss on the path exceeds the lower of its ends by more than `tolerance` (definition 1)."""
    bound = min(scores[0].loss, scores[-1].loss) + tolerance
    return all(score.loss <= bound for score in scores)


def connectivity(
    ts: Sequence[float], scores: Mapping[str, Sequence[Score]], tolerance: float = TOLERANCE
) -> Connectivity:
    """Gather a path's curves, barriers and verdicts; mechanistically connected means so on every split."""
    connected = {name: mode_connected(along, tolerance) for name, along in scores.items()}
    return Connectivity(
        t=tuple(ts),
        splits={
            name: Curve(accuracy=tuple(score.accuracy for score in along), loss=tuple(score.loss for score in along))
            for name, along in scores.items()
        },
        barriers={name: barrier(ts, along) for name, along in scores.items()},
        mode_connected=connected,
        mechanistically_connected=all(connected.values()),
        tolerance=tolerance,
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
