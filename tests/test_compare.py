"""Our records against a published table: differences, verdicts on claims, formats, and the command."""

import csv
import io
import json
import re

import pytest
from helpers.records import cell_record, plugin, pretrain_record

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.report.claims import FAILS, HOLDS, NO_RECORDS
from mmc_bench.report.compare import compare
from mmc_bench.report.compare_tables import render
from mmc_bench.report.published import load_published
from mmc_bench.report.rows import make_rows
from mmc_bench.results.settings import DataSettings
from mmc_bench.results.store import Store

TABLE = """dataset,cue_rate,method,split,accuracy_percent
digits,0.9,tune,NC,80
digits,0.9,tune,C,91.5
digits,0.9,tune,RC,30
digits,0.9,tune,RI,88
digits,0.9,mend,NC,70
digits,0.9,mend,C,72
digits,0.9,mend,RC,68
digits,0.9,mend,RI,12
digits,0.5,mend,NC,75
"""
CLAIMS = """
source: Somebody (2020)
numbers: [mine.csv]
classes: {digits: 10}
claims:
  - statement: Tuning keeps RI high
    checks:
      - {difference: [RI for tune, chance], at_least: 15}
  - statement: Mending brings C near NC and does not cost the worst split
    checks:
      - {difference: [C for mend, NC for mend], within: 15}
      - {difference: [worst_split for mend, worst_split for tune], at_least: 0}
  - statement: Mending keeps NC
    checks:
      - {value: NC for mend, at_least: 60}
"""
HIGH, MENDED = (0.75, 0.95, 0.25, 0.85), (0.7, 0.75, 0.65, 0.15)


@pytest.fixture
def table(tmp_path):
    """Return a published table of two methods, with three claims."""
    (tmp_path / "mine.csv").write_text(TABLE)
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    return load_published(str(tmp_path / "mine.csv"), {})


def both(tune=HIGH, mend=MENDED, seeds=(0,), **changed):
    """Return cells of both methods with these accuracies on NC, C, RC and RI."""
    return [
        cell_record(seed, method, accuracy=accuracy, **changed)
        for seed in seeds
        for method, accuracy in (("tune", tune), ("mend", mend))
    ]


def compared(records, table):
    return compare(make_rows(records, [pretrain_record(record.cell.pretraining.seed) for record in records]), table)


def verdicts(records, table):
    """Return the verdicts of the three claims, in a single setting."""
    return [judgement.verdict for judgement in compared(records, table).judgements]


# --- differences


def test_every_number_that_both_have_is_compared(table):
    records = [
        *(cell_record(seed, "tune", accuracy=(nc, 0.9, 0.3, 0.8)) for seed, nc in enumerate((0.7, 0.74, 0.84))),
        cell_record(0, "other"),
        cell_record(0, "mend", cue_rate=0.25),
        cell_record(0, "mend", dataset=plugin("letters")),
    ]
    comparison = compared(records, table)
    found = {(d.method, d.split): (d.ours.mean, d.published, d.points) for d in comparison.differences}
    assert found == {
        ("tune", "NC"): pytest.approx((76, 80, -4)),
        ("tune", "C"): pytest.approx((90, 91.5, -1.5)),
        ("tune", "RC"): pytest.approx((30, 30, 0)),
        ("tune", "RI"): pytest.approx((80, 88, -8)),
    }
    first = comparison.differences[0]
    assert first.ours.std == pytest.approx(((6**2 + 2**2 + 8**2) / 2) ** 0.5)
    assert (first.seeds, first.setting.dataset, first.setting.backbone) == ((0, 1, 2), "digits", "net")


def test_one_seed_has_no_deviation_and_a_split_that_is_not_published_no_line(table):
    comparison = compared([cell_record(3, "mend", cue_rate=0.5)], table)
    assert [(d.split, d.ours.std, d.seeds) for d in comparison.differences] == [("NC", None, (3,))]


def test_published_settings_without_a_row_are_listed(table):
    assert compared(both(), table).missing == (("digits", 0.5),)


def test_other_backbones_and_sizes_are_compared_under_their_labels(table):
    small = DataSettings(clean_images=9)
    records = [*both(), *both(backbone=plugin("tiny")), *both(data=small)]
    comparison = compared(records, table)
    labels = {(d.setting.dataset, d.setting.backbone) for d in comparison.differences}
    assert labels == {
        ("digits (clean_images=None)", "net"),
        ("digits (clean_images=9)", "net"),
        ("digits", "tiny"),
    }
    assert len(comparison.differences) == 3 * 8 and len(comparison.judgements) == 3 * 3


def test_two_rows_of_one_method_are_refused_only_where_the_method_matters(table):
    twice = [cell_record(0, plugin("mend")), cell_record(0, plugin("mend", lr=0.5))]
    with pytest.raises(UserError, match=r"digits net cue rate 0\.9 has two rows of mend, .*lr=0\.5.*--suite"):
        compared(twice, table)
    others = [cell_record(0, plugin("other")), cell_record(0, plugin("other", lr=0.5))]
    assert len(compared([*both(), *others], table).differences) == 8


def test_nothing_to_compare_selects_nothing(table):
    with pytest.raises(NothingSelectedError, match="no selected record has a number in mine"):
        compared([cell_record(0, "other")], table)
    with pytest.raises(NothingSelectedError):
        compare(make_rows([], [pretrain_record()]), table)


# --- verdicts


def test_a_claim_holds_where_all_its_checks_do(table):
    assert verdicts(both(), table) == [HOLDS, HOLDS, HOLDS]


def test_one_check_that_fails_is_enough_and_nothing_is_rounded_in_its_favour(table):
    assert verdicts(both(tune=(0.75, 0.95, 0.25, 0.2499)), table) == [FAILS, HOLDS, HOLDS]
    assert verdicts(both(tune=(0.75, 0.95, 0.25, 0.25)), table) == [HOLDS, HOLDS, HOLDS]
    assert verdicts(both(mend=(0.7, 0.86, 0.65, 0.15)), table) == [HOLDS, FAILS, HOLDS]
    assert verdicts(both(mend=(0.7, 0.75, 0.24, 0.15)), table) == [HOLDS, FAILS, HOLDS]
    assert verdicts(both(mend=(0.5, 0.52, 0.5, 0.15)), table) == [HOLDS, HOLDS, FAILS]


def test_without_records_there_is_no_verdict(table):
    assert verdicts([cell_record(0, "tune", accuracy=HIGH)], table) == [HOLDS, NO_RECORDS, NO_RECORDS]
    assert verdicts([cell_record(0, "mend", accuracy=MENDED)], table) == [NO_RECORDS, NO_RECORDS, HOLDS]


def test_what_fails_fails_though_another_check_lacks_records(table):
    assert verdicts([cell_record(0, "mend", accuracy=(0.7, 0.9, 0.6, 0.1))], table)[1] == FAILS


def test_chance_is_that_of_the_records_classes(table):
    assert verdicts(both(tune=(0.7, 0.9, 0.3, 0.2), num_classes=10), table)[0] == FAILS
    assert verdicts(both(tune=(0.7, 0.9, 0.3, 0.2), num_classes=100), table)[0] == HOLDS


def test_verdicts_are_of_means_over_seeds_and_the_worst_split_is_each_seed_s_own(table):
    records = [
        *both(mend=(0.8, 0.9, 0.2, 0.1), tune=(0.6, 0.6, 0.4, 0.9), seeds=(0,)),
        *both(mend=(0.4, 0.2, 0.6, 0.1), tune=(0.6, 0.6, 0.4, 0.9), seeds=(1,)),
    ]
    near, worst = compared(records, table).judgements[1].checks
    assert near.value == pytest.approx(55 - 60)
    assert worst.value == pytest.approx(20 - 40)  # of the means, mend's worst split would be 40
    assert dict(worst.numbers) == pytest.approx({"worst_split for mend": 20, "worst_split for tune": 40})


def test_the_published_numbers_are_judged_beside_ours(table):
    judgements = compared(both(), table).judgements
    assert [j.published_verdict for j in judgements] == [HOLDS, HOLDS, HOLDS]
    assert [check.value for check in judgements[1].published] == [2, 68 - 30]
    elsewhere = compared(both(dataset=plugin("letters")), table).judgements
    assert [(j.verdict, j.published_verdict) for j in elsewhere] == [(HOLDS, None)] * 3


def test_each_setting_has_its_own_verdict(table):
    records = [*both(), *both(mend=(0.5, 0.9, 0.3, 0.6), cue_rate=0.5)]
    claim = table.claims.claims[1]
    assert [j.verdict for j in compared(records, table).judgements if j.claim == claim] == [HOLDS, FAILS]


def test_a_claim_on_some_cue_rates_is_judged_at_those_alone(tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    (tmp_path / "claims.yaml").write_text(CLAIMS.replace("keeps NC\n", "keeps NC\n    cue_rates: [0.5, 0.5]\n"))
    table = load_published(str(tmp_path / "mine.csv"), {})
    comparison = compared([*both(), *both(cue_rate=0.5)], table)
    claim = table.claims.claims[-1]
    assert [j.setting.cue_rate for j in comparison.judgements if j.claim == claim] == [0.5]
    assert comparison.published_counts[claim.statement] == {HOLDS: 1, FAILS: 0, NO_RECORDS: 0}


# --- formats


def markdown_rows(text, first):
    """Return the words of the Markdown rows that begin with a word."""
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines()]
    return [words for words in lines if words[:1] == [first]]


def test_markdown_shows_ours_theirs_and_the_difference_then_the_claims(table):
    weak = both(tune=(0.5, 0.9, 0.3, 0.2), cue_rate=0.5, backbone=plugin("tiny"))
    text = render(compared([*both(seeds=(0, 1)), *weak], table), "md")
    assert text.startswith("**Ours against mine** (Somebody (2020))\n")
    assert "**digits · net · cue rate 0.9**" in text and "**digits · tiny · cue rate 0.5**" in text
    full, partly = markdown_rows(text, "mend")
    assert full[1:7] == ["70.0 ± 0.0", "70.0", "+0.0", "75.0 ± 0.0", "72.0", "+3.0"] and full[-1] == "0 1"
    assert partly[1:7] == ["70.0", "75.0", "-5.0", "–", "–", "–"] and partly[-1] == "0"
    tally = "Ours: holds in 1 of 2 settings. The paper's numbers: holds in 1 of 1 setting (1 more without records)."
    assert f"**Tuning keeps RI high.** {tally}" in text
    assert markdown_rows(text, "digits")[:2] == [
        ["digits", "net", "0.9", "0 1", "85.0 − 10.0 = +75.0 (+78.0)", "holds", "holds"],
        ["digits", "tiny", "0.5", "0", "**20.0 − 10.0 = +10.0**", "**fails**", "–"],
    ]


def test_markdown_says_what_is_missing(table):
    text = render(compared([cell_record(0, "tune", accuracy=HIGH)], table), "md")
    assert "Without a selected record: digits at 0.5." in text
    assert "**Mending keeps NC.** Ours: no records." in text
    assert "| no records |" in text


def test_latex_and_html_show_the_same_tables(table):
    comparison = compared([*both(), *both(mend=(0.5, 0.9, 0.3, 0.6), cue_rate=0.5)], table)
    text, latex, page = (render(comparison, form) for form in ("md", "latex", "html"))
    assert len(re.findall(r"^\|:--", text, re.MULTILINE)) == latex.count("\\toprule") == page.count("<table>") == 2 + 3
    assert "**fails**" in text and "\\textbf{fails}" in latex and "<b>fails</b>" in page
    assert "% Tuning keeps RI high. Ours: " in latex and "<p><b>Tuning keeps RI high.</b> Ours: " in page
    assert "**" not in latex + page


def test_seeds_that_differ_between_methods_are_told(table):
    records = [*both(seeds=(0, 1)), cell_record(2, "tune", accuracy=HIGH)]
    assert "tune: 0 1 2" in render(compared(records, table), "md")


def test_a_table_without_claims_is_a_table_of_differences(tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    comparison = compared(both(), load_published(str(tmp_path / "mine.csv"), {}))
    text = render(comparison, "md")
    assert "claims" not in text and "| tune" in text
    assert json.loads(render(comparison, "json"))["claims"] == []


def test_csv_has_a_line_for_every_number_and_every_check(table):
    lines = list(csv.DictReader(io.StringIO(render(compared(both(seeds=(0, 1)), table), "csv"))))
    assert [line["kind"] for line in lines] == ["number"] * 8 + ["check"] * 4
    number, check = lines[1], lines[10]
    assert (number["method"], number["split"], number["seeds"]) == ("tune", "C", "0 1")
    assert [float(number[name]) for name in ("ours", "ours_std", "published", "difference")] == [95, 0, 91.5, 3.5]
    assert check["check"] == "worst_split for mend − worst_split for tune ≥ 0"
    assert [float(check[name]) for name in ("ours", "published", "difference")] == pytest.approx([40, 38, 2])
    assert (check["verdict"], check["claim_verdict"], check["published_verdict"]) == (HOLDS, HOLDS, HOLDS)


def test_json_has_numbers_claims_and_what_is_missing(table):
    content = json.loads(render(compared([cell_record(0, "mend", accuracy=MENDED)], table), "json"))
    assert list(content) == ["table", "source", "unit", "numbers", "claims", "without_records"]
    place = {"dataset": "digits", "backbone": "net", "cue_rate": 0.9}
    number = {"split": "NC", "ours": {"mean": 70.0, "std": None}, "published": 70.0, "difference": 0.0}
    assert content["numbers"][0] == {**place, "method": "mend", "seeds": [0], **number}
    assert content["without_records"] == [{"dataset": "digits", "cue_rate": 0.5}]
    (setting,) = content["claims"][1]["settings"]
    assert {name: setting[name] for name in place} == place
    assert (setting["verdict"], setting["published_verdict"], setting["seeds"]) == (NO_RECORDS, HOLDS, {"mend": [0]})
    near, worst = setting["checks"]
    assert near["numbers"] == {"C for mend": 75.0, "NC for mend": 70.0}
    assert (near["within"], near["value"], near["verdict"], near["published_value"]) == (15, 5.0, HOLDS, 2.0)
    assert worst["numbers"] == {"worst_split for mend": 65.0, "worst_split for tune": None}
    assert (worst["at_least"], worst["value"], worst["verdict"]) == (0, None, NO_RECORDS)
    assert content["claims"][0]["published_counts"] == {HOLDS: 1, FAILS: 0, NO_RECORDS: 1}


# --- the command


@pytest.fixture
def stored(bench):
    """Return a command line in a folder with records of two of the paper's methods."""
    store = Store(bench.folder / "results")
    store.check_writable()
    place = {"dataset": plugin("cifar10-box"), "backbone": plugin("resnet8"), "cue_rate": 0.6}
    for seed in (0, 1):
        store.save(cell_record(seed, "ft-medium", accuracy=(0.5, 0.9, 0.2, 0.8), **place))
        store.save(cell_record(seed, "cbft", accuracy=(0.5, 0.9, 0.4, 0.1), **place))
    return bench


def test_the_command_compares_with_the_paper_s_table(stored):
    result = stored("table", "--against", "table1")
    assert (result.code, result.err) == (0, "")
    assert "cifar10-box · resnet8 · cue rate 0.6" in result.out and "75.7" in result.out
    assert "**fails**" in result.out and "no records" in result.out
    content = json.loads(stored("table", "--against", "table1", "--format", "json", "--seeds", "1").out)
    assert [number["seeds"] for number in content["numbers"]] == [[1]] * 8
    statements = [claim["statement"] for claim in content["claims"]]
    claims = load_published("table1", Registry.discover().published).claims.claims
    assert statements == [claim.statement for claim in claims]
    near = content["claims"][1]["settings"][0]
    assert near["verdict"] == FAILS
    assert [check["verdict"] for check in near["checks"]] == [FAILS, HOLDS, HOLDS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--against", "tabel1"], 4, "unknown published table 'tabel1': did you mean table1"),
        (["--against", "nowhere.csv"], 4, "nowhere.csv cannot be read"),
        (["--against", "table1", "--datasets", "dominoes"], 5, "no record"),
        (["--against", "table1", "--methods", "none"], 5, "no record"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(stored, words, code, says):
    result = stored("table", *words)
    assert (result.code, result.out) == (code, "")
    assert says in result.err and len(result.err.strip().splitlines()) == 1
