"""Barriers and connectivity along a path (definitions 1 and 5)."""

from collections.abc import Mapping, Sequence

from mmc_bench.landscape.invariance import TOLERANCE
from mmc_bench.results.metrics import Score
from mmc_bench.results.records import Barrier, Connectivity, Curve


def barrier(ts: Sequence[float], scores: Sequence[Score]) -> Barrier:
    """Return the height of a path above the chord between its ends.

    max over t of L(γ(t)) - ((1-t)·L(γ(0)) + t·L(γ(1))) for the loss, and of the chord's accuracy minus the path's
    for accuracy. Neither is below 0, the ends being part of the path; on a level path both are exactly 0.
    """
    first, last = scores[0], scores[-1]

    def height(start: float, end: float, values: Sequence[float], sign: float) -> float:
        # The ends lie on their own chord: a barrier is 0 or more, free of their rounding.
        inner = zip(ts[1:-1], values[1:-1], strict=True)
        return max([0.0, *(sign * (value - (start + t * (end - start))) for t, value in inner)])

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
