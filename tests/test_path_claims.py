"""Claims on paths: verdicts that hold, fail or lack records, the numbers behind them, and mistakes in the files."""

import csv
import importlib
import io
import json
from pathlib import Path

import pytest
from helpers.records import (
    cell_record,
    connectivity_record,
    flat,
    invariance_record,
    pair_record,
    plugin,
    pretrain_record,
)

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.claim_tables import render
from mmc_bench.report.claims import FAILS, HOLDS, NO_RECORDS, read_claims
from mmc_bench.report.judgements import judge_records, quantities_of
from mmc_bench.results.records import PathRecord
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.results.store import Store

FOLDER = Path(__file__).parents[1] / "benchmarks" / "published"
BROKEN = "randomise cue"


FIG4, FIG5 = (read_claims(FOLDER / name) for name in ("fig4.yaml", "fig5.yaml"))


def sag(depth, **splits):
    """Return curves that start at 1.0, end at .9 and fall by `depth` below that, on all splits but those given."""
    return flat(**{split: [1.0, 0.9 - splits.get(split, depth), 0.9] for split in ("NC", "C", "RC", "RI")})


def pair(rate=0.8, seed=0, quadratic=0.02, bare=0.02, linear=0.5, permuted=0.4, train=None, similar=False):
    """Return a pair whose paths sag this deep; `train` is how deep the quadratic one does on training images."""
    depths = {"quadratic": sag(0.5, C=quadratic), "quadratic-nc": sag(0.5, NC=bare), "linear": sag(linear)}
    if permuted is not None:
        depths["permuted"] = sag(permuted)
    on_train = None if train is None else {name: sag(train) if name == "quadratic" else sag(0.02) for name in depths}
    return pair_record(rate, seed, depths, on_train, similar=similar)


def cell(method, height, broken=(), rate=0.8, seed=0, permuted=None, **changed):
    """Return a cell whose paths fall this deep on C and rise again, and what its model is not invariant to."""
    connect = ConnectSettings(paths=("linear", "permuted"))
    record = cell_record(seed, method, cue_rate=rate, connect=connect, **changed)

    def path(height):
        return PathRecord(test=connectivity_record(flat(NC=[0.5] * 3, C=[1.0, 1.0 - height, 1.0], RC=[0.5] * 3)))

    paths = {"linear": path(height)} | ({} if permuted is None else {"permuted": path(permuted)})
    changes = {"paths": paths, "invariance": invariance_record(*broken)}
    return record.model_copy(update=changes)


def model(rate=0.8, seed=0, **changed):
    record = pretrain_record(seed, cue_rate=rate, **changed)
    return record.model_copy(update={"invariance": invariance_record(BROKEN)})


def verdicts(claims, pairs=(), cells=(), pretrained=()):
    """Return each claim's verdicts, in the order of its settings; of FIG5's the last, on barriers, is left out."""
    judgements = judge_records(claims, pairs, cells, pretrained)
    counted = claims.claims[:4] if claims is FIG5 else claims.claims
    return [[judgement.verdict for judgement in judgements if judgement.claim == claim] for claim in counted]


# --- quantities


def test_quantities_are_of_the_curves_and_of_the_mechanisms():
    curves = flat(C=[0.9, 0.5, 0.7], NC=[0.5, 0.6, 0.7])
    record = pair_record(paths={"linear": curves}, train={"linear": flat(C=[1.0, 0.2, 0.8])})
    found = quantities_of(record.comparison.paths, record.comparison.invariance)
    wanted = {
        "drop of linear on C": 20,  # below the worse end, .7
        "fall of linear on C": 40,  # below the better end, .9
        "barrier of linear on C": 30,  # below the chord's middle, .8
        "loss barrier of linear on C": 0.6,
        "drop of linear on NC": 0,
        "drop of linear on train C": 60,
        "differing invariances": 1,
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


# --- Figure 4


def test_figure_4_holds_where_bent_paths_are_flat_and_straight_ones_are_not():
    assert verdicts(FIG4, [pair()]) == [[HOLDS]] * 5


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({"quadratic": 0.031}, {0}),
        ({"bare": 0.031}, {1}),
        ({"linear": 0.099}, {0, 1}),
        ({"permuted": 0.099}, {2, 4}),
        ({"similar": True}, {3}),
    ],
)
def test_each_claim_of_figure_4_fails_by_itself(changed, failing):
    found = verdicts(FIG4, [pair(**changed)])
    assert {index for index, verdict in enumerate(found) if verdict == [FAILS]} == failing
    assert all(verdict == [HOLDS] for index, verdict in enumerate(found) if index not in failing)


def test_what_is_at_chance_on_images_without_cues_is_not_judged_there():
    assert [bool(found) for found in verdicts(FIG4, [pair(1.0)])] == [True, False, True, True, False]


def test_bounds_are_kept_at_the_bound_itself():
    assert verdicts(FIG4, [pair(quadratic=0.03, linear=0.1)])[0] == [HOLDS]


def test_training_images_count_where_they_were_measured():
    assert verdicts(FIG4, [pair(train=None)])[0] == [HOLDS]
    judgement = judge_records(FIG4, [pair(train=0.04)], [], [])[0]
    assert judgement.verdict == FAILS
    assert [check.value for check in judgement.checks] == pytest.approx([4, 2, 2, 50])


def test_a_path_that_was_not_measured_has_no_verdict():
    assert verdicts(FIG4, [pair(permuted=None)])[2] == []
    only_linear = pair_record(0.8, paths={"linear": sag(0.5)})
    assert verdicts(FIG4, [only_linear])[:2] == [[NO_RECORDS], [NO_RECORDS]]


def test_verdicts_are_of_means_over_seeds_at_each_cue_rate():
    pairs = [pair(0.6, 0, quadratic=0.05), pair(0.6, 1, quadratic=0.0), pair(0.8, 0, quadratic=0.05)]
    found = [j for j in judge_records(FIG4, pairs, [], []) if j.claim == FIG4.claims[0]]
    assert [(j.setting.cue_rate, j.seeds["pairs"], j.verdict) for j in found] == [
        (0.6, ["0-1", "1-2"], HOLDS),
        (0.8, ["0-1"], FAILS),
    ]
    assert found[0].checks[1].value == pytest.approx(2.5)


# --- Figure 5


def small(height=0.01, broken=(BROKEN,), **changed):
    return cell("ft-small", height, broken, **changed)


def large(height=0.5, broken=(), **changed):
    return cell("ft-large", height, broken, **changed)


def test_figure_5_holds_where_small_steps_change_nothing_and_large_ones_everything():
    assert verdicts(FIG5, cells=[small(), large()], pretrained=[model()]) == [[HOLDS], [HOLDS], [], []]
    both = [small(), cell("ft-medium", 0.01, [BROKEN]), large()]
    assert verdicts(FIG5, cells=both, pretrained=[model()]) == [[HOLDS], [HOLDS], [], [HOLDS]]
    both[1] = cell("ft-medium", 0.01)
    assert verdicts(FIG5, cells=both, pretrained=[model()]) == [[HOLDS], [HOLDS], [], [FAILS]]
    perfect = [small(0.5, (), rate=1.0), large(rate=1.0)]
    assert verdicts(FIG5, cells=perfect, pretrained=[model(1.0)]) == [[], [HOLDS], [HOLDS], []]


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ([small(0.06), large()], [[FAILS], [HOLDS], []]),
        ([small(broken=()), large()], [[FAILS], [HOLDS], []]),
        ([small(), large(0.04)], [[HOLDS], [FAILS], []]),
        ([small(), large(permuted=0.04)], [[HOLDS], [FAILS], []]),
        ([small(), large(permuted=0.5)], [[HOLDS], [HOLDS], []]),
        ([small(), large(broken=[BROKEN])], [[HOLDS], [FAILS], []]),
        ([small(rate=1.0)], [[], [], [FAILS]]),
        ([small()], [[HOLDS], [], []]),
        ([large()], [[], [HOLDS], []]),
    ],
)
def test_figure_5_fails_or_lacks_records_claim_by_claim(cells, wanted):
    assert verdicts(FIG5, cells=cells, pretrained=[model(), model(1.0)]) == [*wanted, []]


def test_similarity_needs_the_pretrained_record_but_a_barrier_fails_without_it():
    assert verdicts(FIG5, cells=[small(0.06), large()])[:2] == [[FAILS], [NO_RECORDS]]


@pytest.mark.parametrize(("middle", "barrier"), [(0.8, FAILS), (0.75, FAILS), (0.65, HOLDS)])
def test_a_path_to_a_model_that_lost_the_cue_has_a_barrier_where_it_falls_below_the_chord(middle, barrier):
    low = large()
    connectivity = connectivity_record(flat(NC=[0.5] * 3, C=[1.0, middle, 0.6], RC=[0.5] * 3))
    low = low.model_copy(update={"paths": {"linear": PathRecord(test=connectivity)}})
    found = {judgement.claim: judgement.verdict for judgement in judge_records(FIG5, [], [low], [model()])}
    assert (found[FIG5.claims[1]], found[FIG5.claims[4]]) == (barrier, FAILS)
    found = {judgement.claim: judgement.verdict for judgement in judge_records(FIG5, [], [large()], [model()])}
    assert (found[FIG5.claims[1]], found[FIG5.claims[4]]) == (HOLDS, HOLDS)


def test_two_variants_of_a_method_are_refused_only_where_a_claim_names_it():
    variants = [cell(plugin("ft-small", lr=lr), 0.01) for lr in (0.1, 0.2)]
    with pytest.raises(UserError, match=r"cue rate 0\.8 has ft-small \(lr=0\.1\) and ft-small \(lr=0\.2\).*--suite"):
        judge_records(FIG5, [], variants, [model()])
    others = [cell(plugin("other", lr=lr), 0.01) for lr in (0.1, 0.2)]
    assert verdicts(FIG5, cells=[small(), *others], pretrained=[model()])[0] == [HOLDS]


def test_a_file_may_claim_accuracies_too(tmp_path):
    file = tmp_path / "mine.yaml"
    checks = "[{difference: [worst_split for a, chance], at_least: 15}]"
    file.write_text(f"source: me\nclaims:\n  - {{statement: it holds, cue_rates: [0.5, 1], checks: {checks}}}\n")
    records = [
        *(cell_record(seed, "a", accuracy=(0.9, 0.8, middle, 0.1)) for seed, middle in enumerate((0.2, 0.3))),
        cell_record(0, "a", cue_rate=0.4),
        cell_record(0, "b", cue_rate=0.6),
    ]
    (judgement,) = judge_records(read_claims(file), [], records, [])
    assert (judgement.setting.cue_rate, judgement.seeds, judgement.verdict) == (0.9, {"a": (0, 1)}, HOLDS)
    assert judgement.checks[0].value == pytest.approx(25 - 10)


def test_nothing_that_a_claim_is_about_selects_nothing():
    with pytest.raises(NothingSelectedError, match="what the claims are about"):
        judge_records(FIG5, [pair()], [], [])


# --- formats and the command


def test_markdown_shows_the_numbers_and_which_fail():
    judgements = judge_records(FIG5, [], [small(0.06), large()], [model()])
    text = render("fig5", FIG5, judgements, "md")
    rows = [
        [word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| digits")
    ]
    assert rows == [
        ["digits", "net", "0.8", "0", "**6.0**", "0", "**fails**"],
        ["digits", "net", "0.8", "0", "50.0", "–", "1", "holds"],
        ["digits", "net", "0.8", "0", "50.0", "holds"],
    ]
    assert f"**{FIG5.claims[1].statement}.** Holds in 1 of 1 setting." in text
    assert f"**{FIG5.claims[2].statement}.** No records." in text


def test_csv_and_json_have_every_check_and_a_word_on_claims_without_records():
    judgements = judge_records(FIG5, [], [small(0.06), large()], [model()])
    lines = list(csv.DictReader(io.StringIO(render("fig5", FIG5, judgements, "csv"))))
    assert [line["claim_verdict"] for line in lines] == [FAILS] * 2 + [HOLDS] * 3 + [NO_RECORDS] * 2 + [HOLDS]
    assert (float(lines[0]["ours"]), lines[0]["verdict"], lines[1]["verdict"]) == (pytest.approx(6), FAILS, HOLDS)
    content = json.loads(render("fig5", FIG5, judgements, "json"))
    assert [claim["counts"] for claim in content["claims"]] == [
        {HOLDS: 0, FAILS: 1, NO_RECORDS: 0},
        {HOLDS: 1, FAILS: 0, NO_RECORDS: 0},
        *[{HOLDS: 0, FAILS: 0, NO_RECORDS: 0}] * 2,
        {HOLDS: 1, FAILS: 0, NO_RECORDS: 0},
    ]
    check = content["claims"][0]["settings"][0]["checks"][0]
    assert (check["at_most"], check["value"]) == (3, pytest.approx(6))


@pytest.mark.slow
def test_the_command_prints_verdicts_on_a_file_of_claims(bench):
    store = Store(bench.folder / "results")
    store.check_writable()
    store.save(pair(0.6))
    store.save(pair(0.8, linear=0.01))
    words = "table", "--against", FOLDER / "fig4.yaml"
    result = bench(*words)
    assert (result.code, result.err) == (0, "")
    assert "Holds in 1 of 2 settings." in result.out
    content = json.loads(bench(*words, "--format", "json", "--cue-rates", "0.6").out)
    assert [claim["counts"][HOLDS] for claim in content["claims"]] == [1, 1, 1, 1, 1]
    assert bench("table", "--against", FOLDER / "fig5.yaml").code == 5
    assert bench(*words, "--format", "html").out.count("<table>") == 5


def test_both_files_are_registered_under_their_names():
    registered = []
    importlib.import_module("mmc_bench_benchmarks").register_published(registered.append)
    assert {"fig4.yaml", "fig5.yaml"} <= {path.name for path in registered}


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("{value: dip of linear on C, at_most: 3}", "or .loss. barrier, drop or fall of PATH"),
        ("{value: drop of cubic on C, at_most: 3}", "where PATH is linear, permuted"),
        ("{value: drop of linear on C}", "one of at_least, at_most, within"),
        ("{value: drop of linear on C, atmost: 3}", "did you mean at_most"),
        ("{difference: [differing invariances, differing invariances for m], at_most: 3}", "on pairs of models, or"),
    ],
)
def test_mistakes_in_a_file_are_one_sentence(tmp_path, check, says):
    file = tmp_path / "mine.yaml"
    file.write_text(f"source: me\nclaims:\n  - statement: it holds\n    checks:\n      - {check}\n")
    with pytest.raises(UserError, match=f"mine.yaml.*{says}"):
        read_claims(file)
