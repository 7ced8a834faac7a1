"""Rows in their order, confidence intervals, paired comparisons, and that no mean flatters."""

import json
import math
from dataclasses import replace

import pytest
from helpers.leaderboard import TestBoard, cell, model, of_seeds, plugin
from helpers.records import connectivity_record

from mmc_bench.leaderboard.inference import Interval, interval
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import PathRecord
from mmc_bench.results.settings import DataSettings


@pytest.fixture
def board(tmp_path):
    return TestBoard(tmp_path / "board")


def rows(board):
    return {row.label: row for row in board.standings().rows}


def bases():
    """Return cells of the baseline in two settings that count."""
    return [*of_seeds("base", (0.1, 0.2)), *of_seeds("base", (0.1, 0.2), cue_rate=0.5)]


# --- slow and obvious versions


def slow_quantile(degrees):
    """Integrate Student's density by trapezoids until 97.5 % lie below."""
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    step, t, area = 4e-3, 0.0, 0.5
    while area < 0.975:
        low, high = (scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2) for x in (t, t + step))
        area += step * (low + high) / 2
        t += step
    return t


def slow_interval(values):
    mean = 0.0
    for value in values:
        mean += value / len(values)
    squares = 0.0
    for value in values:
        squares += (value - mean) ** 2
    return mean, slow_quantile(len(values) - 1) * math.sqrt(squares / (len(values) - 1)) / math.sqrt(len(values))


@pytest.mark.parametrize(
    "values", [[0.7, 0.8], [0.1, 0.5, 0.3], [0.9, 0.91, 0.87, 0.95, 0.6], [0.01 * i**2 for i in range(10)]]
)
def test_intervals_are_student_s(values):
    mean, half_width = slow_interval(values)
    found = interval(values)
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.half_width == pytest.approx(half_width, abs=1e-3)


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (11, 2.228)])
def test_the_quantiles_are_those_of_printed_tables(n, quantile):
    values = [math.sqrt(n) * (1 if i % 2 else -1) for i in range(n)]
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    assert interval(values).half_width / (deviation / math.sqrt(n)) == pytest.approx(quantile, abs=5e-4)


def test_one_seed_has_no_interval():
    assert interval([0.4]).half_width is None


def test_rows_hold_the_means_over_their_seeds(board):
    board.send_in(*of_seeds("tune", (0.7, 0.8, 0.72)))
    row = rows(board)["tune"]
    mean, half_width = slow_interval([0.7, 0.8, 0.72])
    assert row.worst_split.mean == pytest.approx(mean)
    assert row.worst_split.half_width == pytest.approx(half_width, abs=1e-3)
    assert row.values["cue_reliance"].mean == pytest.approx((0.2 - 0.1) / 0.9)


def test_seconds_are_the_median_over_seeds_which_a_pause_does_not_move(board):
    board.send_in(*(cell(seed, "tune", seconds=seconds) for seed, seconds in enumerate((4.0, 3600.0, 5.0))))
    assert rows(board)["tune"].values["seconds"] == Interval(5.0, None)


def test_the_worst_split_is_taken_seed_by_seed(board):
    """The mean of the minima, which is below the minimum of the means."""
    board.send_in(cell(0, "tune", (0.6, 0.9, 0.9, 0.1)), cell(1, "tune", (0.9, 0.9, 0.6, 0.1)))
    assert rows(board)["tune"].worst_split.mean == pytest.approx(0.6)


def test_the_comparison_is_paired_by_seed(board):
    own, base = (0.7, 0.8, 0.72), (0.5, 0.65, 0.48)
    board.send_in(*of_seeds("tune", own), *of_seeds("base", base))
    paired = rows(board)["tune"].paired
    mean, half_width = slow_interval([a - b for a, b in zip(own, base, strict=True)])
    assert paired.difference.mean == pytest.approx(mean)
    assert paired.difference.half_width == pytest.approx(half_width, abs=1e-3)
    assert (paired.baseline, paired.seeds) == ("base", (0, 1, 2))
    assert rows(board)["base"].paired is None


def test_of_several_baselines_the_best_complete_one_counts(board):
    weak, strong = plugin("base", lr=0.0), plugin("base", lr=0.1)
    board.send_in(
        *of_seeds("tune", (0.7, 0.7)),
        *of_seeds(weak, (0.2, 0.2)),
        *of_seeds(strong, (0.6, 0.6)),
        cell(0, plugin("base", lr=0.2), (0.9, 0.9, 0.8, 0.2)),
    )
    paired = rows(board)["tune"].paired
    assert paired.baseline == "base (lr=0.1)"
    assert paired.difference.mean == pytest.approx(0.1)


# --- order, and means that would flatter


def test_rows_of_a_tier_stand_in_the_order_of_their_mean_worst_split(board):
    board.send_in(*of_seeds("tune", (0.7, 0.7)), *of_seeds("other", (0.6, 0.8)), *of_seeds("base", (0.5, 0.65)))
    found = [(row.method, row.tier) for row in board.standings().rows]
    assert found == [("pretrained", None), ("other", 1), ("tune", 1), ("base", 1)]


def test_a_row_that_lacks_a_seed_has_no_mean_and_no_tier_and_comes_last(board):
    board.send_in(*of_seeds("tune", (0.99,)), *of_seeds("other", (0.3, 0.4)), *of_seeds("base", (0.2, 0.3)))
    ordered = [row for row in board.standings().rows if not row.is_pretrained]
    assert [(row.method, row.tier) for row in ordered] == [("other", 1), ("base", 2), ("tune", None)]
    lacking = ordered[-1]
    assert lacking.missing == (1,)
    assert set(lacking.values.values()) == {None}
    assert lacking.paired is None and not lacking.curves


def test_versions_do_not_fill_each_other_s_gaps(board):
    board.send_in(cell(0, "tune"), cell(1, plugin("tune", version="2+abc")), *of_seeds("base", (0.2, 0.3)))
    found = rows(board)
    assert found["tune (version=1+abc)"].missing == (1,)
    assert found["tune (version=2+abc)"].missing == (0,)
    assert found["base"].tier == 1


def test_a_parameter_given_as_its_default_makes_no_row_of_its_own(board):
    given = cell(1, plugin("tune", lr=0.1))
    default = cell(0, "tune").model_copy(update={"parameters": {"lr": 0.1}})
    board.send_in(given, default)
    assert rows(board)["tune"].seeds == (0, 1)


def test_the_mean_over_all_settings_needs_every_cell(board):
    board.counting(rates=(0.9, 0.5))
    board.send_in(
        *of_seeds("tune", (0.6, 0.7)),
        *of_seeds("tune", (0.8, 0.9), cue_rate=0.5),
        *of_seeds("other", (0.99, 0.99)),
        *of_seeds("half", (0.98, 0.98)),
        *of_seeds("half", (0.98,), cue_rate=0.5),
        *of_seeds("base", (0.1, 0.2)),
        *of_seeds("base", (0.1, 0.2), cue_rate=0.5),
    )
    overall = board.standings().overall
    assert [method.method for method in overall] == ["tune", "base", "half", "other"]
    mean, half_width = slow_interval([(0.6 + 0.8) / 2, (0.7 + 0.9) / 2])
    assert overall[0].mean.mean == pytest.approx(mean)
    assert overall[0].mean.half_width == pytest.approx(half_width, abs=1e-3)
    assert (overall[2].mean, overall[2].missing) == (None, ("digits net 0.5 seed 1",))
    assert (overall[3].mean, overall[3].missing) == (None, ("digits net 0.5",))


def test_one_seed_or_setting_more_than_those_that_count_unranks_nobody(board):
    board.counting()
    board.send_in(
        *of_seeds("tune", (0.6, 0.7, 0.99)),
        *of_seeds("tune", (0.99, 0.99), cue_rate=0.5),
        *of_seeds("other", (0.3, 0.4)),
        *of_seeds("base", (0.1, 0.2, 0.9)),
    )
    found = {row.method: row for row in board.standings().rows if row.setting.cue_rate != 0.5}
    assert all(found[name].tier for name in ("tune", "other", "base"))
    assert found["tune"].seeds == (0, 1) and found["tune"].worst_split.mean == pytest.approx(0.65)
    assert [(m.method, m.mean.mean) for m in board.standings().overall] == [
        ("tune", pytest.approx(0.65)),
        ("other", pytest.approx(0.35)),
        ("base", pytest.approx(0.15)),
    ]


def test_parameters_that_suit_a_setting_do_not_part_a_method(board):
    board.counting(rates=(0.9, 0.5)).send_in(*bases())
    small, large = plugin("tune", batch=64), plugin("tune", batch=256)
    board.send_in(*of_seeds(small, (0.6, 0.7)), *of_seeds(large, (0.8, 0.9), cue_rate=0.5))
    (method,) = (one for one in board.standings().overall if one.method == "tune")
    assert (method.method, method.note, method.settings) == ("tune", "", 2)
    assert method.mean.mean == pytest.approx(0.75)


def test_what_differs_within_a_setting_parts_a_method_in_all_of_them(board):
    board.counting([0], rates=(0.9, 0.5)).send_in(*bases())
    fast, slow = plugin("tune", lr=1.0), plugin("tune", lr=0.1)
    board.send_in(*of_seeds(fast, (0.9,)), *of_seeds(slow, (0.2,)), *of_seeds(slow, (0.3,), cue_rate=0.5))
    overall = {method.note: method for method in board.standings().overall}
    assert overall["lr=0.1"].mean.mean == pytest.approx(0.25)
    assert overall["lr=1.0"].mean is None


def test_a_stranger_s_method_of_the_same_name_is_another(board):
    theirs = plugin("tune", distribution="evil")
    versions = board.root / "versions.yaml"
    versions.write_text(
        versions.read_text().replace('"acme:method:tune"', '"evil:method:tune": {"1+abc": {}}, "acme:method:tune"')
    )
    board.counting([0], rates=(0.9, 0.5)).send_in(*bases())
    board.send_in(*of_seeds("tune", (0.6,)), *of_seeds(theirs, (0.9,), cue_rate=0.5))
    overall = [method for method in board.standings().overall if method.method == "tune"]
    assert {method.note for method in overall} == {"distribution=acme", "distribution=evil"}
    assert all(method.mean is None for method in overall)


@pytest.mark.parametrize("part", ["version", "pretrain version"])
def test_no_mean_over_settings_mixes_versions(board, part):
    board.counting([0], rates=(0.9, 0.5)).send_in(*bases())
    versions = json.loads((board.root / "versions.yaml").read_text())
    versions["stages"]["pretrain"] = ["1", "2"]
    (board.root / "versions.yaml").write_text(json.dumps(versions))
    newer = (
        {"versions": {"pretrain": "2", "score": "1"}}
        if part == "pretrain version"
        else {"method": plugin("tune", version="2+abc")}
    )
    board.send_in(cell(0), cell(0, cue_rate=0.5, **newer))
    overall = [method for method in board.standings().overall if method.method == "tune"]
    assert len(overall) == 2 and len({method.note for method in overall}) == 2
    assert all(method.mean is None and f"{part}=" in method.note for method in overall)


# --- what a stranger sends under the baseline's name


@pytest.mark.parametrize("theirs", [plugin("base", lr=0.3), plugin("base", distribution="evil")], ids=["own", "evil"])
@pytest.mark.parametrize("seeds", [(9,), (0, 1, 2)])
def test_a_cell_under_the_baseline_s_name_unranks_nobody(board, theirs, seeds):
    versions = json.loads((board.root / "versions.yaml").read_text())
    versions["plugins"] |= {"evil:method:base": {"1+abc": {}}}
    (board.root / "versions.yaml").write_text(json.dumps(versions))
    board.counting((0, 1, 2))
    board.send_in(*of_seeds("tune", (0.7,) * 3), *of_seeds("base", (0.5,) * 3))
    board.send_in(*(cell(seed, theirs, (0.9, 0.9, 0.1, 0.2)) for seed in seeds), by="Mal")
    in_tiers = [(row.method, row.tier) for row in board.standings().rows if row.tier]
    assert in_tiers[:2] == [("tune", 1), ("base", 2)]
    (tune,) = (row for row in board.standings().rows if row.method == "tune")
    assert tune.paired.difference.mean == pytest.approx(0.2) and tune.seeds == (0, 1, 2)


def test_a_better_method_of_the_baseline_s_name_but_of_another_distribution_is_no_reference(board):
    versions = json.loads((board.root / "versions.yaml").read_text())
    versions["plugins"] |= {"evil:method:base": {"1+abc": {}}}
    (board.root / "versions.yaml").write_text(json.dumps(versions))
    board.send_in(*of_seeds("tune", (0.7, 0.7)), *of_seeds("base", (0.5, 0.5)))
    board.send_in(*of_seeds(plugin("base", distribution="evil"), (0.95, 0.95)), by="Mal")
    assert rows(board)["tune"].paired.difference.mean == pytest.approx(0.2)


def test_of_settings_that_differ_in_sizes_the_one_with_the_baseline_counts(board):
    board.counting()
    small = {"data": DataSettings(clean_images=5)}
    board.send_in(*of_seeds("tune", (0.9, 0.9), **small), cell(0, "base", **small), by="Mal")
    board.send_in(*of_seeds("tune", (0.7, 0.7)), *of_seeds("base", (0.5, 0.5)), by="Zoe")
    found = board.standings()
    assert {setting.note: setting.place is not None for setting in found.settings} == {
        "clean_images=None": True,
        "clean_images=5": False,
    }
    assert [(one.method, one.mean.mean) for one in found.overall] == [("tune", 0.7), ("base", 0.5)]


def test_a_setting_that_counts_and_has_no_results_leaves_no_mean(board):
    board.counting(rates=(0.9, 0.5))
    board.send_in(*of_seeds("base", (0.5, 0.5)))
    (base,) = board.standings().overall
    assert (base.mean, base.missing) == (None, ("digits net 0.5",))


@pytest.mark.slow
def test_a_row_without_any_seed_that_counts_is_not_shown(board):
    board.counting()
    board.send_in(*of_seeds("base", (0.5, 0.5)), cell(9, "tune"))
    assert {row.method for row in board.standings().rows} == {"pretrained", "base"}
    board.build()
    assert board.problems() == []


def test_rows_of_one_setting_never_share_a_label(board):
    board.send_in(*(cell(0, plugin("tune", **given)) for given in ({}, {"x": {}}, {"y": {}}, {"x": "default"})))
    labels = [row.label for row in board.standings().rows]
    assert len(labels) == 5 and len(set(labels)) == 5


# --- comparisons that are none


def test_barriers_are_shown_where_paths_were_measured_as_the_baseline_s(board):
    def measured_at_two_points(record):
        connect = replace(record.cell.connect, points=2)
        changed = replace(record.cell, connect=connect)
        curves = {s: [c.accuracy[0], c.accuracy[-1]] for s, c in record.paths["linear"].test.splits.items()}
        path = connectivity_record(curves, losses={split: [1.0, 1.0] for split in SPLITS})
        return record.model_copy(
            update={"cell": changed, "key": changed.key, "paths": {"linear": PathRecord(test=path)}}
        )

    board.send_in(*of_seeds("tune", (0.7, 0.7)), *of_seeds("base", (0.5, 0.5)))
    board.send_in(*map(measured_at_two_points, of_seeds("other", (0.6, 0.6))))
    found = rows(board)
    assert found["tune"].values["barrier_C"].mean == found["base"].values["barrier_C"].mean == pytest.approx(1)
    assert found["other"].values["barrier_C"] is None and found["other"].values["barrier_NC"] is None
    assert found["other"].tier == 2


def test_a_comparison_says_whether_both_began_with_the_same_weights(board):
    board.send_in(*of_seeds("tune", (0.7, 0.7)), *of_seeds("base", (0.5, 0.5)))
    theirs = [one.model_copy(update={"pretrained_sha256": "1" * 64}) for one in of_seeds("other", (0.6, 0.6))]
    board.send_in(*theirs, models=[model(s).model_copy(update={"weights_sha256": "1" * 64}) for s in (0, 1)])
    assert [rows(board)[name].paired.same_start for name in ("tune", "other")] == [True, False]


def test_settings_that_differ_in_more_than_they_show_are_told_apart(board):
    board.send_in(*of_seeds("tune", (0.6,)), *of_seeds("tune", (0.9,), dataset=plugin("digits", size=5)))
    assert {setting.note for setting in board.standings().settings} == {"dataset.size=default", "dataset.size=5"}


def test_curves_are_means_over_seeds(board):
    board.send_in(cell(0, "tune", middle=0.2), cell(1, "tune", middle=0.5))
    row = rows(board)["tune"]
    accuracy, loss = row.curves["NC"]
    assert row.t == (0, 0.5, 1)
    assert accuracy == pytest.approx((0.5, 0.35, 0.9))
    assert loss == pytest.approx((1, 2, 1))


def test_the_pretrained_row_mixes_no_versions_and_has_those_of_most_seeds(board):
    versions = json.loads((board.root / "versions.yaml").read_text())
    versions["stages"]["pretrain"] = ["1", "2"]
    (board.root / "versions.yaml").write_text(json.dumps(versions))
    board.send_in(cell(0, "tune", versions={"pretrain": "2", "score": "1"}), by="Ann")
    board.send_in(*of_seeds("base", (0.2, 0.3)), by="Zoe")
    row = rows(board)["pretrained"]
    assert row.seeds == (0, 1) and {entry.submission.by for entry in row.entries} == {"Zoe"}


def test_the_pretrained_row_is_made_of_the_first_folder_s(board):
    other = model(0, (0.5, 0.9, 0.41, 0.8)).model_copy(update={"weights_sha256": "1" * 64})
    board.send_in(cell(0, "tune"), by="Ann")
    theirs = cell(0, "base", start=(0.5, 0.9, 0.41, 0.8)).model_copy(update={"pretrained_sha256": "1" * 64})
    added = board.send_in(theirs, by="Zoe", models=[other])
    said = added.folder / "submission.yaml"
    said.write_text(said.read_text().replace("2026", "2020"))  # what a folder says of its day decides nothing
    row = rows(board)["pretrained"]
    assert len(row.entries) == 1
    assert row.tier is None and row.worst_split.mean == pytest.approx(0.4)
