"""The payload, Markdown and CSV of a leaderboard: who stands behind a row, and names that would do harm."""

import csv
import io
import json
import re
import tomllib
from pathlib import Path

import pytest
from helpers.leaderboard import TestBoard, cell, model, of_seeds, plugin
from test_leaderboard_verifications import verification

from mmc_bench.leaderboard import markdown, untrusted
from mmc_bench.leaderboard.page import page_html
from mmc_bench.leaderboard.payload import ReRun, make_payload
from mmc_bench.leaderboard.standings import make_standings
from mmc_bench.leaderboard.submissions import read_entries

START = (0.5, 0.9, 0.41, 0.8)  # of a pretrained model of one's own, close to that of others

HOSTILE = [
    "a | b",
    "line\nbreak",
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "`code` **bold** _it_ ~~no~~",
    "[click](javascript:alert(1))",
    "![image](http://evil.example/x.png)",
    "http://evil.example www.evil.example @someone #12 $x$",
    "\u202egnp.exe",
    "\\| escaped",
    "&lt;b&gt;",
    "=1+1",
    '"quoted"',
]


@pytest.fixture
def board(tmp_path):
    board = TestBoard(tmp_path / "board").counting()
    board.send_in(*of_seeds("tune", (0.7, 0.8)), *of_seeds("base", (0.5, 0.4)))
    return board


def payload(board, re_runs=()):
    opened = board.opened()
    entries, _ = read_entries(opened)
    return make_payload(opened.settings, make_standings(entries, opened.settings), opened.versions, re_runs)


def row_of(content, method):
    return next(row for row in content["rows"] if row["method"] == method)


def hostile_payload(board, name):
    content = payload(board)
    row = row_of(content, "tune")
    row.update(method=name, note=name, by=name, device=name, needs=[name], summary=name)
    row["paired"]["baseline"] = name
    row["versions"][name] = row["given"][name] = name
    content["settings"][0].update(dataset=name, backbone=name, note=name)
    content["overall"][0].update(method=name, note=name, missing=[name])
    content.update(title=name, baseline=name, counted=2)
    return content


# --- the payload


def test_the_payload_is_plain_data_without_numbers_of_this_machine(board):
    content = payload(board)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert (content["baseline"], content["counted"]) == ("base", 1)
    assert [setting["counts"] for setting in content["settings"]] == [True]
    numbers = re.findall(r"\d\.\d+", json.dumps([row["values"] for row in content["rows"]]))
    assert numbers and max(len(number.partition(".")[2]) for number in numbers) <= 6


def test_a_row_says_who_ran_it_on_what_with_which_versions(board):
    row = row_of(payload(board), "tune")
    assert (row["by"], row["device"], row["precision"], row["standing"]) == ("Ann", "cpu", "fp32", "reported")
    stages = {f"stage {stage}": "1" for stage in ("pretrain", "fine-tune", "score", "connect")}
    assert row["versions"] == {"mmc-bench": "1", **stages, "torch": "2.9", "plugin": "1+abc"}
    assert (row["summary"], row["needs"]) == ("tunes", ["clean", "cued"])
    assert len(row["records"]) == 2
    assert all((board.root / record).is_file() for record in row["records"])


def test_a_row_says_which_parameters_it_was_given(board):
    board.send_in(*of_seeds(plugin("other", lr=0.1234, barrier=False), (0.7, 0.8)))
    content = payload(board)
    assert row_of(content, "other")["given"] == {"lr": "0.1234", "barrier": "False"}
    assert row_of(content, "tune")["given"] == row_of(content, "pretrained")["given"] == {}
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(markdown.rows_csv(content)))}
    assert (rows["other"]["given"], rows["tune"]["given"]) == ("lr=0.1234 barrier=False", "")


def test_what_several_people_sent_in_names_them_all(board):
    board.counting((0, 1, 2)).send_in(cell(2, "tune"), cell(2, "base"), by="Bob")
    assert row_of(payload(board), "tune")["by"] == "Ann, Bob"


@pytest.mark.parametrize(
    ("by", "agrees", "standing", "said"),
    [
        ("Bob", True, "verified", "verified by Bob (1 of 2 cells); reported by Ann"),
        ("Mal", True, "reported", "re-run by Mal (1 of 2 cells); reported by Ann"),
        ("Ann", True, "reported", "re-run by Ann (1 of 2 cells); reported by Ann"),
        ("ANN", True, "reported", "re-run by ANN (1 of 2 cells); reported by Ann"),
        ("Bob", False, "reported", "disputed by Bob (1 of 2 cells); reported by Ann"),
    ],
)
def test_a_row_is_verified_once_a_verifier_who_did_not_report_it_re_ran_it_and_all_agree(
    board, by, agrees, standing, said
):
    settings = board.root / "leaderboard.yaml"
    settings.write_text(settings.read_text().replace("[Bob]", "[Bob, Ann]"))
    (cell_,) = verification(board, agrees=agrees).cells
    content = payload(board, [ReRun(by, cell_)])
    row = next(row for row in content["rows"] if cell_.record in row["records"])
    assert row["standing"] == standing
    assert (row["verified"] is not None, row["disputed"] is not None) == (agrees, not agrees)
    assert f"| {said} |" in markdown.readme(content)


def test_one_cell_that_disagrees_outweighs_those_that_agree(board):
    (cell_,) = verification(board).cells
    content = payload(board, [ReRun("Bob", cell_), ReRun("Cid", cell_.model_copy(update={"agrees": False}))])
    row = next(row for row in content["rows"] if cell_.record in row["records"])
    assert (row["standing"], row["verified"], row["disputed"]["by"]) == ("reported", None, "Cid")


def test_a_verified_row_names_its_verifiers_alone(board):
    (cell_,) = verification(board).cells
    content = payload(board, [ReRun("Mal", cell_), ReRun("Bob", cell_)])
    row = next(row for row in content["rows"] if cell_.record in row["records"])
    assert row["verified"] == {"by": "Bob", "cells": 1, "of": 2}


# --- tables


def test_the_readme_shows_means_intervals_and_what_is_missing(board):
    board.counting(rates=(0.9, 0.5)).send_in(cell(0, "other", (0.9, 0.9, 0.99, 0.2)))
    text = markdown.readme(payload(board))
    assert "| 1 | tune | 75.0 ± 63.5 | +30.0 ± 127.1 |" in text
    assert "| – | other (no mean: seed 1 missing) | – |" in text
    assert "| other | – | – | digits net 0.9 seed 1, digits net 0.5 |" in text
    assert "99.0" not in text


def test_what_is_missing_is_named_where_it_is_little(board):
    content = payload(board)
    content["overall"][0].update(missing=["a", "b", "c"])
    content["overall"][1].update(missing=["a", "b", "c", "d", "e"])
    text = markdown.readme({**content, "counted": 2})
    assert "| a, b, c |" in text and "| a, b, c and 2 more |" in text


def test_the_csv_has_every_row_and_column(board):
    rows = list(csv.DictReader(io.StringIO(markdown.rows_csv(payload(board)))))
    assert [row["method"] for row in rows] == ["pretrained", "tune", "base"]
    assert float(rows[1]["worst_split"]) == pytest.approx(0.75)
    assert rows[1]["records"].count(".json") == 2
    assert all(None not in row.values() for row in rows)


def test_the_readme_says_which_setting_does_not_count_and_who_began_elsewhere(board):
    text = markdown.readme(payload(board))
    assert "Does not count" not in text and "†" not in text.partition("\n## digits")[2]
    elsewhere = [
        one.model_copy(update={"pretrained_sha256": "1" * 64}) for one in of_seeds("other", (0.7, 0.8), start=START)
    ]
    models = [model(seed, START).model_copy(update={"weights_sha256": "1" * 64}) for seed in (0, 1)]
    board.send_in(*elsewhere, models=models, by="Bob")
    board.send_in(*of_seeds("tune", (0.7,), cue_rate=0.5))
    text = markdown.readme(payload(board))
    assert "10 classes, seed 0. Does not count over all settings." in text
    assert "| other | 75.0 ± 63.5 | +30.0 ± 127.1 † |" in text
    assert "| tune | 75.0 ± 63.5 | +30.0 ± 127.1 |" in text


# --- hostile names


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_breaks_no_table_and_makes_no_markup(board, name):
    harmless = markdown.readme(hostile_payload(board, "plain")).splitlines()
    text = markdown.readme(hostile_payload(board, name)).splitlines()
    assert len(text) == len(harmless)
    for line, plain in zip(text, harmless, strict=True):
        bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", one)) for one in (line, plain)]
        assert bars[0] == bars[1]
    shown = "\n".join(line for line, plain in zip(text, harmless, strict=True) if line != plain)
    for harm in (
        r"(?<!\\)`",
        r"<(?!!-- -->)[a-z/]",
        r"(?<!\\)\]\(j",
        r"(?<!\\)!\[",
        "http:",
        r"www\.e",
        "@s",
        "\u202e",
    ):
        assert not re.search(harm, shown), harm


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_formula_and_no_line_of_a_csv(board, name):
    content = hostile_payload(board, name)
    for text in (markdown.rows_csv(content), markdown.overall_csv(content)):
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1
        assert not [field for row in rows for field in row if field.startswith(("=", "+", "@", "\t"))]


def test_negative_numbers_stay_numbers_in_a_csv(board):
    content = payload(board)
    row_of(content, "tune")["values"]["cue_reliance"] = [-0.25, None]
    assert ",-0.25," in markdown.rows_csv(content)
    assert untrusted.csv_field("-0.25") == "'-0.25"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_ends_no_script(board, name):
    text = page_html(hostile_payload(board, name))
    assert "<img" not in text and "<script>alert" not in text


def test_the_templates_are_packaged():
    package = Path(markdown.__file__).parents[1]
    pyproject = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["mmc_bench"]
    assert package / "leaderboard" / "README.md.j2" in {file for pattern in patterns for file in package.glob(pattern)}
