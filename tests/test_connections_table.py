"""Conjecture 1 as a table: barriers and verdicts of pairs and cells, the count, the formats, and the command."""

import csv
import io
import json
import re
import subprocess
import sys

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

from mmc_bench.landscape.invariance import TOLERANCE
from mmc_bench.report.connection_tables import render
from mmc_bench.report.connections import connections, tally, unpermuted
from mmc_bench.results.records import Effect, PathRecord
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.results.store import Store

BROKEN = "randomise cue"


def path(**losses):
    """Return a path whose loss on each split rises from .2 by these heights in the middle."""
    along = {split: [0.2, 0.2 + losses.get(split, 0.0), 0.2] for split in ("NC", "C", "RC", "RI")}
    return PathRecord(test=connectivity_record(flat(), losses=along))


def pair(similar=False, seed=0, distance=None, **paths):
    record = pair_record(seed=seed, similar=similar, distance=distance)
    return record.model_copy(update={"comparison": record.comparison.model_copy(update={"paths": paths})})


def cell(method="tune", broken=(), connect=None, **paths):
    record = cell_record(0, method, connect=connect).model_copy(update={"invariance": invariance_record(*broken)})
    return record.model_copy(update={"paths": paths})


def model(*broken):
    return pretrain_record().model_copy(update={"invariance": invariance_record(*broken)})


def only(found):
    (one,) = found
    return one


# --- from records


def test_a_path_s_largest_barrier_is_that_of_all_splits_and_verdicts_are_the_record_s():
    measured = path(NC=0.02, C=0.3, RC=0.7, RI=0.1)
    summary = only(connections([pair(linear=measured)], [], [])).paths["linear"].test
    assert summary.largest_barrier == pytest.approx(0.7)
    assert (summary.barriers["C"].loss, summary.barriers["NC"].loss) == pytest.approx((0.3, 0.02))
    assert (summary.mode_connected["NC"], summary.mode_connected["C"]) == (True, False)
    assert summary.mechanistically_connected is False
    assert only(connections([pair(linear=path())], [], [])).paths["linear"].test.mechanistically_connected is True


def ends_alone(first=0.2, last=0.2):
    """Return a path of two points with these losses on all splits."""
    losses = {split: [first, last] for split in ("NC", "C", "RC", "RI")}
    return PathRecord(test=connectivity_record(flat(points=2), losses=losses))


def test_two_points_tell_no_barrier_and_at_most_that_a_path_does_not_connect():
    level, steep = ends_alone().test, ends_alone(0.2, 0.9).test
    assert (level.height("C"), level.largest_barrier, steep.height("C")) == (None, None, None)
    assert (level.connected("C"), level.fully_connected) == (None, None)
    assert (steep.connected("C"), steep.fully_connected) == (False, False)
    found = connections([pair(similar=True, linear=ends_alone())], [], [])
    assert only(found).linearly_connected is None and sum(tally(found).values()) == unpermuted(found) == 0
    assert "– / – / – | – / – / – | – |" in re.sub(r" +", " ", render(found, "md"))
    line = next(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert {line[name] for name in ("linear_barrier_C", "linear_connected_C", "linearly_connected")} == {""}
    assert json.loads(render(found, "json"))["connections"][0]["linearly_connected"] is None


def test_a_path_that_is_not_straight_tells_nothing_of_linear_connectivity():
    found = connections([pair(similar=True, quadratic=path())], [], [])
    assert only(found).linearly_connected is None
    mixed = connections([pair(similar=True, linear=ends_alone(), permuted=path(C=1.0))], [], [])
    assert only(mixed).linearly_connected is False


@pytest.mark.parametrize(
    ("paths", "connected"),
    [
        ({"linear": path(C=TOLERANCE - 0.001, NC=3.0)}, True),
        ({"linear": path(C=TOLERANCE + 0.001)}, False),
        ({"linear": path(C=1.0), "permuted": path(C=0.01)}, True),
        ({"linear": path(C=1.0), "permuted": path(C=0.5), "quadratic": path()}, False),
    ],
)
def test_linearly_connected_means_no_barrier_on_c_with_or_without_permutation(paths, connected):
    assert only(connections([pair(**paths)], [], [])).linearly_connected is connected


def test_a_cell_is_similar_when_it_has_the_invariances_of_its_pretrained_model():
    alike, changed = cell("tune", [BROKEN], linear=path()), cell("mend", linear=path())
    found = connections([], [alike, changed], [model(BROKEN)])
    assert [(item.first, item.second, item.similar) for item in found] == [
        ("digits net cue rate 0.9 seed 0", "tune", True),
        ("digits net cue rate 0.9 seed 0", "mend", False),
    ]


def test_without_invariances_or_the_pretrained_record_similarity_is_unknown_and_not_counted():
    for pretrained in ([], [pretrain_record()]):
        item = only(connections([], [cell(linear=path())], pretrained))
        assert item.similar is None
        assert set(tally([item]).values()) == {0}


def test_every_record_is_a_row_and_those_that_look_alike_say_what_differs():
    variants = [cell(plugin("tune", lr=lr), linear=path()) for lr in (0.1, 0.2)]
    found = connections([pair(seed=seed, linear=path()) for seed in (0, 1)], variants, [])
    assert [item.kind for item in found] == ["pair", "pair", "cell", "cell"]
    assert [(item.first, item.second) for item in found] == [
        ("digits net cue rate 0.8 seed 0", "digits net cue rate 0 seed 1"),
        ("digits net cue rate 0.8 seed 1", "digits net cue rate 0 seed 2"),
        ("digits net cue rate 0.9 seed 0", "tune (lr=0.1)"),
        ("digits net cue rate 0.9 seed 0", "tune (lr=0.2)"),
    ]
    finer = pair_record(connect=ConnectSettings(points=5))
    labels = [item.first.rpartition(" (")[2] for item in connections([pair_record(), finer], [], [])]
    assert labels == ["points=11)", "points=5)"]


@pytest.fixture
def several():
    high = {"linear": path(C=1.0), "permuted": path(C=1.0)}
    pairs = [
        pair(similar=True, seed=0, distance=0.25, linear=path()),
        pair(similar=True, seed=1, linear=path(C=1.0), permuted=path()),
        pair(similar=False, seed=2, linear=path()),
        pair(similar=False, seed=3, **high),
        pair(similar=True, seed=4, linear=path(C=1.0)),
    ]
    cells = [cell("tune", linear=path(C=2.0)), cell("mend", [BROKEN], **high)]
    return connections(pairs, cells, [model(BROKEN)])


def test_the_count_is_of_connected_by_similar(several):
    assert tally(several) == {(True, True): 2, (True, False): 1, (False, True): 2, (False, False): 2}
    assert unpermuted(several) == 2


# --- formats


def test_markdown_has_a_row_a_record_the_rule_and_the_count(several):
    text = render(several, "md")
    rows = [
        [word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| digits")
    ]
    assert len(rows) == 7
    both = "digits net cue rate 0.8 seed 1", "digits net cue rate 0 seed 2"
    assert rows[1] == [
        *both,
        "1.00 / 0.00 / 1.00",
        "no / yes / no",
        "0.00 / 0.00 / 0.00",
        "yes / yes / yes",
        "yes",
        "yes",
        "–",
    ]
    assert rows[0][4:] == ["–", "–", "yes", "yes", "0.250"]
    assert "at most 0.05 nats above the chord" in text
    count = text.split("|:")[-1].splitlines()[1:3]
    assert [[word.strip() for word in line.split("|")[1:-1]] for line in count] == [
        ["**linearly connected**", "2", "1"],
        ["**not linearly connected**", "2", "2"],
    ]
    assert "similar though not linearly connected: 2 of 7 are there." in text
    assert "Of those not connected, 2 were not tried with a permutation." in text


def test_csv_has_the_unrounded_numbers_and_the_counts(several):
    lines = list(csv.DictReader(io.StringIO(render(several, "csv"))))
    assert [line["kind"] for line in lines] == ["pair"] * 5 + ["cell"] * 2 + ["count"] * 4
    assert float(lines[1]["linear_barrier_C"]) == several[1].paths["linear"].test.barriers["C"].loss
    assert float(lines[1]["linear_largest_barrier"]) == several[1].paths["linear"].test.largest_barrier
    assert (lines[1]["linear_connected_C"], lines[1]["permuted_mechanistically_connected"]) == ("False", "True")
    assert (lines[0]["permuted_barrier_C"], lines[0]["pattern_distance"]) == ("", "0.25")
    counts = {(line["linearly_connected"], line["similar"]): line["count"] for line in lines[-4:]}
    assert counts == {("True", "True"): "2", ("True", "False"): "1", ("False", "True"): "2", ("False", "False"): "2"}


def test_json_has_the_same_and_states_its_tolerance(several):
    content = json.loads(render(several, "json"))
    assert content["tolerance"] == TOLERANCE
    assert len(content["connections"]) == 7
    last = content["connections"][-1]
    assert (last["second"], last["linearly_connected"], last["similar"]) == ("mend", False, True)
    assert last["paths"]["permuted"]["barrier_C"] == pytest.approx(1.0)
    assert {"linearly_connected": False, "similar": True, "count": 2} in content["counts"]


# --- the command


def stored(bench, *records):
    store = Store(bench.folder / "results")
    store.check_writable()
    for record in records:
        store.save(record)


@pytest.mark.slow
def test_the_command_takes_pairs_and_cells_and_can_be_narrowed(bench):
    stored(bench, model(BROKEN), cell(linear=path()), pair_record(0.6), pair_record(0.8))
    content = json.loads(bench("table", "--connections", "--format", "json").out)
    assert [item["kind"] for item in content["connections"]] == ["pair", "pair", "cell"]
    assert content["connections"][-1]["similar"] is False
    narrow = json.loads(bench("table", "--connections", "--format", "json", "--cue-rates", "0.8").out)
    assert [item["first"] for item in narrow["connections"]] == ["digits net cue rate 0.8 seed 0"]
    methods = json.loads(bench("table", "--connections", "--format", "json", "--methods", "tune").out)
    assert [item["second"] for item in methods["connections"]] == ["tune"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--connections", "--against", "table1"], 4, "ask for one at a time"),
        (["--connections", "--seeds", "7"], 5, "no record of a pair or cell"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(bench, words, code, says):
    stored(bench, pair_record())
    result = bench("table", *words)
    assert (result.code, result.out) == (code, "")
    assert says in result.err and len(result.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_effects_of_interventions_stand_beside_the_verdict(bench):
    names = ("remove cue", "randomise cue", "randomise image")
    effect = Effect(
        split="NC", loss_changes=(1.5, 0.0), accuracy_changes=(-0.25, 0.5), flips=(0.5, 0.25), flips_of_both=0.125
    )
    record = pair_record()
    comparison = record.comparison.model_copy(update={"effects": dict.fromkeys(names, effect)})
    stored(bench, record.model_copy(update={"comparison": comparison}))
    text = bench("table", "--connections").out
    for name in names:
        assert all(f"{name}: {what}" in text for what in ("Δ loss", "Δ accuracy", "flips"))
    assert text.count("+1.50 / +0.00") == text.count("-25.0 / +50.0") == text.count("50.0 / 25.0 / 12.5") == 3
    line = next(csv.DictReader(bench("table", "--connections", "--format", "csv").out.splitlines()))
    assert (line["remove_cue_loss_changes_first"], line["randomise_image_flips_second"]) == ("1.5", "0.25")
    assert line["randomise_cue_flips_of_both"] == "0.125"
    content = json.loads(bench("table", "--connections", "--format", "json").out)
    assert content["connections"][0]["effects"]["remove cue"] == effect.model_dump(mode="json")


@pytest.mark.slow
def test_it_is_printed_without_torch(bench):
    stored(bench, pair_record(), model(BROKEN), cell(linear=path()))
    code = (
        "import sys\n"
        "sys.argv = ['mmc-bench', 'table', '--connections']\n"
        "from mmc_bench.cli.main import run_command_line\n"
        "code = run_command_line()\n"
        "print('IMPORTED', [name for name in ('torch', 'matplotlib', 'scipy') if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=bench.folder, timeout=60)
    assert done.stdout.splitlines()[-1] == "IMPORTED [] 0", done.stderr
