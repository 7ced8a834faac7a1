"""What chance makes of an audit's numbers, against simulated test images."""

import numpy as np
import pytest

from mmc_bench.auditing.chance import swap_intervals


@pytest.mark.parametrize("classes", [2, 10])
def test_the_numbers_of_a_swap_lie_in_their_widest_intervals(classes):
    rng, images, runs = np.random.default_rng(0), 500, 2000
    other = rng.random((runs, images)) < (classes - 1) / classes  # whether a random cue is another class's
    half = other & (rng.random((runs, images)) < classes / (classes - 1) / 2)
    cost = other * rng.choice([-1, 1], (runs, images))  # each other cue makes a right prediction wrong, or the reverse
    true = (min(0.5 * classes / (classes - 1), 1.0), 0.0)
    for measured, truth, within in zip((half, cost), true, swap_intervals(classes, images), strict=True):
        found = measured.mean(axis=1) * classes / (classes - 1)
        assert np.mean(abs(found - truth) <= within) == pytest.approx(0.95, abs=0.02)
