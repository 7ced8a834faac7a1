"""``mmc-bench connect``: what it takes for a checkpoint, what it measures, keeps, prints and refuses."""

import csv
import io
import json
import shutil
import sys

import pytest
import torch
from conftest import PLUGINS, TINY_SUITE
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from mmc_bench.cli.main import run_command_line
from mmc_bench.results.codec import read_record
from mmc_bench.results.records import ConnectionRecord
from mmc_bench.results.store import Store

pytestmark = pytest.mark.slow

TINY = ("--backbone", "tiny-net", "--dataset", "tiny-set")
PLAIN = (*TINY, "--set", "tiny-net.norm=false")  # without BatchNorm, whose statistics differ inside a path
FAST = ("--points", "3", "--precision", "fp32", "--threads", "1", "--format", "csv", "--json")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two pretrainings, a cell with its weights and one without, made once."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY_SUITE)
    run = ["run", "--suite", "tiny.yaml", "--workers", "0", "--precision", "fp32", "--methods"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MMC_BENCH_PLUGINS", str(PLUGINS))
        for words in (["tiny-ft", "--keep-weights", "--seeds", "0"], ["tiny-still", "--seeds", "0,1"]):
            patch.setattr(sys, "argv", ["mmc-bench", *run, *words])
            assert run_command_line() == 0
    return folder / "results"


@pytest.fixture
def keys(bench, results):
    """Copy those results into the test's folder, and return their keys: A and B, the cells `ft` and `still`."""
    shutil.copytree(results, bench.folder / "results")
    found = {}
    for record in bench.records().values():
        if record["kind"] == "pretraining":
            found["AB"[record["pretraining"]["seed"]]] = record["key"]
        elif (cell := record["cell"])["pretraining"]["seed"] == 0:
            found[cell["method"]["name"].removeprefix("tiny-")] = record["key"]
    return found


def plain_weights(seed, scale=3.0):
    """Return weights of a tiny network without BatchNorm, large enough for its losses to be far apart."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (3, 4), "head.bias": (3,)}
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def files(bench):
    """Save two networks without BatchNorm as a.safetensors and b.safetensors."""
    for seed, name in enumerate("ab"):
        save_file(plain_weights(seed), bench.folder / f"{name}.safetensors")


def connected(bench, *words):
    """Return what a successful call prints as JSON."""
    result = bench("connect", *words, *FAST)
    assert result.code == 0, result.err
    return json.loads(result.out)


def ends(along, measure):
    return along[measure][0], along[measure][-1]


def weights_of(bench, key):
    """Return the weights file of a pretraining's record."""
    store = Store(bench.folder / "results")
    return store.weights_file(read_record(store.root / "pretrained" / f"{key}.json").pretraining)


def test_a_model_and_itself_have_a_barrier_of_exactly_zero_and_all_mechanisms_in_common(bench, keys):
    comparison = connected(bench, keys["ft"], keys["ft"], "--train-images", 20)["record"]["comparison"]
    assert comparison["similar"] and set(comparison["paths"]) == {"linear", "permuted"}
    for path in comparison["paths"].values():
        for part in (path["test"], path["train"]):
            barriers = part["barriers"].values()
            assert {(barrier["loss"], barrier["accuracy"]) for barrier in barriers} == {(0.0, 0.0)}
            assert part["mechanistically_connected"]
    for effect in comparison["effects"].values():
        assert effect["flips"] == [effect["flips_of_both"]] * 2


def test_a_prefix_and_a_key_name_records_whose_scores_are_those_of_the_comparison(bench, keys):
    content = connected(bench, keys["A"][:6], keys["ft"])
    record = content["record"]
    connection = record["connection"]
    assert [connection[end]["record"] for end in ("first", "second")] == [keys["A"], keys["ft"]]
    own = [bench.records()[f"{keys[name]}.json"] for name in ("A", "ft")]
    assert [connection[end]["weights_sha256"] for end in ("first", "second")] == [one["weights_sha256"] for one in own]
    assert own[0]["metrics"]["C"] != own[1]["metrics"]["C"]
    assert set(record["comparison"]["paths"]) == {"linear", "permuted"}
    linear, permuted = (path["test"]["splits"] for path in record["comparison"]["paths"].values())
    for split in ("NC", "C", "RC", "RI"):
        for measure in ("accuracy", "loss"):
            found = [score[measure] for score in record["comparison"]["scores"][split]]
            assert found == pytest.approx([one["metrics"][split][measure] for one in own], abs=1e-6)
            assert ends(linear[split], measure) == ends(permuted[split], measure)
    kept = json.loads((bench.folder / content["file"]).read_text())
    assert kept["provenance"].pop("sha256")  # the file's own, not the record's
    assert kept == record
    assert (bench.folder / "results" / "connections" / f"{record['key']}.json").exists()


def test_a_record_s_file_is_enough_wherever_it_lies(bench, keys):
    (bench.folder / "results").rename(bench.folder / "elsewhere")
    names = [f"elsewhere/pretrained/{keys[end]}.json" for end in "AB"]
    record = connected(bench, *names, "--paths", "linear")["record"]
    assert [record["connection"][end]["record"] for end in ("first", "second")] == [keys["A"], keys["B"]]
    assert record["connection"]["experiment"]["seed"] == 0
    assert record["connection"]["experiment"]["cue_rate"] == 0.9


def test_a_record_and_a_file_compare_on_the_record_s_data(bench, keys):
    shutil.copy(weights_of(bench, keys["A"]), bench.folder / "copy.safetensors")
    record = connected(bench, "copy.safetensors", keys["B"], "--paths", "linear")["record"]
    assert record["connection"]["first"]["label"] == "copy.safetensors"
    experiment = record["connection"]["experiment"]
    assert (experiment["seed"], experiment["cue_rate"], experiment["dataset"]["name"]) == (1, 0.9, "tiny-set")
    other = connected(bench, "copy.safetensors", keys["B"], "--paths", "linear", "--seed", "5", "--cue-rate", "0.5")
    assert other["record"]["connection"]["experiment"]["seed"] == 5
    assert other["record"]["comparison"]["scores"] != record["comparison"]["scores"]


def test_identical_models_have_no_barrier_and_are_similar(bench, files):
    shutil.copy(bench.folder / "a.safetensors", bench.folder / "twin.safetensors")
    comparison = connected(bench, "a.safetensors", "twin.safetensors", *PLAIN)["record"]["comparison"]
    assert comparison["similar"]
    for path in comparison["paths"].values():
        assert path["test"]["mechanistically_connected"]
        for barrier in path["test"]["barriers"].values():
            assert barrier == pytest.approx({"accuracy": 0, "loss": 0}, abs=1e-5)


def test_the_middle_of_the_line_is_the_mean_of_the_weights(bench, files):
    one, other = plain_weights(0), plain_weights(1)
    save_file({name: (one[name] + other[name]) / 2 for name in one}, bench.folder / "mean.safetensors")
    path = connected(bench, "a.safetensors", "b.safetensors", *PLAIN, "--paths", "linear")
    mean = connected(bench, "mean.safetensors", "a.safetensors", *PLAIN, "--paths", "linear")
    scores = mean["record"]["comparison"]["scores"]
    for split, curve in path["record"]["comparison"]["paths"]["linear"]["test"]["splits"].items():
        assert curve["loss"][1] == pytest.approx(scores[split][0]["loss"], rel=1e-5)
    barrier = path["record"]["comparison"]["paths"]["linear"]["test"]["barriers"]["C"]["loss"]
    chord = sum(score["loss"] for score in path["record"]["comparison"]["scores"]["C"]) / 2
    assert barrier == pytest.approx(max(0, scores["C"][0]["loss"] - chord), rel=1e-5)


def test_a_permuted_copy_is_connected_by_the_permuted_path_alone(bench, files):
    weights, order = plain_weights(0), [2, 3, 1, 0]
    permuted = {
        "conv.weight": weights["conv.weight"][order],
        "conv.bias": weights["conv.bias"][order],
        "head.weight": weights["head.weight"][:, order].contiguous(),
        "head.bias": weights["head.bias"],
    }
    save_file(permuted, bench.folder / "permuted.safetensors")
    paths = connected(bench, "a.safetensors", "permuted.safetensors", *PLAIN)["record"]["comparison"]["paths"]
    bent, flat = (paths[name]["test"]["splits"]["C"]["loss"] for name in ("linear", "permuted"))
    assert max(bent) - min(bent) > 0.5
    assert max(flat) - min(flat) < 1e-4
    assert list(paths["permuted"]["alignment"]["groups"].values()) == [[4, 4]]
    text = bench("connect", "a.safetensors", "permuted.safetensors", *PLAIN, *FAST[:-1]).out
    assert "4 of 4 units in 1 of 1 groups of A changed places" in text
    assert "the permuted A computes the same function" in text


def test_a_second_call_reads_the_record_back(bench, keys, monkeypatch):
    words = ("connect", keys["A"], keys["B"], "--paths", "linear", *FAST[:-1])
    first = bench(*words)
    assert "computed in" in first.err
    monkeypatch.setattr("mmc_bench.stages.checkpoint_pairs.compare_checkpoints", lambda *_: 1 / 0)
    file = next((bench.folder / "results" / "connections").glob("*.json"))
    before = file.read_bytes(), file.stat().st_mtime_ns
    second = bench(*words)
    assert (second.code, second.out) == (0, first.out)
    assert "read back, nothing computed" in second.err
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    shutil.copy(weights_of(bench, keys["A"]), bench.folder / "new.safetensors")
    renamed = bench("connect", "new.safetensors", keys["B"], "--paths", "linear", "--seed", "0", *FAST)
    assert json.loads(renamed.out)["cached"]
    assert json.loads(renamed.out)["record"]["connection"]["first"]["label"] == "new.safetensors"
    assert bench(*words, "--points", "4").code == 3  # another question


def test_a_record_that_was_tampered_with_is_not_taken_for_an_answer(bench, files):
    words = ("a.safetensors", "b.safetensors", *PLAIN, "--paths", "linear")
    content = connected(bench, *words)
    file = bench.folder / content["file"]
    changed = json.loads(file.read_text())
    changed["connection"]["second"]["weights_sha256"] = "0" * 64
    with pytest.raises(ValidationError):
        ConnectionRecord.model_validate(changed)
    file.write_text(json.dumps(changed))
    again = connected(bench, *words)
    assert not again["cached"]
    assert again["record"]["comparison"] == content["record"]["comparison"]


def test_the_csv_has_the_record_s_numbers_and_the_splits_asked_for(bench, files):
    content = connected(
        bench, "a.safetensors", "b.safetensors", *PLAIN, "--splits", "C,RI", "--train-images", 20, "--format", "svg"
    )
    table = next(name for name in content["figures"] if name.endswith(".csv"))
    rows = list(csv.DictReader(io.StringIO((bench.folder / table).read_text())))
    paths = content["record"]["comparison"]["paths"]
    own = [row for row in rows if row["statistics"] == "own"]
    rows = [row for row in rows if row["statistics"] == "re-estimated"]
    expected = [
        (name, which, split, t, accuracy, loss)
        for name, path in paths.items()
        for which in ("test", "train")
        for split in ("C", "RI")
        for t, accuracy, loss in zip(
            path[which]["t"], path[which]["splits"][split]["accuracy"], path[which]["splits"][split]["loss"]
        )
    ]
    found = [(r["path"], r["set"], r["split"], *(float(r[name]) for name in ("t", "accuracy", "loss"))) for r in rows]
    assert found == expected
    assert len(found) == 2 * 2 * 2 * 3
    for row in own:  # the two checkpoints as they are, at either end of each path
        name = {"test": "", "train": "train "}[row["set"]] + row["split"]
        score = content["record"]["comparison"]["scores"][name][int(float(row["t"]))]
        assert (float(row["accuracy"]), float(row["loss"])) == (score["accuracy"], score["loss"])
    assert len(own) == 2 * 2 * 2 * 2
    assert paths["linear"]["test"]["splits"]["C"] != paths["linear"]["train"]["splits"]["C"]


def test_the_table_says_what_the_record_says(bench, files):
    words = ("a.safetensors", "b.safetensors", *PLAIN, "--splits", "NC,RC")
    comparison = connected(bench, *words)["record"]["comparison"]
    lines = bench("connect", *words, *FAST[:-1]).out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert cells[0] == ["path", "NC", "RC", "mechanistically connected"]
    for row in cells[1:3]:
        test = comparison["paths"][row[0]]["test"]
        for split, cell in zip(("NC", "RC"), row[1:3]):
            barrier, connected_ = test["barriers"][split], test["mode_connected"][split]
            verdict = "yes" if connected_ else "no"
            assert cell == f"{100 * barrier['accuracy']:.1f} / {barrier['loss']:.2f} / {verdict}"
    changes = [row for row in cells if len(row) == 8 and row[0] in "AB"]
    assert len(changes) == 6
    for row, (place, effect) in zip(changes, [(p, e) for p in (0, 1) for e in comparison["effects"].values()]):
        assert float(row[6]) == pytest.approx(100 * effect["accuracy_changes"][place], abs=0.051)
        assert row[7] == f"{100 * effect['flips'][place]:.1f} / {100 * effect['flips_of_both']:.1f}"
    for row, one in zip(changes, [one for model in comparison["invariance"] for one in model.values()]):
        assert float(row[4]) == pytest.approx(one["loss_with"] - one["loss_without"], abs=0.0051)
        assert row[5] == ("yes" if one["invariant"] else "no")
    assert lines[-1].endswith("yes" if comparison["similar"] else "no")


def test_json_is_one_object_and_the_figures_are_pictures(bench, files):
    words = ("connect", "a.safetensors", "b.safetensors", *PLAIN, "--points", "3", "--paths", "linear", "--out", "pics")
    result = bench(*words, "--json")
    content = json.loads(result.out)
    assert set(content) == {"cached", "file", "figures", "record"}
    assert ConnectionRecord.model_validate(content["record"]).key in content["file"]
    for name in content["figures"]:
        start = (bench.folder / name).read_bytes()[:300]
        assert name.endswith(".csv") or start.startswith(b"\x89PNG") or b"<svg" in start or b"<?xml" in start
    assert sorted(name.rpartition(".")[2] for name in content["figures"]) == ["csv", "png", "svg"]


def test_inner_settings_can_be_set(bench, files):
    words = ("a.safetensors", "b.safetensors", *PLAIN, "--paths", "quadratic", "--matching", "weights")
    content = connected(bench, *words, "--set", "connect.quadratic.epochs=2", "--set", "connect.quadratic.lr=0.001")
    record = content["record"]
    assert record["connection"]["connect"]["quadratic"]["epochs"] == 2
    assert record["connection"]["connect"]["matching"] == "weights"
    assert len(record["comparison"]["paths"]["quadratic"]["bend_loss"]) == 2


def test_a_figure_that_cannot_be_written_loses_no_record(bench, files):
    (bench.folder / "taken").write_text("a file")
    words = ("connect", "a.safetensors", "b.safetensors", *PLAIN, "--paths", "linear", *FAST)
    result = bench(*words, "--out", "taken", "--format", "svg")
    assert result.code == 4 and "choose another --out" in result.err
    assert json.loads(bench(*words).out)["cached"]


# --- what is refused


def refused(bench, *words):
    """Return the one sentence that a call is refused with."""
    result = bench("connect", *words)
    assert (result.code, result.out) == (4, "")
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if not line.startswith("measuring")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["abcdef", "abcdef", *TINY], "no record in results has a key that begins with abcdef"),
        *[([key, "abcdef", *TINY], f"{key} is {why}") for key, why in (("abc", "too short"), ("zebra", "no key of a"))],
        (["tiny.yaml", "abcdef", *TINY], "safetensors.torch.save_file"),
        (["none.json", "none.json"], "there is no record none.json"),
        (["other.json", "none.json"], "other.json is no record of mmc-bench"),
        (["none.safetensors", "a.safetensors", *TINY], "there is no file none.safetensors"),
        (["a.safetensors", "b.safetensors"], "give --backbone NAME and --dataset NAME"),
        (["a.safetensors", "b.safetensors", "--dataset", "tiny-set"], "give --backbone NAME"),
        (["a.safetensors", "b.safetensors", "--backbone", "tiny-nt", "--dataset", "tiny-set"], "did you mean tiny-net"),
        (["a.safetensors", "b.safetensors", "--backbone", "tiny-net", "--dataset", "*-box*"], "name one of each"),
        (["a.safetensors", "b.safetensors", *TINY, "--paths", "liner"], "did you mean linear?"),
        (["a.safetensors", "b.safetensors", *TINY, "--splits", "NC,RX"], "unknown split 'RX'"),
        (["a.safetensors", "b.safetensors", *TINY, "--points", "1"], "1 is not in the range"),
        (["a.safetensors", "b.safetensors", *TINY, "--set", "pretrain.epochs=1"], "connect pretrains nothing"),
        (["a.safetensors", "b.safetensors", *TINY, "--set", "connect.quadratic.epoch=1"], "did you mean epochs"),
        (["a.safetensors", "b.safetensors", *TINY, "--set", "tiny-net.widht=1"], "did you mean width"),
        (["a.safetensors", "b.safetensors", *TINY], "a.safetensors does not fit tiny-net: it lacks the weight 'norm."),
        (["a.safetensors", "b.safetensors", *PLAIN, "--set", "tiny-net.width=5"], "shape (4, 3, 3, 3), not (5, 3"),
        (["a.safetensors", "b.safetensors", *PLAIN, "--data", "digits=nowhere"], "no selected dataset reads 'digits'"),
    ],
)
def test_what_cannot_be_measured_gets_one_sentence(bench, files, words, says):
    (bench.folder / "other.json").write_text('{"kind": "novel"}')
    assert says in refused(bench, *words)
    assert not list((bench.folder / "results").rglob("*.json"))


def test_weights_that_are_wrong_are_named(bench, files):
    good = plain_weights(0)
    bad = {
        "extra": ({**good, "tail.weight": torch.ones(1)}, "tiny-net, which has no weight 'tail.weight'"),
        "nan": ({**good, "head.bias": torch.tensor([1.0, float("nan"), 0.0])}, "weight 'head.bias' is not finite"),
        "shape": ({**good, "head.bias": torch.ones(4)}, "weight 'head.bias' has shape (4,), not (3,)"),
    }
    for name, (weights, says) in bad.items():
        save_file(weights, bench.folder / f"{name}.safetensors")
        message = refused(bench, "a.safetensors", f"{name}.safetensors", *PLAIN, "--paths", "linear")
        assert f"{name}.safetensors" in message and says in message
    (bench.folder / "text.safetensors").write_text("no weights at all")
    assert "text.safetensors is no safetensors file" in refused(bench, "a.safetensors", "text.safetensors", *PLAIN)


def test_a_loss_that_overflows_is_no_internal_error(bench, files):
    save_file(plain_weights(0, scale=1e30), bench.folder / "huge.safetensors")
    message = refused(bench, "huge.safetensors", "a.safetensors", *PLAIN, "--paths", "linear", "--precision", "fp32")
    assert "huge.safetensors" in message and "finite" in message


def test_nothing_to_align_is_said_before_anything_is_measured(bench, files, monkeypatch):
    for name in "ab":
        weights = load_file(bench.folder / f"{name}.safetensors")
        narrow = {key: value[:, :1] if key == "head.weight" else value[:1] for key, value in weights.items()}
        narrow["head.bias"] = weights["head.bias"]
        save_file({key: value.contiguous() for key, value in narrow.items()}, bench.folder / f"{name}.safetensors")
    words = ("a.safetensors", "b.safetensors", *PLAIN, "--set", "tiny-net.width=1")
    assert connected(bench, *words, "--paths", "linear")
    monkeypatch.setattr("mmc_bench.stages.checkpoint_pairs.compare", lambda *_: 1 / 0)
    message = refused(bench, *words)
    assert "nothing to align" in message and "--paths" in message


def test_a_prefix_of_two_keys_names_both(bench, keys):
    folder = bench.folder / "results" / "pretrained"
    twin = keys["A"][:8] + "0" * 56
    shutil.copy(folder / f"{keys['A']}.json", folder / f"{twin}.json")
    message = refused(bench, keys["A"][:8], keys["B"])
    assert f"pretrained/{keys['A']}" in message and f"pretrained/{twin}" in message


def test_records_without_weights_say_how_to_get_them(bench, keys):
    assert "run its suite again with --keep-weights" in refused(bench, keys["A"], keys["still"])
    weights = weights_of(bench, keys["A"])
    weights.write_bytes(weights.read_bytes() + b"x")
    assert "does not match its record's checksum" in refused(bench, keys["A"], keys["B"])
    assert weights.exists()
    weights.unlink()
    assert "run its suite again" in refused(bench, keys["A"], keys["B"])


def test_records_of_other_kinds_are_no_checkpoints(bench, keys):
    key = connected(bench, keys["A"], keys["B"], "--paths", "linear")["record"]["key"]
    assert "the record of a connection, which has no weights" in refused(bench, key, keys["B"])


def test_two_architectures_are_refused(bench, keys):
    wide = ("--workers", "0", "--seeds", "1", "--methods", "tiny-still", "--set", "tiny-net.width=5")
    assert bench("run", "--suite", "tiny.yaml", *wide).code == 0
    records = [record for record in bench.records().values() if record["kind"] == "pretraining"]
    other = next(record["key"] for record in records if record["pretraining"]["backbone"]["parameters"])
    message = refused(bench, keys["A"], other)
    assert "a tiny-net and" in message and "a tiny-net (width = 5)" in message and "same architecture" in message
