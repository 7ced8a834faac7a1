"""What the leaderboard's statistics say: tiers, intervals over datasets, and critical differences."""

import math
import re
import statistics
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from helpers.leaderboard import TestBoard, of_seeds, plugin
from helpers.page import HOSTILE, HOSTILE_SHOWN

from mmc_bench.errors import UserError
from mmc_bench.leaderboard import critical_picture
from mmc_bench.leaderboard.critical import critical_difference, nemenyi
from mmc_bench.leaderboard.inference import combined, estimate, holm, tiers
from mmc_bench.leaderboard.schemas import BoardSettings
from mmc_bench.leaderboard.standings import make_standings
from mmc_bench.leaderboard.submissions import read_entries
from mmc_bench.results.jobs import DataSettings


@pytest.fixture
def board(tmp_path):
    return TestBoard(tmp_path / "board")


def standings(board):
    opened = board.opened()
    entries, problems = read_entries(opened)
    assert problems == []
    return make_standings(entries, opened.settings)


def slow_p_value(values):
    """Integrate Student's density beyond t by Simpson's rule, after substituting x = t / s."""
    n = len(values)
    t = statistics.fmean(values) / (statistics.stdev(values) / math.sqrt(n))
    scale = math.gamma(n / 2) / (math.sqrt((n - 1) * math.pi) * math.gamma((n - 1) / 2))

    def density(s):  # of x = |t| / s, for s from 0 to 1
        return scale * (1 + (t / s) ** 2 / (n - 1)) ** (-n / 2) * abs(t) / s**2 if s else 0.0

    steps = 20_000
    weights = (1 if i in (0, steps) else 4 if i % 2 else 2 for i in range(steps + 1))
    return 2 * sum(w * density(i / steps) for i, w in enumerate(weights)) / (3 * steps)


@pytest.mark.parametrize("values", [[0.02, -0.01, 0.03, 0.04, 0.01], [-0.2, -0.1, -0.15], [0.1, 0.2, 0.1, 0.3]])
def test_p_values_are_student_s(values):
    assert estimate(values).p_value == pytest.approx(slow_p_value(values), abs=1e-6)


def test_equal_methods_are_not_separated_and_a_constant_difference_is():
    assert estimate([0.0, 1e-17, 0.0]).p_value == 1
    assert estimate([0.1, 0.1, 0.1 + 1e-17]).p_value == 0
    assert estimate([0.5]).p_value == 1


@pytest.mark.parametrize("values", [[0.01, 0.04, 0.03, 0.005], [0.013, 0.02, 0.024, 0.001], [0.06], [0.02, 0.02, 0.02]])
def test_holm_rejects_what_its_adjusted_p_values_say(values):
    adjusted = {}
    for step, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        adjusted[index] = max([(len(values) - step) * values[index], *adjusted.values()])
    assert holm(values) == [adjusted[index] <= 0.05 for index in range(len(values))]


def test_methods_share_a_tier_until_a_paired_test_separates_them():
    drift = [0.0, 0.2, 0.1, 0.3, 0.15]  # of the seeds, which all methods share: only a paired test sees through it
    near, apart = [0.01, -0.02, 0.0, 0.01, 0.02], [0.05, 0.06, 0.05, 0.055, 0.06]
    scores = {
        "low": [0.2 + d for d in drift],
        "first": [0.5 + d for d in drift],
        "close": [0.5 + d - n for d, n in zip(drift, near, strict=True)],
        "second": [0.5 + d - a for d, a in zip(drift, apart, strict=True)],
        "wide": [0.5 + d - w for d, w in zip(drift, [0.4, -0.1, 0.3, 0.0, 0.1], strict=True)],
    }
    names = list(scores)

    def difference(first, second):
        return estimate([a - b for a, b in zip(scores[names[first]], scores[names[second]], strict=True)])

    found = dict(zip(names, tiers([statistics.fmean(own) for own in scores.values()], difference), strict=True))
    assert found == {"first": 1, "close": 1, "wide": 1, "second": 2, "low": 3}


def test_a_mean_of_independent_means_has_their_propagated_interval():
    parts = [(0.25, [0.1, 0.2, 0.4, 0.3, 0.2]), (0.75, [0.5, 0.9, 0.6])]
    found = combined([(weight, estimate(values)) for weight, values in parts])
    squares = [(w**2 * statistics.variance(v) / len(v), len(v) - 1) for w, v in parts]
    assert found.mean == pytest.approx(sum(w * statistics.fmean(v) for w, v in parts))
    assert found.error == pytest.approx(math.sqrt(sum(square for square, _ in squares)))
    degrees = sum(square for square, _ in squares) ** 2 / sum(square**2 / d for square, d in squares)
    assert found.degrees == pytest.approx(degrees)
    assert combined([(0.5, estimate([0.1])), (0.5, estimate([0.2, 0.3]))]).error is None


def test_every_dataset_weighs_as_much_however_many_cue_rates_it_has(board):
    board.counting((0, 1, 2), rates=(0.9, 0.5), letters=(0.9,))
    digits, more, letters = (0.9, 0.8, 0.85), (0.7, 0.6, 0.8), (0.1, 0.3, 0.2)
    board.send_in(*of_seeds("base", digits), *of_seeds("base", more, cue_rate=0.5))
    board.send_in(*of_seeds("base", letters, dataset=plugin("letters"), images={"letters": "original"}))
    (base,) = standings(board).overall
    of_digits = [(a + b) / 2 for a, b in zip(digits, more, strict=True)]  # seeds of one dataset are not independent
    expected = combined([(0.5, estimate(of_digits)), (0.5, estimate(letters))])
    assert base.mean.mean == pytest.approx((statistics.fmean(of_digits) + statistics.fmean(letters)) / 2)
    assert base.mean.half_width == pytest.approx(expected.interval.half_width)


def test_settings_that_differ_in_how_their_sets_are_drawn_count_by_themselves(board):
    place = {"dataset": "acme:digits", "cue_rates": [0.9], "seeds": [0, 1]}
    board.listing([{**place, "data": {"minority": kind}} for kind in ("uncued", "conflicting")])
    board.send_in(*of_seeds("base", (0.5, 0.6)))
    conflicting = DataSettings(minority="conflicting")
    board.send_in(*of_seeds("base", (0.1, 0.2), data=conflicting), *of_seeds("tune", (0.8, 0.9), data=conflicting))
    base, tune = standings(board).overall
    assert (base.mean.mean, base.by_place) == (pytest.approx(0.35), pytest.approx((0.55, 0.15)))
    assert tune.missing == ("digits net 0.9 minority=uncued",)
    board.listing([{**place, "data": {"majority": "uncued"}}])
    with pytest.raises(UserError, match="there is no data setting 'majority': known are "):
        board.opened()


def test_a_setting_of_few_seeds_is_shown_without_tiers_and_does_not_count(board):
    board.counting((0, 1))
    settings = board.root / "leaderboard.yaml"
    settings.write_text(settings.read_text().replace("fewest_seeds: 1", "fewest_seeds: 3"))
    board.send_in(*of_seeds("tune", (0.9, 0.8)), *of_seeds("base", (0.3, 0.2)))
    found = standings(board)
    assert [(row.method, row.tier) for row in found.rows[1:]] == [("tune", None), ("base", None)]
    assert not found.places and not found.overall and not found.settings[0].counts
    text = board.build()["README.md"].decode()
    assert "Too few seeds for tiers. Does not count over all settings." in text
    assert BoardSettings.model_fields["fewest_seeds"].default == 5


# --- critical differences (slow: scipy.stats takes a second to import)


@pytest.mark.slow
def test_the_critical_difference_is_demsar_s():
    """The example of Demšar (2006, section 3.2.4): four classifiers on fourteen datasets."""
    assert nemenyi(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.slow
def test_average_ranks_and_groups_are_those_of_a_slow_count():
    means = {
        name: [base + 0.01 * shift for shift in range(12)] for name, base in zip("dbace", (2, 4, 5, 3, 1), strict=True)
    }
    means["e"] = list(means["d"])  # equals share the mean of their ranks
    found = critical_difference(means)
    assert dict(zip(found.names, found.average, strict=True)) == {"a": 1, "b": 2, "c": 3, "d": 4.5, "e": 4.5}
    runs = []
    for first in range(5):
        for last in range(first + 1, 5):
            if found.average[last] - found.average[first] < found.difference:
                runs.append((first, last))
    largest = [run for run in runs if not any(a <= run[0] and run[1] <= b and (a, b) != run for a, b in runs)]
    assert list(found.groups) == largest and len(largest) > 1


@pytest.mark.slow
def test_settings_that_disagree_separate_nothing():
    found = critical_difference({"a": [1, 2, 3], "b": [2, 3, 1], "c": [3, 1, 2]})
    assert found.p_value > 0.05 and found.groups == ((0, 2),)


def test_few_methods_or_settings_have_no_critical_difference():
    assert critical_difference({}) is None
    assert critical_difference({"a": [1, 2], "b": [2, 1]}) is None
    assert critical_difference({name: [1] for name in "abc"}) is None


def pictured(names):
    found = critical_difference({name: [-rank, -rank - 0.5, -rank] for rank, name in enumerate(names)})
    keys = ("names", "ranks", "average", "p_value", "difference", "groups")
    return {"settings": 3, **{key: getattr(found, key) for key in keys}}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [None, "light", "dark"])
def test_a_picture_has_room_for_thirty_methods_and_shows_hostile_names_as_text(scheme):
    names = [HOSTILE, *(f"method-{number}" for number in range(29))]
    picture = critical_picture.draw(pictured(names), scheme)
    root = ElementTree.fromstring(picture)
    lines = [group for group in root.iter() if group.tag.endswith("}g")]
    said = [line[0].text.rpartition(":")[0] for line in lines]
    assert sorted(said) == sorted([HOSTILE_SHOWN, *names[1:]])
    heights = [float(line[1].get("y")) for line in lines]
    assert all(b - a >= 18 for a, b in pairwise(heights))
    for axis, side in (("x", "width"), ("y", "height")):
        places = [float(value) for value in re.findall(rf'\bc?{axis}="([\d.-]+)"', picture)]
        assert len(places) > 100 and min(places) >= 0 and max(places) <= float(root.get(side))
    assert ("<style>" in picture) == (scheme is not None) and "style=" not in picture
