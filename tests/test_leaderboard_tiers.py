"""What the leaderboard's statistics say: tiers, intervals over datasets, and critical differences."""

import math
import re
import statistics
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.leaderboard import TestBoard, of_seeds, plugin
from helpers.page import HOSTILE, HOSTILE_SHOWN

from mmc_bench.errors import UserError
from mmc_bench.leaderboard import critical_picture
from mmc_bench.leaderboard.critical import critical_difference, nemenyi
from mmc_bench.leaderboard.inference import combined, estimate, holm, p_values, separated, tiers
from mmc_bench.leaderboard.schemas import BoardSettings
from mmc_bench.results.settings import DataSettings


@pytest.fixture
def board(tmp_path):
    return TestBoard(tmp_path / "board")


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
    found = estimate(values)
    p = p_values(np.array(found.mean), np.array(found.error), found.degrees)
    assert p == pytest.approx(slow_p_value(values), abs=1e-6)


def test_equal_methods_are_not_separated_and_a_large_constant_difference_is():
    first, wide = [0.1, 0.5, 0.3], [0.9, 0.1, 0.2]
    scores = [first, [0.1, 0.5 + 1e-17, 0.3], [value - 0.1 for value in first], wide]
    apart = [[False, False, True, False], [False, False, True, False], [True, True, False, False], [False] * 4]
    assert separated([scores]).tolist() == apart
    assert tiers([scores]) == [1, 1, 1, 1]  # `wide` opens the tier and is separated from none
    assert tiers([scores[:3]]) == [1, 1, 2]
    assert not separated([[[0.5], [0.1]]]).any()
    assert tiers([[]]) == [] and tiers([[[0.5, 0.4]]]) == [1]


def test_one_image_more_on_every_seed_separates_no_two_of_many_methods():
    random = np.random.default_rng(0)
    scores = random.integers(300, 400, size=(31, 5)) / 500
    scores[1] = scores[0] + 1 / 500
    assert not separated([scores])[0, 1]
    scores[1] = scores[0] + 0.5  # no chance
    assert separated([scores])[0, 1]


def test_methods_of_equal_scores_count_once():
    """Rows that tuning has made the same would otherwise hide a difference that the seeds show."""
    low = [0.50, 0.52, 0.49, 0.51, 0.48]
    high = [value + gain for value, gain in zip(low, [0.02, 0.05, 0.01, 0.03, 0.02], strict=True)]  # p = .019
    far = [value - 0.3 for value in low]
    assert separated([[high, low]])[0, 1]
    apart = separated([[high, low, far]])
    assert apart[0].tolist() == [False, True, True]
    again = separated([[low, high, low, far, low, high]])
    order = [1, 0, 1, 2, 1, 0]
    assert again.tolist() == [[bool(apart[i, j]) for j in order] for i in order]
    other = [[low, high, low], [[0.1, 0.2], [0.1, 0.2], [0.3, 0.2]]]  # alike in one block alone
    assert not separated(other)[0, 2] and separated(other).shape == (3, 3)


@pytest.mark.slow
def test_equal_methods_are_separated_in_five_draws_of_a_hundred_at_most():
    """The limit allows for chance: 5 % of 400 draws and two standard errors."""
    random = np.random.default_rng(0)
    draws = random.normal(size=(400, 31, 5)) + random.normal(size=(400, 1, 5))
    assert sum(separated([draw]).any() for draw in draws) <= 20 + 2 * math.sqrt(400 * 0.05 * 0.95)
    scores = draws[0].copy()
    scores[:3] += 1000  # in a tier of their own
    assert tiers([scores]) == [1] * 3 + [2] * 28
    two = [draws[1], scores]  # of two independent blocks one has the difference
    assert tiers(two) == [1] * 3 + [2] * 28
    uneven = [[one, 3 * other] for one, other in pairwise(draws)]
    assert sum(separated(blocks).any() for blocks in uneven) <= 20


@pytest.mark.parametrize("values", [[0.01, 0.04, 0.03, 0.005], [0.013, 0.02, 0.024, 0.001], [0.06], [0.02, 0.02, 0.02]])
def test_holm_rejects_what_its_adjusted_p_values_say(values):
    adjusted = {}
    for step, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        adjusted[index] = max([(len(values) - step) * values[index], *adjusted.values()])
    assert holm(np.array(values)).tolist() == [adjusted[index] <= 0.05 for index in range(len(values))]


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
    found = dict(zip(names, tiers([list(scores.values())]), strict=True))
    assert found == {"first": 1, "close": 1, "wide": 1, "second": 2, "low": 3}


def test_a_mean_of_independent_means_has_their_propagated_interval():
    parts = [[0.1, 0.2, 0.4, 0.3, 0.2], [0.5, 0.9, 0.6]]
    found = combined([estimate(values) for values in parts])
    squares = [(statistics.variance(v) / len(v), len(v) - 1) for v in parts]
    assert found.mean == pytest.approx(sum(statistics.fmean(v) for v in parts))
    assert found.error == pytest.approx(math.sqrt(sum(square for square, _ in squares)))
    degrees = sum(square for square, _ in squares) ** 2 / sum(square**2 / d for square, d in squares)
    assert found.degrees == pytest.approx(degrees)
    assert combined([estimate([0.1]), estimate([0.2, 0.3])]).error is None


def test_every_dataset_weighs_as_much_however_many_cue_rates_it_has(board):
    board.counting((0, 1, 2), rates=(0.9, 0.5), letters=(0.9,))
    digits, more, letters = (0.9, 0.8, 0.85), (0.7, 0.6, 0.8), (0.1, 0.3, 0.2)
    board.send_in(*of_seeds("base", digits), *of_seeds("base", more, cue_rate=0.5))
    board.send_in(*of_seeds("base", letters, dataset=plugin("letters"), images={"letters": "original"}))
    (base,) = board.standings().overall
    of_digits = [(a + b) / 2 for a, b in zip(digits, more, strict=True)]
    by_seed = [(a + b) / 2 for a, b in zip(of_digits, letters, strict=True)]  # one seed's draws are not independent
    assert base.mean.mean == pytest.approx((statistics.fmean(of_digits) + statistics.fmean(letters)) / 2)
    assert base.mean.half_width == pytest.approx(estimate(by_seed).interval.half_width)
    assert base.by_dataset == pytest.approx((statistics.fmean(of_digits), statistics.fmean(letters)))


def test_settings_of_other_seeds_are_independent(board):
    places = [
        {"dataset": "acme:digits", "cue_rates": [0.9], "seeds": [0, 1, 2]},
        {"dataset": "acme:letters", "cue_rates": [0.9], "seeds": [3, 4, 5]},
    ]
    board.counting((0, 1, 2)).listing(places)
    digits, letters = (0.9, 0.8, 0.85), (0.1, 0.3, 0.2)
    others = {"dataset": plugin("letters"), "images": {"letters": "original"}}
    board.send_in(*of_seeds("base", digits), *of_seeds("base", letters, first=3, **others))
    (base,) = board.standings().overall
    expected = combined([estimate([value / 2 for value in own]) for own in (digits, letters)])
    assert base.mean.half_width == pytest.approx(expected.interval.half_width)
    places[1]["seeds"] = [2, 3, 4]
    board.listing(places)
    with pytest.raises(UserError, match="share seed 2 and not all seeds"):
        board.opened()


def test_settings_that_differ_in_how_their_sets_are_drawn_count_by_themselves(board):
    place = {"dataset": "acme:digits", "cue_rates": [0.9], "seeds": [0, 1]}
    board.listing([{**place, "data": {"minority": kind}} for kind in ("uncued", "conflicting")])
    board.send_in(*of_seeds("base", (0.5, 0.6)))
    conflicting = DataSettings(minority="conflicting")
    board.send_in(*of_seeds("base", (0.1, 0.2), data=conflicting), *of_seeds("tune", (0.8, 0.9), data=conflicting))
    base, tune = board.standings().overall
    assert (base.mean.mean, base.by_dataset) == (pytest.approx(0.35), pytest.approx((0.35,)))
    assert tune.missing == ("digits net 0.9 minority=uncued",)
    board.listing([{**place, "data": {"majority": "uncued"}}])
    with pytest.raises(UserError, match="there is no data setting 'majority': known are "):
        board.opened()
    for wrong in ({"minority": "uncud"}, {"clean_images": 1}, {"test_images": "many"}, {"test_images": "500"}):
        board.listing([{**place, "data": wrong}])
        with pytest.raises(UserError, match=f"{next(iter(wrong))} = "):
            board.opened()


def test_a_setting_of_few_seeds_is_shown_without_tiers_and_does_not_count(board):
    board.counting((0, 1))
    settings = board.root / "leaderboard.yaml"
    settings.write_text(settings.read_text().replace("fewest_seeds: 1", "fewest_seeds: 3"))
    board.send_in(*of_seeds("tune", (0.9, 0.8)), *of_seeds("base", (0.3, 0.2)))
    found = board.standings()
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
def test_five_seeds_find_differences_as_rarely_as_readers_are_told():
    from scipy.integrate import quad
    from scipy.stats import chi2, norm, t

    critical = t.isf(0.05 / (31 * 30 / 2) / 2, 4)

    def chance(size):
        def within(v):  # of the variance's draw v
            sides = (
                size * math.sqrt(5) - critical * math.sqrt(v / 4),
                -size * math.sqrt(5) - critical * math.sqrt(v / 4),
            )
            return chi2.pdf(v, 4) * sum(map(norm.cdf, sides))

        return 100 * quad(within, 0, 200, points=(0.1, 1, 5, 20), limit=200)[0]

    found = [chance(size) for size in (1, 2, 5, 10)]
    said = f"{found[0]:.1f}, {found[1]:.1f}, {found[2]:.0f} or {found[3]:.0f} %"
    folder = Path(critical_picture.__file__).parent
    for name in ("README.md.j2", "page/page.html.j2"):
        assert said in (folder / name).read_text(encoding="utf-8")


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
def test_datasets_that_disagree_separate_nothing():
    found = critical_difference({"a": [1, 2, 3], "b": [2, 3, 1], "c": [3, 1, 2]})
    assert found.p_value > 0.05 and found.groups == ((0, 2),)


def test_few_methods_or_datasets_have_no_critical_difference():
    assert critical_difference({}) is None
    assert critical_difference({"a": [1, 2], "b": [2, 1]}) is None
    assert critical_difference({name: [1] for name in "abc"}) is None


def pictured(names):
    found = critical_difference({name: [-rank, -rank - 0.5, -rank] for rank, name in enumerate(names)})
    keys = ("names", "ranks", "average", "p_value", "difference", "groups")
    return {"datasets": 3, **{key: getattr(found, key) for key in keys}}


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
