"""Pairs of pretrained models: planned, run, kept and made again like cells."""

import json
from dataclasses import replace

import pytest

from mmc_bench.landscape.alignment import align
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import Pair, models_of
from mmc_bench.results.records import PairRecord
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.seeds import derive_seed
from mmc_bench.suites.plan import make_plan
from mmc_bench.suites.suite import load_suite

pytestmark = pytest.mark.slow

PAIRS = """
datasets: [tiny-set]
backbones: [tiny-net]
methods: []
cue_rates: [0.5, 0.9]
seeds: [0]
threads: 1
pairs:
  - second: {cue_rate: 0.0, seed: 1}
pretrain: {epochs: 2, batch_size: 12, lr: 0.05}
connect:
  paths: [linear, permuted, quadratic, quadratic-nc]
  points: 4
  train_images: 20
  quadratic: {epochs: 2, batch_size: 12}
"""


@pytest.fixture
def suite(bench):
    (bench.folder / "pairs.yaml").write_text(PAIRS)
    return bench


def run(suite, *words):
    return suite("run", "--suite", "pairs.yaml", "--workers", 0, *words)


def test_each_model_of_the_grid_is_compared_with_one_trained_without_cues(suite):
    done = run(suite)
    assert (done.code, "2 pairs: 2 computed, 0 cached" in done.err) == (0, True), done.err
    found = [record for record in suite.records().values() if record["kind"] == "pair"]
    ends = {
        (r["pair"]["first"]["cue_rate"], r["pair"]["second"]["cue_rate"], r["pair"]["second"]["seed"]) for r in found
    }
    assert ends == {(0.5, 0.0, 1), (0.9, 0.0, 1)}
    assert sum(record["kind"] == "pretraining" for record in suite.records().values()) == 3
    again = run(suite)
    assert (again.code, "2 pairs: 0 computed, 2 cached" in again.err) == (0, True)


def test_a_pairs_record_holds_every_path_on_test_and_training_images(suite):
    run(suite, "--cue-rates", "0.9")
    (path,) = (suite.folder / "results" / "pairs").glob("*.json")
    record = PairRecord.model_validate_json(path.read_text())
    assert list(record.comparison.paths) == ["linear", "permuted", "quadratic", "quadratic-nc"]
    for name, along in record.comparison.paths.items():
        for curves, prefix in ((along.test, ""), (along.train, "train ")):
            assert curves.t == (0, 1 / 3, 2 / 3, 1) and set(curves.splits) == {"NC", "C", "RC", "RI"}
            assert record.comparison.scores.keys() >= {prefix + split for split in curves.splits}
            for split, curve in curves.splits.items():
                same_ends = record.comparison.paths["linear"], getattr(along, "test" if not prefix else "train")
                others = getattr(same_ends[0], "train" if prefix else "test").splits[split]
                assert (curve.loss[0], curve.loss[-1]) == pytest.approx((others.loss[0], others.loss[-1]), rel=1e-4)
        assert (along.alignment is not None) == (name == "permuted")
        assert (along.bend_loss is not None) == name.startswith("quadratic")
    assert record.comparison.paths["permuted"].alignment.verified
    assert record.comparison.paths["linear"].test.splits != record.comparison.paths["quadratic"].test.splits


def test_a_path_ends_in_models_whose_statistics_were_reestimated_and_scores_are_those_of_their_own(suite):
    run(suite, "--cue-rates", "0.9")
    (path,) = (suite.folder / "results" / "pairs").glob("*.json")
    comparison = PairRecord.model_validate_json(path.read_text()).comparison
    for split, (first, second) in comparison.scores.items():
        of = comparison.paths["linear"].train if split.startswith("train ") else comparison.paths["linear"].test
        curve = of.splits[split.removeprefix("train ")]
        assert abs(curve.loss[0] - first.loss) > 1e-3 and abs(curve.loss[-1] - second.loss) > 1e-3


def test_a_pair_is_made_again_when_one_of_its_models_was(suite):
    run(suite, "--cue-rates", "0.9")
    (path,) = (suite.folder / "results" / "pairs").glob("*.json")
    content = json.loads(path.read_text())
    key = content["pair"]["second"]  # the model without cues: give its record other weights
    for record in (suite.folder / "results" / "pretrained").glob("*.json"):
        other = json.loads(record.read_text())
        if other["pretraining"] == key:
            record.unlink()
            for weights in record.parent.glob("*.safetensors"):
                weights.unlink()
    before = path.read_text()
    assert run(suite, "--cue-rates", "0.9").code == 0
    assert path.read_text() == before  # the same weights came back
    record.write_text(json.dumps({**json.loads(record.read_text()), "weights_sha256": "0" * 64}))
    dry = suite("run", "--suite", "pairs.yaml", "--cue-rates", "0.9", "--dry-run")
    assert "1 pair, 0 cached, 1 to run" in dry.out


def test_a_path_does_not_depend_on_which_others_are_measured(suite):
    def bends(paths):
        text = PAIRS.replace("[linear, permuted, quadratic, quadratic-nc]", paths)
        (suite.folder / "pairs.yaml").write_text(text)
        assert run(suite, "--cue-rates", "0.9").code == 0
        records = map(json.loads, (path.read_text() for path in (suite.folder / "results" / "pairs").glob("*.json")))
        found = next(record for record in records if len(record["comparison"]["paths"]) == count)
        return found["comparison"]["paths"]["quadratic-nc"], found["provenance"]["seeds"]

    count = 1
    alone, seeds = bends("[quadratic-nc]")
    assert seeds["path quadratic-nc"] == derive_seed("path quadratic-nc", 0) and "path linear" not in seeds
    count = 3
    assert bends("[linear, quadratic, quadratic-nc]")[0] == alone


def test_a_permuted_network_that_computes_something_else_is_never_measured(suite, monkeypatch):
    def torn(*arguments, **options):
        return replace(align(*arguments, **options), verified=False, difference=0.25)

    monkeypatch.setattr("mmc_bench.landscape.measure.align", torn)
    failing = run(suite, "--cue-rates", "0.9")
    assert failing.code == 1 and "does not compute what the network did (outputs differ by 2e-01" in failing.err


def test_a_pair_without_one_of_its_models_fails_with_that_models_error(suite, monkeypatch):
    failing = run(suite, "--set", "tiny-net.width=0")
    assert failing.code == 1 and "its pretraining failed" in failing.err


def test_dry_run_and_status_tell_of_pairs(suite):
    dry = suite("run", "--suite", "pairs.yaml", "--dry-run")
    assert "2 pairs, 0 cached, 2 to run; 3 of 3 pretrainings to run" in dry.out
    assert "pair tiny-set tiny-net cue rate 0.5 seed 0 – cue rate 0, seed 1" in dry.out
    assert "2 pairs, 0 done" in suite("status", "--suite", "pairs.yaml").out


def test_dry_run_and_status_tell_of_pretraining_alone(suite):
    (suite.folder / "pairs.yaml").write_text(PAIRS[: PAIRS.index("pairs:")] + "pretrain: {epochs: 2, batch_size: 12}")
    dry = suite("run", "--suite", "pairs.yaml", "--dry-run")
    assert "pretraining alone; 2 of 2 pretrainings to run" in dry.out
    run(suite, "--cue-rates", "0.9")
    status = suite("status", "--suite", "pairs.yaml").out
    assert "2 pretrainings, 1 done, 1 missing" in status
    assert "tiny-set  tiny-net  cue rate 0.5  pretraining  1 missing" in status


def test_pairs_name_data_sets_of_the_suite_alone(suite):
    text = PAIRS.replace("{cue_rate: 0.0, seed: 1}", "{dataset: tiny-sett}")
    (suite.folder / "pairs.yaml").write_text(text)
    refused = run(suite)
    assert refused.code == 4
    assert "pairs name dataset 'tiny-sett', not of this suite: did you mean tiny-set?" in refused.err


def test_a_model_is_not_paired_with_itself(suite):
    (suite.folder / "pairs.yaml").write_text(PAIRS.replace("cue_rate: 0.0, seed: 1", "cue_rate: 0.5"))
    dry = suite("run", "--suite", "pairs.yaml", "--dry-run")
    assert "1 pair," in dry.out  # .9 with .5, but not .5 with .5


def test_a_pair_compares_on_another_experiments_data_where_the_suite_says_so(cell):
    first = cell.pretraining
    second, data = (replace(first, seed=seed) for seed in (7, 8))
    pair = Pair(versions={"connect": "1"}, first=first, second=second, data=data, connect=ConnectSettings())
    assert models_of(pair) == (first, second)
    assert pair.key != replace(pair, data=first).key


def test_the_small_figures_suites_have_the_pairs_that_they_promise():
    registry = Registry.discover()
    suite = load_suite("fig4-small", registry.suites)
    plan = make_plan(suite, registry)
    assert {pair.second.cue_rate for pair in plan.pairs} == {0.0}
    assert all(pair.first.seed != pair.second.seed and pair.data == pair.first for pair in plan.pairs)
    assert [pair.first.cue_rate for pair in plan.pairs] == list(suite.cue_rates)


def test_models_of_one_data_seed_share_their_images_and_differ_in_weights(suite):
    done = run(suite, "--cue-rates", "0.9", "--set", "data.seed=5")
    assert done.code == 0, done.err
    records = [json.loads(path.read_text()) for path in (suite.folder / "results" / "pretrained").glob("*.json")]
    first, second = (record["provenance"]["seeds"] for record in records)
    assert {name for name in first if first[name] != second[name]} == {"experiment", "pretraining"}
    assert first["held-out sets"] == derive_seed("held-out sets", 5)
    # Models of one recipe that differ in nothing but the seed.
    text = PAIRS.replace("cue_rate: 0.0, seed: 1", "seed: 1").replace("threads: 1", "threads: 1\ndata: {seed: 5}")
    (suite.folder / "pairs.yaml").write_text(text)
    assert run(suite, "--cue-rates", "0.9").code == 0
    (pair,) = [r for r in suite.records().values() if r["kind"] == "pair" and r["pair"]["second"]["cue_rate"] == 0.9]
    assert pair["weights_sha256"][0] != pair["weights_sha256"][1]
    assert pair["comparison"]["effects"].keys() == {"remove cue", "randomise cue", "randomise image"}


def test_matching_on_cued_images_is_another_measurement(suite):
    text = PAIRS.replace("[linear, permuted, quadratic, quadratic-nc]", "[permuted]")
    (suite.folder / "pairs.yaml").write_text(text)
    for images in ("cue-free", "cued"):
        assert run(suite, "--cue-rates", "0.9", "--set", f"connect.matching_images={images}").code == 0
    pairs = [record for record in suite.records().values() if record["kind"] == "pair"]
    assert {pair["pair"]["connect"]["matching_images"] for pair in pairs} == {"cue-free", "cued"}
