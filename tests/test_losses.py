"""Differences in loss under interventions: from records, beside published ones, and the verdict on their pattern."""

import csv
import io
import json

import pytest
from helpers.records import plugin, pretrain_record

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.report.claims import FAILS, HOLDS, NO_RECORDS
from mmc_bench.report.losses import compare_losses, read_losses, render
from mmc_bench.report.published import holds_losses, load_published, published_file, read_numbers
from mmc_bench.report.rows import make_rows
from mmc_bench.results.store import Store

SHIPPED = Registry.discover().published
HEAD = "dataset,cue_rate,method,split,loss_difference\n"
TABLE = (
    HEAD + "one,0.9,pretrained,RC,20\none,0.9,pretrained,RI,0.0\ntwo,0.9,pretrained,RC,0\ntwo,0.9,pretrained,RI,30\n"
)


def record(dataset="one", seed=0, losses=(5.0, 0.5, 4.5, 0.51), **changed):
    """Return the record of a pretraining with these losses on NC, C, RC and RI."""
    made = pretrain_record(seed, dataset=plugin(dataset), **changed)
    scores = {
        split: getattr(made.metrics, split).model_copy(update={"loss": loss})
        for split, loss in zip(("NC", "C", "RC", "RI"), losses, strict=True)
    }
    return made.model_copy(update={"metrics": made.metrics.model_copy(update=scores)})


@pytest.fixture
def table(tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    return read_losses(tmp_path / "mine.csv")


def compared(records, table):
    return compare_losses(make_rows([], records), table)


def verdicts(records, table):
    return {(item.row.dataset, item.split): item.verdict for item in compared(records, table).differences}


# --- from records


def test_a_row_has_the_mean_over_seeds_of_each_seed_s_difference():
    records = [record(seed=0, losses=(1.0, 0.5, 4.5, 0.4)), record(seed=1, losses=(2.0, 1.0, 2.0, 1.3))]
    (row,) = make_rows([], records)
    means = {split: statistic.mean for split, statistic in row.loss_differences.items()}
    assert means == pytest.approx({"NC": (0.5 + 1) / 2, "RC": (4 + 1) / 2, "RI": (0.1 + 0.3) / 2})
    assert row.loss_differences["RC"].std == pytest.approx(((4 - 2.5) ** 2 + (1 - 2.5) ** 2) ** 0.5)


def test_ours_stand_beside_the_published_and_what_has_no_record_is_named(table):
    comparison = compared([record(losses=(5, 0.5, 4.5, 0.51))], table)
    assert [(item.split, item.ours.mean, item.published) for item in comparison.differences] == [
        ("RC", pytest.approx(4.0), 20),
        ("RI", pytest.approx(0.01), 0),
    ]
    assert [(place.dataset, place.split) for place in comparison.missing] == [("two", "RC"), ("two", "RI")]
    assert comparison.verdict == NO_RECORDS  # for half of the pattern
    assert compared([record(losses=(5, 0.5, 4.5, 3.5))], table).verdict == FAILS


# --- the verdict


def test_the_pattern_holds_where_zeros_are_small_beside_the_model_s_largest(table):
    good = [record(losses=(9, 0.5, 4.5, 0.519)), record("two", losses=(9, 0.1, 0.11, 5.1))]
    assert compared(good, table).verdict == HOLDS
    assert set(verdicts(good, table).values()) == {HOLDS}
    worse = [record(losses=(9, 0.5, 4.5, 0.521)), good[1]]  # .021 of 4: more than .5 %
    assert verdicts(worse, table)["one", "RI"] == FAILS and compared(worse, table).verdict == FAILS
    below = [record(losses=(9, 0.5, 4.5, 0.479)), good[1]]  # a loss that falls has changed too
    assert verdicts(below, table)["one", "RI"] == FAILS


def test_a_model_that_uses_nothing_or_all_fails(table):
    assert verdicts([record(losses=(0.5, 0.5, 0.5, 0.5))], table) == {("one", "RC"): FAILS, ("one", "RI"): HOLDS}
    assert verdicts([record(losses=(0.5, 0.5, 4.5, 9.5))], table) == {("one", "RC"): HOLDS, ("one", "RI"): FAILS}


def test_models_on_two_backbones_are_judged_apart(table):
    records = [record(), record(losses=(9, 0.5, 4.5, 3.5), backbone=plugin("wide"))]
    found = [(item.row.backbone, item.split, item.verdict) for item in compared(records, table).differences]
    assert ("net", "RI", FAILS) not in found and ("wide", "RI", FAILS) in found and len(found) == 4


def test_rows_of_other_places_are_left_out(table):
    with pytest.raises(NothingSelectedError, match="no selected record has a number in mine"):
        compared([record("three"), record(cue_rate=0.5)], table)


# --- the paper's


def test_the_paper_s_table_names_what_exists_and_has_its_six_numbers():
    comparison_table = read_losses(published_file("table4", SHIPPED))
    registry = Registry.discover()
    assert {place.dataset for place in comparison_table.numbers} <= {o.spec.name for o in registry.offers("dataset")}
    printed = {(place.dataset, place.split): value for place, value in comparison_table.numbers.items()}
    assert printed == {
        ("k-complex-0", "RC"): 22.79,
        ("k-complex-0", "RI"): 0.0,
        ("k-complex-4", "RC"): 0.0,
        ("k-complex-4", "RI"): 26.31,
        ("k-complex", "RC"): 18.84,
        ("k-complex", "RI"): 0.0,
    }


def test_a_table_of_losses_is_told_from_one_of_accuracies(tmp_path):
    assert holds_losses(published_file("table4", SHIPPED)) and not holds_losses(published_file("table1", SHIPPED))
    assert not holds_losses(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="has the columns dataset,cue_rate,method,split,accuracy_percent"):
        load_published("table4", SHIPPED)


@pytest.mark.parametrize("value", ["-1", "inf", "nan", "much"])
def test_a_difference_that_is_none_is_refused_with_its_line(tmp_path, value):
    (tmp_path / "mine.csv").write_text(f"{HEAD}d,0.5,m,RC,{value}\n")
    with pytest.raises(UserError, match=r"mine\.csv, line 2: (a difference in loss is 0 or more|not a line of)"):
        read_losses(tmp_path / "mine.csv")
    (tmp_path / "large.csv").write_text(f"{HEAD}d,0.5,m,RC,1000\n")
    assert list(read_losses(tmp_path / "large.csv").numbers.values()) == [1000]
    with pytest.raises(UserError, match="accuracy_percent"):
        read_numbers(tmp_path / "large.csv")


# --- formats


def test_every_format_says_the_same(table):
    comparison = compared([record(seed=0), record(seed=1, losses=(5, 0.5, 5.5, 1.51))], table)
    content = json.loads(render(comparison, "json"))
    lines = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    text = render(comparison, "md")
    assert content["verdict"] == FAILS and len(content["without_records"]) == 2
    for number, line in zip(content["numbers"], lines, strict=True):
        assert (number["split"], number["verdict"], number["seeds"]) == (line["split"], line["verdict"], [0, 1])
        assert float(line["ours"]) == number["ours"]["mean"] and float(line["published"]) == number["published"]
    assert content["numbers"][0]["ours"] == {"mean": pytest.approx(4.5), "std": pytest.approx(0.5**0.5)}
    assert "4.5 ± 0.707" in text and "only there: fails.**" in text and "RC of pretrained on two" in text


def test_the_command_prints_it(bench, tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    store = Store(bench.folder / "results")
    store.check_writable()
    for dataset, losses in (("one", (5, 0.5, 4.5, 0.5)), ("two", (5, 0.5, 0.5, 9))):
        store.save(record(dataset, losses=losses))
    result = bench("table", "--against", str(tmp_path / "mine.csv"))
    assert (result.code, result.err) == (0, "") and "only there: holds.**" in result.out
    page = bench("table", "--against", str(tmp_path / "mine.csv"), "--format", "html").out
    assert page.count("<table>") == 1 and "<td>RC</td>" in page
