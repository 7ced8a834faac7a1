"""Records as table rows: statistics over seeds, what is never averaged, and the five formats."""

import csv
import io
import json
import random
import re

import numpy as np
import pytest
from helpers.records import cell_record, flat, plugin, pretrain_record, with_paths

from mmc_bench.report.row_tables import render
from mmc_bench.report.rows import COLUMNS, cell_names, cue_reliance, make_rows
from mmc_bench.results.settings import ConnectSettings, DataSettings, Recipe

# --- statistics


def test_rows_have_mean_and_sample_standard_deviation_over_seeds():
    draw = np.random.default_rng(0)
    seeds = [4, 1, 8, 0, 3]
    accuracy, barriers = draw.uniform(0.1, 1, (5, 4)), draw.uniform(-0.2, 3, (5, 2))
    seconds = draw.uniform(1, 100, 5)
    records = [
        cell_record(seed, accuracy=a, barriers=b, seconds=s)
        for seed, a, b, s in zip(seeds, accuracy, barriers, seconds, strict=True)
    ]
    (row,) = make_rows(records, [])
    nc, c, rc, ri = accuracy.T
    worst = [min(a[0], a[1], a[2]) for a in accuracy]
    expected = {
        "NC": nc,
        "C": c,
        "RC": rc,
        "RI": ri,
        "worst_split": worst,
        "cue_reliance": (ri - 0.1) / 0.9,
        "barrier_C": barriers[:, 0],
        "barrier_NC": barriers[:, 1],
        "seconds": seconds,
    }
    assert tuple(expected) == COLUMNS == tuple(row.values)
    for name, values in expected.items():
        assert row.values[name].mean == pytest.approx(np.mean(values)), name
        assert row.values[name].std == pytest.approx(np.std(values, ddof=1)), name
    assert row.seeds == (0, 1, 3, 4, 8)


def test_one_seed_has_no_deviation():
    (row,) = make_rows([cell_record(3)], [])
    assert row.seeds == (3,)
    assert row.values["NC"].mean == 0.9
    assert {value.std for value in row.values.values()} == {None}


@pytest.mark.parametrize(
    ("ri", "num_classes", "reliance"),
    [(0.1, 10, 0), (1, 10, 1), (0.55, 10, 0.5), (0, 10, -1 / 9), (0.5, 2, 0), (0.75, 2, 0.5), (0.25, 4, 0)],
)
def test_cue_reliance_is_0_at_chance_and_1_when_the_cue_decides_alone(ri, num_classes, reliance):
    assert cue_reliance(ri, num_classes) == pytest.approx(reliance)
    (row,) = make_rows([cell_record(accuracy=(1, 1, 1, ri), num_classes=num_classes)], [])
    assert row.values["cue_reliance"].mean == pytest.approx(reliance)


def test_the_worst_split_is_each_seed_s_own_and_never_ri():
    records = [cell_record(0, accuracy=(0.9, 0.5, 0.8, 0.1)), cell_record(1, accuracy=(0.9, 0.8, 0.3, 0.1))]
    (row,) = make_rows(records, [])
    assert row.values["worst_split"].mean == pytest.approx(0.4)  # the worst of the means would be .55


def test_the_pretrained_model_has_scores_and_seconds_of_its_own_and_no_barrier():
    records = [pretrain_record(seed, accuracy=(0.5, 0.9 + seed / 10, 0.4, 0.8), seconds=seed + 5) for seed in (0, 1)]
    (row,) = make_rows([], records)
    assert (row.method, row.seeds) == ("pretrained", (0, 1))
    assert row.values["C"].mean == pytest.approx(0.95)
    assert row.values["seconds"].mean == 5.5
    assert row.values["barrier_C"] is row.values["barrier_NC"] is None


# --- which rows


def test_the_pretrained_model_is_first_in_every_setting_and_methods_keep_their_order():
    settings = [{"cue_rate": 0.9}, {"cue_rate": 0.5}]
    cells = [cell_record(seed, method, **s) for s in settings for seed in (0, 1) for method in ("b", "a", "c")]
    pretrained = [pretrain_record(seed, **setting) for setting in settings for seed in (0, 1)]
    rows = make_rows(cells, pretrained)
    assert [(row.cue_rate, row.method) for row in rows] == [
        (rate, method) for rate in (0.9, 0.5) for method in ("pretrained", "b", "a", "c")
    ]
    assert all(row.seeds == (0, 1) for row in rows)


def test_the_order_of_the_records_changes_no_number():
    records = [cell_record(seed, accuracy=(0.9, seed / 10, 0.7, 0.2)) for seed in range(6)]
    shuffled = random.Random(1).sample(records, 6)
    assert make_rows(records, []) == make_rows(shuffled, [])


DIFFERENT_METHODS = {
    "parameter": ({"method": plugin("tune", lr=0.5)}, {"method": plugin("tune", lr=0.25)}, "lr=0.25"),
    "parameter given or not": ({"method": plugin("tune")}, {"method": plugin("tune", lr=0.5)}, "lr=0.5"),
    "parameter null or not given": ({"method": plugin("tune")}, {"method": plugin("tune", lr=None)}, "lr=None"),
    "nested parameter": (
        {"method": plugin("tune", sam={"rho": 1})},
        {"method": plugin("tune", sam={"rho": 2})},
        "sam.rho=2",
    ),
    "version": ({}, {"method": plugin("tune", version="2+def")}, "version=2+def"),
    "distribution": ({}, {"method": plugin("tune", distribution="other")}, "distribution=other"),
    "path": ({}, {"connect": ConnectSettings(points=5)}, "points=5"),
    "version of fine-tuning": ({}, {"stages": {"fine-tune": "2"}}, "stages.fine-tune=2"),
    "version of the paths": ({}, {"stages": {"connect": "1+def"}}, "stages.connect=1+def"),
    "version of the scores": ({}, {"stages": {"score": "2"}}, "stages.score=2"),
}
DIFFERENT_SETTINGS = {
    "recipe": ({}, {"recipe": Recipe(epochs=7)}, "epochs=7"),
    "two things": ({}, {"recipe": Recipe(epochs=7), "data": DataSettings(clean_images=9)}, "clean_images=9, epochs=7"),
    "images": ({}, {"images": {"digits": "folder:abc"}}, "digits=folder:abc"),
    "dataset's version": ({}, {"dataset": plugin("digits", version="2+def")}, "dataset.version=2+def"),
    "dataset's parameter": ({}, {"dataset": plugin("digits", size=3)}, "dataset.size=3"),
    "backbone's version": ({}, {"backbone": plugin("net", version="2+def")}, "backbone.version=2+def"),
    "backbone's parameter": ({}, {"backbone": plugin("net", depth=3)}, "backbone.depth=3"),
}


@pytest.mark.parametrize("difference", DIFFERENT_METHODS)
def test_methods_that_differ_in_more_than_the_seed_never_share_a_row(difference):
    one, two, note = DIFFERENT_METHODS[difference]
    records = [cell_record(0, **one), cell_record(1, **two), cell_record(2, **one)]
    rows = make_rows(records, [pretrain_record(seed) for seed in range(3)])
    assert [row.seeds for row in rows] == [(0, 1, 2), (0, 2), (1,)]
    first, second = (row.method for row in rows[1:])
    assert first != second and second == f"tune ({note})"


def test_barriers_are_unknown_where_only_the_ends_of_a_path_were_measured():
    ends = cell_record(0)
    ends = with_paths(ends, {"linear": flat(points=2)})
    (row,) = make_rows([ends], [])
    assert row.values["barrier_C"] is None is row.values["barrier_NC"]
    (whole,) = make_rows([with_paths(ends, {"linear": flat(points=3)})], [])
    assert whole.values["barrier_C"].mean == 0


def test_no_seed_counts_twice_after_a_stage_of_the_core_has_changed():
    versions = ({}, {"connect": "2"}, {"fine-tune": "2"})
    records = [cell_record(seed, stages=own) for own in versions for seed in (0, 1, 2)]
    assert [row.seeds for row in make_rows(records, [])] == [(0, 1, 2)] * 3
    assert len({label for _, label in cell_names(records).values()}) == 3


@pytest.mark.parametrize("difference", DIFFERENT_SETTINGS)
def test_settings_that_differ_in_more_than_the_seed_never_share_a_row(difference):
    one, two, note = DIFFERENT_SETTINGS[difference]
    cells = [cell_record(0, **one), cell_record(1, **two), cell_record(2, **one)]
    pretrained = [pretrain_record(0, **one), pretrain_record(1, **two), pretrain_record(2, **one)]
    rows = make_rows(cells, pretrained)
    assert [(row.method, row.seeds) for row in rows] == [
        ("pretrained", (0, 2)),
        ("tune", (0, 2)),
        ("pretrained", (1,)),
        ("tune", (1,)),
    ]
    assert rows[1].dataset == rows[0].dataset != rows[2].dataset == rows[3].dataset == f"digits ({note})"


def test_what_differs_is_told_only_of_those_that_would_look_alike():
    records = [cell_record(method=plugin("a", lr=0.5)), cell_record(method=plugin("b", lr=0.25))]
    assert [row.method for row in make_rows(records, [])] == ["a", "b"]


def test_settings_that_show_their_difference_anyway_need_no_note():
    cells = [cell_record(cue_rate=0.5), cell_record(cue_rate=0.25), cell_record(backbone=plugin("other"))]
    assert [(row.dataset, row.backbone, row.cue_rate) for row in make_rows(cells, [])] == [
        ("digits", "net", 0.5),
        ("digits", "net", 0.25),
        ("digits", "other", 0.9),
    ]


# --- formats


@pytest.fixture
def rows():
    """Return the rows of a pretrained model with three seeds, a method with three and one with seed 1 missing."""
    pretrained = [pretrain_record(seed, accuracy=(0.5, 0.9, 0.4, 0.1 * seed)) for seed in (0, 1, 2)]
    full = [cell_record(seed, "full", accuracy=(0.9, 0.8, 0.7, 0.1), barriers=(-0.0001, seed)) for seed in (0, 1, 2)]
    partial = [cell_record(seed, "partial", accuracy=(0.5 + 0.25 * seed, 0.8, 0.7, 0.2)) for seed in (0, 2)]
    return make_rows([*full, *partial], pretrained)


def markdown_cells(text):
    """Return the words of a Markdown table, row by row, without the line of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[word.strip() for word in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if "---" not in line]


def test_markdown_has_per_cents_with_deviations_and_says_which_seeds(rows):
    text = render(rows, "md")
    assert text.startswith("**digits · net · cue rate 0.9** (mean ± standard deviation over seeds 0 1 2)\n\n|")
    header, pretrained, full, partial = markdown_cells(text)
    assert header == [
        *("method", "NC", "C", "RC", "RI", "worst split", "cue reliance", "barrier C", "barrier NC", "seconds")
    ]
    assert pretrained[0] == "pretrained"
    assert pretrained[4] == "10.0 ± 10.0" and pretrained[6] == "0.00 ± 0.11"
    assert pretrained[7:9] == ["–", "–"]
    assert full[0] == "full"
    assert full[7:] == ["0.00 ± 0.00", "1.00 ± 1.00", "4.0 ± 0.0"]
    assert partial[0] == "partial (seeds 0 2)"
    assert partial[1] == "75.0 ± 35.4"


@pytest.mark.parametrize("form", ["md", "latex", "html"])
def test_a_missing_seed_is_visible_wherever_people_read(rows, form):
    text = render(rows, form)
    assert "partial (seeds 0 2)" in text and "seeds 0 1 2" in text
    assert "full (seeds" not in text and "pretrained (seeds" not in text


def test_seeds_of_equal_number_are_told_apart():
    rows = make_rows([cell_record(seed, "a") for seed in (0, 1)] + [cell_record(seed, "b") for seed in (0, 2)], [])
    assert [cells[0] for cells in markdown_cells(render(rows, "md"))] == ["method", "a", "b (seeds 0 2)"]


def test_parameters_that_look_alike_have_rows_of_their_own():
    rows = make_rows([cell_record(method=plugin("tune", lr=lr)) for lr in (0.1, "0.1")], [])
    assert [row.method for row in rows] == ["tune (lr=0.1)"] * 2


def test_one_seed_is_called_so():
    text = render(make_rows([cell_record(3)], []), "md")
    assert text.startswith("**digits · net · cue rate 0.9** (seed 3)\n")
    assert "±" not in text


def test_every_setting_has_its_own_table():
    rows = make_rows([cell_record(cue_rate=0.5), cell_record(cue_rate=0.25)], [])
    for form, mark in (("md", "**digits"), ("latex", "\\begin{tabular}"), ("html", "<table")):
        assert render(rows, form).count(mark) == 2


def test_json_has_exactly_the_documented_structure():
    accuracy = (0.75, 0.5, 0.625, 0.25)
    cells = [cell_record(seed, accuracy=accuracy, barriers=(0.5, 0.25), num_classes=2) for seed in (1, 0)]
    rows = json.loads(render(make_rows(cells, [pretrain_record(1, num_classes=2, accuracy=accuracy)]), "json"))
    scores = {"NC": 0.75, "C": 0.5, "RC": 0.625, "RI": 0.25, "worst_split": 0.5, "cue_reliance": -0.5}
    place = {"dataset": "digits", "backbone": "net", "cue_rate": 0.9}
    assert rows == [
        {
            **place,
            "method": "pretrained",
            "seeds": [1],
            **{name: {"mean": value, "std": None} for name, value in scores.items()},
            "barrier_C": None,
            "barrier_NC": None,
            "seconds": {"mean": 9.0, "std": None},
        },
        {
            **place,
            "method": "tune",
            "seeds": [0, 1],
            **{
                name: {"mean": value, "std": 0.0}
                for name, value in {**scores, "barrier_C": 0.5, "barrier_NC": 0.25, "seconds": 4.0}.items()
            },
        },
    ]
    assert list(rows[0]) == ["dataset", "backbone", "cue_rate", "method", "seeds", *COLUMNS]


def test_csv_is_flat_and_loses_no_digit(rows):
    table = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    pairs = [name for column in COLUMNS for name in (column, f"{column}_std")]
    assert list(table[0]) == ["dataset", "backbone", "cue_rate", "method", "seeds", *pairs]
    assert [line["seeds"] for line in table] == ["0 1 2", "0 1 2", "0 2"]
    for row, line in zip(rows, table, strict=True):
        assert (line["dataset"], line["backbone"], line["cue_rate"]) == ("digits", "net", "0.9")
        for name, value in row.values.items():
            if value is None:
                assert line[name] == line[f"{name}_std"] == ""
            else:
                assert (float(line[name]), float(line[f"{name}_std"])) == (value.mean, value.std)


def test_latex_is_a_booktabs_tabular(rows):
    text = render(rows, "latex")
    assert text.startswith(
        "% digits, net, cue rate 0.9, mean ± standard deviation over seeds 0 1 2\n\\begin{tabular}{l"
    )
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(body) == 4 and all(line.count("&") == 9 for line in body)


HOSTILE = "</td><script>alert('x')</script>&|_50%\n\\input{x}\n| a | b |"


@pytest.fixture
def hostile():
    """Return rows whose every name, and a parameter that the label tells, are hostile."""
    dataset, backbone = plugin(HOSTILE), plugin(HOSTILE)
    methods = [plugin(HOSTILE, note=HOSTILE), plugin(HOSTILE, note="none"), plugin("plain")]
    return make_rows([cell_record(method=m, dataset=dataset, backbone=backbone) for m in methods], [])


def test_html_escapes_names_and_parameters(hostile):
    text = render(hostile, "html")
    assert "<script" not in text and text.count("&lt;script&gt;") == 5
    assert set(re.findall(r"</?([a-z0-9]+)", text)) == {"h3", "table", "thead", "tbody", "tr", "th", "td"}
    assert text.count("<td>") == text.count("</td>") == 3 * (1 + len(COLUMNS))


def test_markdown_and_latex_keep_a_row_a_row_whatever_its_name(hostile):
    assert [len(cells) for cells in markdown_cells(render(hostile, "md"))] == [1 + len(COLUMNS)] * 4
    text = render(hostile, "latex")
    lines = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [len(COLUMNS)] * 4
    assert "\\input" not in re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)[_%]", "".join(lines))


def test_csv_and_json_carry_any_name_unchanged(hostile):
    table = list(csv.DictReader(io.StringIO(render(hostile, "csv"))))
    assert [line["method"] for line in table] == [row["method"] for row in json.loads(render(hostile, "json"))]
    assert table[2]["method"] == "plain"
