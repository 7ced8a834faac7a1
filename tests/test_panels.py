"""Panels over cue rates: their rows, columns, colours, marks, scales and numbers."""

import math
import statistics
from itertools import pairwise

import pytest
from helpers.panels import (
    NAMES,
    PATHS,
    RATES,
    cell,
    curves_in,
    grid_of,
    lines_of,
    marks_in,
    model,
    only,
    pair,
    value,
)
from helpers.records import connectivity_record, flat, plugin, pretrain_record
from matplotlib.colors import to_rgb

from mmc_bench.report.curves import panels_of_cells, panels_of_learning, panels_of_pairs, path_csv
from mmc_bench.report.figures import draw_path
from mmc_bench.report.groups import group_cells, group_models, group_pairs
from mmc_bench.report.panels import draw_panels
from mmc_bench.results.metrics import SPLITS, Score
from mmc_bench.results.settings import ConnectSettings

# --- pairs


@pytest.fixture(scope="module")
def pair_panels():
    return panels_of_pairs(only(group_pairs([pair(rate) for rate in RATES])))


@pytest.fixture(scope="module")
def figure(pair_panels):
    return draw_panels(pair_panels[0])


@pytest.fixture(scope="module")
def grid(figure, pair_panels):
    return grid_of(figure, pair_panels[0])


@pytest.mark.slow
def test_rows_are_paths_in_the_settings_order_and_columns_splits(grid, pair_panels):
    assert pair_panels[0].rows == NAMES
    assert [axes[0].get_ylabel().replace("\n", " ") for axes in grid] == list(NAMES)
    titles = ["NC (no cue)", "C (cue)", "RC (randomised cue)", "RI (randomised image)"]
    assert [axes.get_title() for axes in grid[0]] == titles


@pytest.mark.slow
def test_every_drawn_point_is_the_record_s_and_stands_in_its_panel(grid):
    for row, path in zip(grid, PATHS, strict=True):
        for axes, split in zip(row, SPLITS, strict=True):
            drawn = {line.get_label(): list(line.get_ydata()) for line in curves_in(axes)}
            wanted = {f"{rate:g}": [100 * value(rate, 0, path, split, t) for t in range(3)] for rate in RATES}
            assert drawn == {label: pytest.approx(points) for label, points in wanted.items()}
            assert list(axes.get_lines()[0].get_xdata()) == [0, 0.5, 1]


def test_a_cue_rate_is_one_colour_and_marker_everywhere_and_the_higher_the_darker(figure):
    looks = {
        (line.get_label(), line.get_color(), line.get_marker()) for axes in figure.axes for line in curves_in(axes)
    }
    assert len(looks) == len({marker for _, _, marker in looks}) == len(RATES)
    brightness = [
        sum(weight * part for weight, part in zip((0.3, 0.59, 0.11), to_rgb(color), strict=True))
        for _, color, _ in sorted(looks, key=lambda look: float(look[0]))
    ]
    assert brightness == sorted(brightness, reverse=True)
    assert min(high - low for high, low in pairwise(brightness)) > 0.1
    legend = only(figure.legends)
    assert legend.get_title().get_text() == "cue rate"
    texts = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert texts == ["0.6", "0.8", "1", "checkpoint with its own BatchNorm statistics", "chance"]


def test_the_csv_has_every_point_of_every_record(pair_panels):
    lines = lines_of(pair_panels[0].as_csv())
    assert len(lines) == len(PATHS) * len(SPLITS) * len(RATES) * 3
    for line in lines:
        path, t = PATHS[NAMES.index(line["row"])], int(2 * float(line["t"]))
        assert float(line["accuracy"]) == value(float(line["cue_rate"]), 0, path, line["column"], t)
        assert (line["accuracy_std"], line["seeds"]) == ("", "0-1")


def test_training_images_have_a_figure_of_their_own_where_they_were_measured(pair_panels):
    on_test, on_train = pair_panels
    assert (on_test.part, on_train.part) == ("test", "training")
    assert float(lines_of(on_train.as_csv())[0]["accuracy"]) == value("train", 0.6, 0, "quadratic", "NC", 0)
    assert len(panels_of_pairs(only(group_pairs([pair(0.6, train=False)])))) == 1


def test_several_seeds_are_a_mean_and_a_band_of_one_deviation():
    panels = panels_of_pairs(only(group_pairs([pair(0.6, seed, False, ["linear"]) for seed in (0, 2, 4)])))[0]
    points = [value(0.6, seed, "linear", "RC", 1) for seed in (0, 2, 4)]
    line = next(
        line
        for line in lines_of(panels.as_csv())
        if (line["row"], line["column"], line["t"]) == ("linear", "RC", "0.5")
    )
    mean, std = statistics.mean(points), statistics.stdev(points)
    assert (float(line["accuracy"]), float(line["accuracy_std"])) == pytest.approx((mean, std))
    assert line["seeds"] == "0-1 2-3 4-5"
    axes = grid_of(draw_panels(panels), panels)[0][2]
    assert axes.get_lines()[0].get_ydata()[1] == pytest.approx(100 * mean)
    band = only(axes.collections).get_paths()[0].vertices
    middle = [y for x, y in band if x == 0.5]
    assert (min(middle), max(middle)) == pytest.approx((100 * (mean - std), 100 * (mean + std)))


def test_pairs_with_other_partners_or_settings_are_drawn_apart_and_told_apart():
    same_rate = [pair(rate, second={"seed": 9}, train=False) for rate in (0.6, 0.8)]
    finer = pair(0.6, train=False, connect=ConnectSettings(paths=PATHS, points=21))
    groups = group_pairs([pair(0.6, train=False), pair(0.8, train=False), *same_rate, finer])
    assert sorted((len(group.records), group.partner) for group in groups) == [
        (1, "of cue rate 0"),
        (2, "of cue rate 0"),
        (2, "of the same cue rate"),
    ]
    labels = {group.dataset for group in groups if group.partner == "of cue rate 0"}
    assert labels == {"digits (points=11)", "digits (points=21)"}


OWN = {f"{part}{split}": (value(part, split, 0), value(part, split, 1)) for part in ("", "train ") for split in SPLITS}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "part"), [(0, ""), (1, "train ")])
def test_checkpoints_own_scores_are_marks_of_their_own_and_lines_of_the_csv(place, part):
    panels = panels_of_pairs(only(group_pairs([pair(0.6, own=OWN), pair(0.8, own=OWN)])))[place]
    accuracies, losses = ([*draw_panels(panels, measure).axes] for measure in ("accuracy", "loss"))
    for index, split in [
        (row * len(SPLITS) + column, split) for row in range(4) for column, split in enumerate(SPLITS)
    ]:
        ends = OWN[part + split]
        for axes, wanted in ((accuracies, [100 * a for a in ends]), (losses, [2 * (1 - a) for a in ends])):
            marks = marks_in(axes[index])
            assert marks.keys() == {"0.6, own", "0.8, own"}
            assert marks["0.8, own"] == [(0, pytest.approx(wanted[0])), (1, pytest.approx(wanted[1]))]
    own = [line for line in lines_of(panels.as_csv(), "own") if (line["row"], line["cue_rate"]) == ("linear", "0.6")]
    found = [(line["column"], float(line["t"]), float(line["accuracy"])) for line in own]
    assert found == [(split, t, OWN[part + split][t]) for split in SPLITS for t in (0, 1)]


@pytest.mark.slow
def test_records_without_own_scores_on_an_image_set_have_no_marks_there():
    on_train = panels_of_pairs(only(group_pairs([pair(0.6)])))[1]
    figure = draw_panels(on_train)
    assert lines_of(on_train.as_csv(), "own") == [] and not any(map(marks_in, figure.axes))
    assert [text.get_text() for text in only(figure.legends).get_texts()] == ["0.6", "chance"]


@pytest.mark.slow
def test_losses_are_panels_of_their_own_with_the_loss_of_guessing_as_a_line(pair_panels):
    figure = draw_panels(pair_panels[0], "loss")
    assert figure._supylabel.get_text() == "test loss (nats)"
    for row, path in zip(grid_of(figure, pair_panels[0]), PATHS, strict=True):
        for axes, split in zip(row, SPLITS, strict=True):
            drawn = {line.get_label(): list(line.get_ydata()) for line in curves_in(axes)}
            wanted = {f"{rate:g}": [2 - 2 * value(rate, 0, path, split, t) for t in range(3)] for rate in RATES}
            assert drawn == {label: pytest.approx(points) for label, points in wanted.items()}
            assert axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0
            assert any(list(line.get_ydata()) == [math.log(10)] * 2 for line in axes.get_lines())
    for line in lines_of(pair_panels[0].as_csv()):
        assert float(line["loss"]) == pytest.approx(2 - 2 * float(line["accuracy"]))


@pytest.mark.slow
@pytest.mark.parametrize("height", [8.0, 300.0, 1e5, 1e300])
def test_a_loss_far_above_chance_leaves_room_for_those_below(height):
    steep = cell(0.6, "tune", paths=["linear"])
    path = connectivity_record(flat(), losses={"NC": [0.1, height, 0.5]})
    steep = steep.model_copy(update={"paths": {"linear": steep.paths["linear"].model_copy(update={"test": path})}})
    panels = panels_of_cells(only(group_cells([steep, cell(0.8, "tune", paths=["linear"])])))[0]
    for figure in (draw_panels(panels, "loss"), draw_path(steep, "one")):
        figure.draw_without_rendering()
        axes = next(axes for axes in figure.axes if axes.get_yscale() == "symlog")
        bottom, chance, top = axes.transData.transform([(0, 0), (0, math.log(10)), (0, height)])[:, 1]
        assert 0.3 < (chance - bottom) / axes.bbox.height < 0.8 or height == 1e300
        assert top < axes.bbox.y1
        labels = [float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in axes.get_yticklabels()]
        assert labels[:2] == [0, 1] and 3 <= len(labels) <= 8 and labels == list(axes.get_yticks())
        words = [figure._supylabel.get_text() if figure._supylabel else "", *(a.get_ylabel() for a in figure.axes)]
        assert any("logarithmic above chance" in word for word in words)


@pytest.mark.slow
def test_no_text_is_clipped_or_covered(figure):
    long = "a-method-with-a-long-name (schedule=steps, epochs=100)"
    records = [cell(rate, name) for rate in RATES for name in ("short", long)]
    others = panels_of_cells(only(group_cells(records)))[:1] + panels_of_learning(group_models([model(0.6)]))
    losses = draw_panels(others[0], "loss")
    for drawn in [figure, losses, *map(draw_panels, others)]:
        drawn.draw_without_rendering()
        texts = [drawn._suptitle, drawn._supxlabel, drawn._supylabel]
        boxes = [text.get_window_extent() for text in texts]
        boxes += [axes.get_tightbbox() for axes in drawn.axes] + [only(drawn.legends).get_window_extent()]
        for box in boxes:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= drawn.bbox.x1 and box.y1 <= drawn.bbox.y1
        overlaps = [
            (one, other) for index, one in enumerate(boxes) for other in boxes[index + 1 :] if one.overlaps(other)
        ]
        assert overlaps == []


# --- cells


def test_cells_have_a_figure_for_each_path_with_methods_as_rows():
    records = [cell(rate, method) for rate in RATES for method in ("large", "small")]
    panels = panels_of_cells(only(group_cells(records)))
    assert [(item.rows, item.columns, item.cue_rates) for item in panels] == [
        (("large", "small"), SPLITS, list(RATES))
    ] * 2
    assert [item.title.rpartition(": ")[2] for item in panels] == ["linear paths", "linear (permuted) paths"]
    line = lines_of(panels[1].as_csv())[-1]
    assert (line["row"], line["column"], float(line["accuracy"])) == (
        "small",
        "RI",
        value(1.0, 0, "small", "permuted", "RI", 2),
    )


def test_variants_of_a_method_are_rows_told_apart_and_seeds_are_averaged():
    records = [cell(0.6, plugin("tune", lr=lr), seed) for lr in (0.1, 0.2) for seed in (0, 1)]
    panels = panels_of_cells(only(group_cells(records)))[0]
    assert panels.rows == ("tune (lr=0.1)", "tune (lr=0.2)")
    assert {line.seeds for line in panels.lines} == {("0", "1")}
    wanted = statistics.mean(value(0.6, seed, {"lr": 0.1}, "linear", "NC", 0) for seed in (0, 1))
    assert panels.lines[0].values["accuracy"].mean[0] == pytest.approx(wanted)


def test_straight_paths_at_one_cue_rate_are_left_to_each_cell_s_own_figure():
    alone = [cell(0.6, method, paths=("linear",)) for method in ("large", "small")]
    assert panels_of_cells(only(group_cells(alone))) == []
    more = [*alone, cell(0.8, "small", paths=("linear",))]
    assert len(panels_of_cells(only(group_cells(more)))) == 1


def test_the_own_scores_of_cells_are_those_of_the_pretrained_and_of_the_fine_tuned_model():
    records = [cell(rate, "tune", seed, accuracy=(0.9, 0.8, 0.7, 0.2)) for rate in RATES for seed in (0, 1)]
    before = [pretrain_record(1, accuracy=(0.5, 0.9, 0.4, 0.8), cue_rate=rate) for rate in RATES]
    panels = panels_of_cells(only(group_cells(records)), before)[0]
    own = [line for line in lines_of(panels.as_csv(), "own") if line["cue_rate"] == "0.8"]
    found = [(line["column"], line["seeds"], float(line["t"]), float(line["accuracy"])) for line in own]
    assert found == [
        (split, "1", t, ends[t])  # the model of seed 0 has no record
        for split, ends in zip(SPLITS, ((0.5, 0.9), (0.9, 0.8), (0.4, 0.7), (0.8, 0.2)), strict=True)
        for t in (0, 1)
    ]
    figure = draw_path(records[1], "one", before[0])

    def marks_on(drawn):
        return [line for line in drawn.axes[0].get_lines() if line.get_linestyle() == "None"]

    marks = marks_on(figure)
    assert [list(line.get_ydata()) for line in marks] == [[50, 90], [90, 80], [40, 70], [80, 20]]
    assert "own BatchNorm statistics" in only(figure.legends).get_texts()[-1].get_text()
    assert (
        len([line for line in draw_path(records[0], "one").axes[0].get_lines() if line.get_linestyle() == "None"]) == 0
    )


def test_paths_that_were_measured_in_different_ways_are_not_averaged():
    groups = group_pairs([pair(0.6, train=False), pair(0.6, train=False, version="2")])
    assert [len(group.records) for group in groups] == [1, 1]
    assert len({group.dataset for group in groups}) == 2


# --- learning curves


def test_learning_curves_are_a_figure_for_each_backbone_with_data_sets_as_rows():
    models = [
        model(rate, dataset=plugin(dataset), backbone=plugin(backbone))
        for backbone in ("deep", "wide")
        for dataset in ("letters", "digits")
        for rate in RATES
    ]
    panels = panels_of_learning(group_models(models))
    assert [item.title for item in panels] == ["deep: pretraining", "wide: pretraining"]
    assert all(item.rows == ("letters", "digits") for item in panels)
    grid = grid_of(draw_panels(panels[0]), panels[0])
    titles = ["training accuracy", "test accuracy, NC (no cue)", "test accuracy, C (cue)"]
    assert [axes.get_title().replace("\n", " ") for axes in grid[0]] == titles
    drawn = grid[1][1].get_lines()[2]
    assert list(drawn.get_xdata()) == [1, 2, 3]
    assert list(drawn.get_ydata()) == pytest.approx([100 * value(1.0, 0, epoch, "NC") for epoch in range(3)])
    for line in lines_of(panels[0].as_csv()):
        assert float(line["accuracy"]) == value(float(line["cue_rate"]), 0, int(line["epoch"]) - 1, line["column"])


def test_learning_curves_on_one_data_set_have_backbones_as_rows():
    panels = only(panels_of_learning(group_models([model(0.6, backbone=plugin(name)) for name in ("deep", "wide")])))
    assert (panels.rows, panels.title) == (("deep", "wide"), "digits: pretraining")


def test_models_without_a_curve_draw_none():
    assert panels_of_learning(group_models([pretrain_record()])) == []
    panels = only(panels_of_learning(group_models([model(0.6), pretrain_record(cue_rate=0.0)])))
    assert panels.cue_rates == [0.6]


# --- numbers alone


def test_the_points_of_one_path_are_written_with_their_losses():
    path = connectivity_record(flat(0.9, C=[1.0, 0.25, 0.5]))
    text = path_csv(path, {"C": (Score(accuracy=0.75, loss=3), Score(accuracy=0.125, loss=4))})
    lines = [line for line in lines_of(text) if line["split"] == "C"]
    assert [(float(line["t"]), float(line["accuracy"]), float(line["loss"])) for line in lines] == [
        (0, 1, 0),
        (0.5, 0.25, 1.5),
        (1, 0.5, 1),
    ]
    own = [
        (line["split"], *(float(line[name]) for name in ("t", "accuracy", "loss"))) for line in lines_of(text, "own")
    ]
    assert own == [("C", 0, 0.75, 3), ("C", 1, 0.125, 4)]
