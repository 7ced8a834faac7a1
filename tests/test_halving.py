"""Where along an axis a method halves the cue's hold: interpolation, what lies outside, and seeds."""

import csv
import io
import json
from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
from helpers.records import cell_record, pretrain_record

from mmc_bench.report.axis_curves import axis_curves
from mmc_bench.report.halving import halving, last_crossing
from mmc_bench.report.halving_tables import render
from mmc_bench.results.settings import DataSettings

SIZES = (10, 40, 160)


def by_seed(*curves, values=SIZES):
    """Return cue reliance by value and seed, of one curve for each seed."""
    return {value: {seed: curve[place] for seed, curve in enumerate(curves)} for place, value in enumerate(values)}


# --- the point


def test_the_crossing_is_interpolated_on_the_logarithm_of_the_axis():
    found = halving(by_seed([0.8, 0.6, 0.2]), by_seed([0.8, 0.8, 0.8]))
    assert found.estimate == pytest.approx(80)  # half of the way from .6 to .2, and of 40 to 160 by ratio
    assert found.interval is None  # one seed


def test_values_that_are_close_or_not_above_0_are_interpolated_as_they_are():
    for values in [(0.0, 1.0), (0.5, 0.9)]:
        assert last_crossing(values, [1.0, -1.0]) == pytest.approx(sum(values) / 2)
    assert last_crossing((1.0, 4.0), [1.0, -1.0]) == pytest.approx(2)


def test_half_is_of_the_pretrained_model_at_the_same_value():
    method, pretrained = [0.6, 0.35, 0.3], [0.6, 0.8, 1.0]  # excess .3, -.05
    found = halving(by_seed(method), by_seed(pretrained))
    assert found.estimate == pytest.approx(10 * 4 ** (0.3 / 0.35))


def test_the_last_of_several_crossings_counts_and_reliance_that_comes_back_is_not_halved():
    values, pretrained = (10, 20, 40, 80), [0.8] * 4
    found = halving(by_seed([0.2, 0.6, 0.5, 0.3], values=values), by_seed(pretrained, values=values))
    assert found.estimate == pytest.approx(40 * sqrt(2))
    assert halving(by_seed([0.6, 0.2, 0.7]), by_seed([0.8] * 3)).estimate == inf


@pytest.mark.parametrize(("method", "expected"), [([0.4, 0.1, 0.1], -inf), ([0.5, 0.45, 0.41], inf)])
def test_what_lies_outside_the_axis_is_not_extrapolated(method, expected):
    assert halving(by_seed(method), by_seed([0.8, 0.8, 0.8])).estimate == expected


def test_without_a_hold_or_a_second_point_there_is_nothing_to_halve():
    assert halving(by_seed([0.1, 0.1, 0.1]), by_seed([0.3, 0.0, 0.3])) is None
    assert halving({10: {0: 0.3}}, {10: {0: 0.8}}) is None


# --- seeds


def test_a_method_is_compared_with_the_pretrained_models_of_its_own_seeds():
    method, pretrained = by_seed([0.8, 0.2, 0.2]), by_seed([0.8, 0.8, 0.8], [0.1, 0.1, 0.1])
    assert halving(method, pretrained).seeds == (0,)
    assert halving(method, pretrained).estimate == pytest.approx(10 * 4 ** (0.4 / 0.6))


def test_only_seeds_that_all_values_have_are_averaged():
    method = by_seed([0.8, 0.6, 0.2], [0.8, 0.6, 0.2])
    del method[40][1]
    found = halving(method, by_seed([0.8] * 3, [0.4] * 3))
    assert (found.seeds, found.estimate) == ((0,), pytest.approx(80))


def test_the_interval_is_that_of_resampled_seeds_whose_models_stay_together():
    draw = np.random.default_rng(3)
    start = draw.uniform(0.5, 1, (6, 1)) * np.ones(3)
    method = start * [1.0, 0.7, 0.2] + draw.normal(0, 0.08, (6, 3))
    found = halving(by_seed(*method), by_seed(*start))

    estimates = []
    for _ in range(4000):
        rows = draw.integers(6, size=6)
        excess = method[rows].mean(0) - start[rows].mean(0) / 2
        left = 1 if excess[1] > 0 else 0
        share = excess[left] / (excess[left] - excess[left + 1])
        estimates.append(SIZES[left] * 4**share)
    low, high = np.quantile(estimates, [0.025, 0.975])
    assert np.log(found.interval) == pytest.approx(np.log([low, high]), abs=0.05)
    assert found.interval == halving(by_seed(*method), by_seed(*start)).interval  # no chance in it
    # Were the two models of a seed resampled apart, the interval would be wider: these differ between seeds alone.
    scaled = halving(by_seed(*(start * [1.0, 0.7, 0.2])), by_seed(*start))
    assert scaled.interval == (pytest.approx(scaled.estimate), pytest.approx(scaled.estimate))


def test_a_bound_of_the_interval_can_lie_outside_the_axis():
    found = halving(by_seed([0.8, 0.6, 0.2], [0.8, 0.8, 0.8]), by_seed([0.8] * 3, [0.8] * 3))
    assert found.interval[1] == inf and SIZES[1] < found.interval[0] < SIZES[2]


# --- records and reports


@pytest.fixture
def curves():
    """Return curves of two methods at three sizes, from records: one halves the hold at 20, the other never does."""
    points, cells, models = [], [], []
    for size, reliance in zip(SIZES, (0.6, 0.2, 0.1), strict=True):
        own = []
        for seed, (method, level) in [(s, m) for s in (0, 1) for m in (("cut", reliance), ("keep", 0.8))]:
            data = DataSettings(clean_images=size)
            accuracy = (0.5 + size / 1000, 0.9, 0.9, 0.1 + 0.9 * level)
            own.append(cell_record(seed, method, accuracy=accuracy, data=data))
            models.append(pretrain_record(seed, accuracy=(0.5, 0.9, 0.4, 0.1 + 0.9 * 0.8), data=data))
        points.append(({"data.clean_images": size, "cut.mode": "plain"}, [record.cell for record in own]))
        cells += own
    return axis_curves(points, cells, models)


def test_curves_follow_the_axes_of_numbers_alone(curves):
    (found,) = curves
    assert (found.axis, found.dataset, list(found.scores)) == (
        *("data.clean_images", "digits (cut.mode=plain)"),
        ["pretrained", "cut", "keep"],
    )
    assert found.values == list(SIZES)
    assert [one.mean for one in found.along("cut", "cue_reliance").values()] == pytest.approx([0.6, 0.2, 0.1])


def without(curves, method, *points):
    """Return curves in which a method lacks these (value, seed)."""
    scores = {
        value: {seed: one for seed, one in own.items() if (value, seed) not in points}
        for value, own in curves.scores[method].items()
    }
    return replace(curves, scores={**curves.scores, method: scores})


def test_a_row_over_fewer_seeds_names_them_and_all_its_numbers_are_theirs(curves):
    (whole,) = curves
    uneven = {**whole.scores["cut"], 160: dict(whole.scores["cut"][160])}
    uneven[10] = {0: uneven[10][0], 1: {**uneven[10][1], "cue_reliance": 0.9, "NC": 0.9}}
    found = without(replace(whole, scores={**whole.scores, "cut": uneven}), "cut", (160, 1))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render([found], "md").splitlines()]
    assert ["cut (seeds 0)", "20", "–", "52.5", "0.60", "0.20", "0.10"] in lines
    assert "over seeds 0 1)" in render([found], "md") and "keep (seeds" not in render([found], "md")


def test_a_method_whose_values_have_no_seed_in_common_shows_what_there_is_and_says_so(curves):
    found = without(curves[0], "cut", (10, 0), (40, 1), (160, 1))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render([found], "md").splitlines()]
    assert ["cut (other seeds at each value)", "–", "–", "–", "0.60", "0.20", "0.10"] in lines


def test_every_format_says_what_lies_outside_the_axis(curves):
    markdown = render(curves, "md").splitlines()
    assert [cell.strip() for cell in markdown[-2].split("|")[1:5]] == ["cut", "20", "20", "52.5"]
    assert [cell.strip() for cell in markdown[-1].split("|")[1:5]] == ["keep", "> 160", "> 160", "–"]
    lines = list(csv.DictReader(io.StringIO(render(curves, "csv"))))
    assert [(line["method"], line["halved_at_is"], line["high_is"]) for line in lines] == [
        ("cut", "at", "at"),
        ("keep", "above", "above"),
    ]
    cut, keep = json.loads(render(curves, "json"))
    assert cut["halved_at"] == pytest.approx(sqrt(10 * 40)) and keep["halved_at"] == 160 and cut["seeds"] == [0, 1]
    assert (cut["NC"], keep["NC"]) == (pytest.approx(0.525), None)  # half of the way from .51 to .54
    below = [replace(curves[0], scores={**curves[0].scores, "keep": _at_once(curves[0].scores["cut"])})]
    assert "≤ 10" in render(below, "md") and json.loads(render(below, "json"))[1]["halved_at_is"] == "at most"


def _at_once(scores):
    return {x: {s: {**own, "cue_reliance": 0.0} for s, own in seeds.items()} for x, seeds in scores.items()}
