"""What chance makes of an audit's numbers, against simulated test images."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmc_bench.auditing.chance import ScoredImages, of_another, swap_intervals
from mmc_bench.auditing.findings import picked_up
from mmc_bench.auditing.schema import PICKED_UP
from mmc_bench.mechanisms.verdicts import reaches


def network(C, RC):
    """Return a record that has accuracies alone."""
    scores = {split: SimpleNamespace(accuracy=C) for split in ("NC", "C", "RI")}
    return SimpleNamespace(metrics=SimpleNamespace(splits=scores | {"RC": SimpleNamespace(accuracy=RC)}))


def ignoring(classes, images, flips, rng, accuracy=0.8, runs=4000):
    """Return accuracies on C and RC, and changed predictions, of networks that any other cue makes waver alike."""
    labels = rng.integers(classes, size=(runs, images))

    def another(than):
        return (than + rng.integers(1, classes, (runs, images))) % classes

    first = np.where(rng.random((runs, images)) < accuracy, labels, another(labels))
    wavers = rng.random((runs, images)) < flips * (classes - 1) / classes
    second = np.where(wavers, another(first), first)
    swapped = rng.random((runs, images)) < 0.5
    own, random = np.where(swapped, second, first), np.where(swapped, first, second)
    return zip((own == labels).mean(1), (random == labels).mean(1), (own != random).mean(1), strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "images"), [(2, 20), (2, 60), (2, 300), (3, 20), (3, 60), (10, 60)])
@pytest.mark.parametrize("flips", [0.1, 0.3])
def test_an_audit_of_networks_that_ignore_their_cues_rarely_calls_one_picked_up(classes, images, flips):
    scored, networks = ScoredImages(classes, images, 1 / classes), 15
    found = [*ignoring(classes, images, flips, np.random.default_rng(0))]
    called = np.mean([picked_up(network(C, RC), changed, scored) for C, RC, changed in found])
    assert 1 - (1 - called) ** networks < 0.05
    ten_points = np.mean([reaches(of_another(C - RC, classes), PICKED_UP) for C, RC, _ in found])
    assert images > 20 or 1 - (1 - ten_points) ** networks > 0.5  # what is tested is not impossible anyway


@pytest.mark.parametrize(("classes", "images"), [(2, 20), (2, 60), (3, 20), (10, 20), (10, 1500)])
def test_a_network_that_follows_its_cue_is_found_with_few_test_images(classes, images):
    changed = (classes - 1) / classes
    assert picked_up(network(1.0, 1.0 - changed), changed, ScoredImages(classes, images, 1 / classes))


def test_nothing_is_picked_up_below_ten_points_or_with_a_handful_of_test_images():
    many, few = ScoredImages(2, 100_000, 0.5), ScoredImages(2, 6, 0.5)
    assert picked_up(network(0.8, 0.75), 0.05, many) and not picked_up(network(0.8, 0.76), 0.04, many)
    assert not picked_up(network(1.0, 0.5), 0.5, few)


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
