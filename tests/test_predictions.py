"""Predictions on single test images: kept on request, right, whole, and made again where they are not."""

import math
import shutil

import numpy as np
import pytest
import torch
from conftest import PLUGINS, TINY_SUITE, Bench
from safetensors.torch import load_file

import mmc_bench
from mmc_bench import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.store import Store

KEEP = "--keep-predictions"
FP32 = ("--precision", "fp32")
ONE_SEED = ("--seeds", "0", *FP32)


@pytest.fixture(scope="module")
def folder(made_once):
    """Return a folder with predictions of a dataset with cues and of one with groups."""

    def make(folder):
        (folder / "tiny.yaml").write_text(TINY_SUITE)
        made = mmc_bench.run(
            folder / "tiny.yaml",
            datasets=["tiny-set", "grouped-tiny"],
            results=folder / "results",
            plugins_dir=PLUGINS,
            precision="fp32",
            workers=0,
            keep_predictions=True,
            progress=False,
        )
        assert not made.failures

    return made_once("predictions", make)


@pytest.fixture
def results(folder):
    return mmc_bench.load(folder / "results", plugins_dir=PLUGINS)


@pytest.fixture
def kept(folder, capsys, monkeypatch, tmp_path):
    """Return the bench of a copy of that folder."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path, capsys, monkeypatch)


def cell_of(bench):
    """Return the files of a cell of the first seed on the dataset with cues: its record, and its predictions."""
    results = mmc_bench.load(bench.folder / "results", datasets="tiny-set", seeds=0, plugins_dir=PLUGINS)
    key = results.cells[0].key
    return bench.folder / "results" / "cells" / f"{key}.json", bench.folder / "results" / "predictions" / f"{key}.npz"


def arrays_of(folder, key):
    with np.load(folder / "results" / "predictions" / f"{key}.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


# --- what is in the files


@pytest.mark.slow
def test_accuracies_groups_and_flips_of_the_files_are_exactly_those_of_the_records(folder, results):
    records = [*results.pretrained, *results.cells]
    assert len(records) == 12
    for record in records:
        arrays = arrays_of(folder, record.key)
        right = arrays["predicted"] == arrays["label"]
        for split, score in record.metrics.splits.items():
            own = arrays["split"] == split if split != "all" else np.full(len(right), True)
            assert own.sum() in (30, 80) or split in ("aligned", "conflicting")
            assert right[own].sum() / own.sum() == score.accuracy
        groups = [right[arrays["group"] == group].mean() for group in np.unique(arrays["group"]) if group >= 0]
        worst = record.metrics.worst_group.accuracy if hasattr(record.metrics, "groups") else record.worst_group
        assert min(groups) == worst
    frame = results.to_frame().set_index("key")
    for record in (one for one in results.cells if one.effects):
        for effect in (effect for effect in record.effects.values() if effect.split != "NC"):
            assert frame.loc[record.key, f"flips_{effect.split}"] == effect.flips[1]


@pytest.mark.slow
def test_a_row_has_the_picture_that_was_shown_and_what_the_model_made_of_it(folder, results):
    registry = Registry.discover([str(PLUGINS)])
    dataset = registry.get("dataset", "tiny-set").make({})
    dataset.load(None)
    (record, *_) = [one for one in results.pretrained if one.pretraining.cue_rate]
    arrays = arrays_of(folder, record.key)
    model = registry.get("backbone", "tiny-net").make({}, num_classes=3, input_shape=(3, 8, 8)).eval()
    model.load_state_dict(load_file(Store(folder / "results").weights_file(record.pretraining)))
    n = len(dataset.test.labels)
    for row, split in enumerate(arrays["split"]):
        original, image, cue = row % n, int(arrays["image"][row]), int(arrays["cue"][row])
        assert arrays["label"][row] == dataset.test.labels[original]
        assert image == original or split == "RI"
        assert split == "RC" or cue == (-1 if split == "NC" else dataset.test.cues[original])
        picture = dataset.test.images[image : image + 1].float() * 2 / 255 - 1
        shown = picture if cue < 0 else dataset.render(picture, torch.tensor([cue]))
        with torch.no_grad():
            probabilities = model(shown).softmax(1)[0]
        assert np.allclose(arrays["probabilities"][row], probabilities, atol=1e-5)
        assert arrays["predicted"][row] == probabilities.argmax()
    assert [*dict.fromkeys(arrays["split"])] == ["NC", "C", "RC", "RI"]


def test_images_in_groups_have_one_row_each_with_their_attributes(folder, results):
    dataset = Registry.discover([str(PLUGINS)]).get("dataset", "grouped-tiny").make({})
    dataset.load(None)
    (record, *_) = [one for one in results.pretrained if one.pretraining.cue_rate is None]
    arrays = arrays_of(folder, record.key)
    assert (arrays["image"] == np.arange(80)).all()
    assert (arrays["label"] == dataset.test.labels.numpy()).all()
    assert (arrays["cue"] == dataset.test.cues.numpy()).all()
    aligned = {(group.label, group.attribute): group.aligned for group in record.metrics.groups}
    for split, label, attribute in zip(arrays["split"], arrays["label"], arrays["cue"], strict=True):
        assert split == ("aligned" if aligned[label, attribute] else "conflicting")


# --- when they are written


@pytest.mark.slow
def test_records_are_the_same_with_and_without_and_predictions_are_made_later_from_kept_weights(bench):
    words = ONE_SEED
    assert "predictions" not in bench.tiny(*words, "--keep-weights").err
    without = bench.records()
    assert not (bench.folder / "results" / "predictions").exists()
    weights = {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*.safetensors")}
    preview = bench.tiny(*words, KEEP, "--dry-run").out
    assert "0 cached, 2 to run" in preview and "3 of these have records without predictions" in preview
    again = bench.tiny(*words, KEEP).err
    assert "0 computed, 2 scored again, 0 cached" in again and again.count("(scored again)") == 3
    assert bench.records() == without and len(bench.predictions()) == 3
    assert {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*.safetensors")} == weights and weights
    assert "2 cached, 0 to run" in bench.tiny(*words, KEEP, "--dry-run").out
    assert "2 cached, 0 to run" in bench.tiny(*words, "--dry-run").out


@pytest.mark.slow
def test_cells_without_kept_weights_are_fine_tuned_again_to_the_same_records(kept):
    made, records = kept.predictions(), kept.records()
    shutil.rmtree(kept.folder / "results" / "predictions")
    assert kept.tiny("--datasets", "tiny-set,grouped-tiny", *FP32, KEEP).code == 0
    assert kept.predictions() == made and kept.records() == records


@pytest.mark.slow
def test_a_record_that_is_made_anew_without_predictions_takes_the_old_ones_along(kept):
    record, file = cell_of(kept)
    assert file.exists()
    record.unlink()
    kept.tiny(*ONE_SEED)
    assert record.exists() and not file.exists() and len(kept.predictions()) == 11


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "changed", "another's", "gone", "empty"])
def test_what_is_damaged_counts_as_missing_and_is_made_again(kept, damage):
    made = kept.predictions()
    _, file = cell_of(kept)
    content = file.read_bytes()
    (other, *_) = [one for one in made.values() if one != content]
    if damage == "gone":
        file.unlink()
    else:
        changed = content[:300] + bytes([content[300] ^ 1]) + content[301:]
        file.write_bytes({"cut": content[:-40], "changed": changed, "another's": other, "empty": b""}[damage])
    shown = kept("table", "--columns", "ece_C,NC", "--datasets", "tiny-set", "--seeds", "0")
    assert shown.code == 0 and "1 of 3 records have no predictions" in shown.err and "Traceback" not in shown.err
    assert sum("| – |" in " ".join(line.split()) for line in shown.out.splitlines()) == 1
    if damage != "gone":
        assert f"{file.name} does not hold the predictions of its record as they were written" in shown.err
    assert "0 computed, 1 scored again, 1 cached" in kept.tiny(*ONE_SEED, KEEP).err
    assert kept.predictions() == made


# --- what is shown of them


def test_columns_of_the_table_are_means_over_the_seeds_of_the_frame(folder, results):
    frame = results.to_frame()
    rows = frame[(frame["method"] == "tiny-ft") & (frame["dataset"] == "tiny-set")]
    text = results.table("csv", columns="ece_RC,flips")
    (line,) = [line for line in text.splitlines() if line.startswith("tiny-set") and ",tiny-ft," in line]
    fields = dict(zip(text.splitlines()[0].split(","), line.split(","), strict=True))
    for name in ("ece_RC", "flips_RC", "flips_RI"):
        assert math.isclose(float(fields[name]), rows[name].mean())
        assert math.isclose(float(fields[f"{name}_std"]), rows[name].std(), abs_tol=1e-12)
    assert [*fields] == [
        *("dataset", "backbone", "cue_rate", "method", "seeds", "ece_RC", "ece_RC_std"),
        *("flips_RC", "flips_RC_std", "flips_RI", "flips_RI_std"),
    ]


def test_frames_have_measures_classes_groups_and_single_images(results):
    images, classes, groups = results.predictions(), results.to_frame("classes"), results.to_frame("groups")
    frame = results.to_frame()
    of_cues = frame[frame["dataset"] == "tiny-set"]
    assert of_cues["auroc_RI"].notna().all() and of_cues["auroc_all"].isna().all()
    assert frame[frame["dataset"] == "grouped-tiny"]["worst_class_conflicting"].notna().all()
    assert len(images) == 6 * 4 * 30 + 6 * 80
    (key, *_) = of_cues["key"]
    own = images[(images["key"] == key) & (images["split"] == "RC")]
    right = own["predicted"] == own["label"]
    by_class, by_group = right.groupby(own["label"]).mean(), right.groupby([own["label"], own["cue"]]).mean()
    shown = classes[(classes["key"] == key) & (classes["split"] == "RC")].set_index("label")["accuracy"]
    assert (shown == by_class).all() and frame.set_index("key").loc[key, "worst_class_RC"] == by_class.min()
    assert (groups[groups["key"] == key].set_index(["label", "cue"])["accuracy"] == by_group).all()
    assert {*images["method"]} == {"pretrained", "tiny-ft", "tiny-still"}


@pytest.mark.slow
def test_where_none_are_kept_a_sentence_says_how_to_keep_them(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-still", *FP32)
    refused = bench("table", "--columns", "ece")
    assert refused.code == 4 and refused.err.count("\n") == 1
    assert "no predictions are kept in results" in refused.err and "mmc-bench run --keep-predictions" in refused.err
    assert bench("table", "--columns", "RC,worst_split").code == 0
    results = mmc_bench.load(bench.folder / "results", plugins_dir=PLUGINS)
    assert "ece_C" not in results.to_frame()
    for ask in (results.predictions, lambda: results.to_frame("classes"), lambda: results.table(columns="brier")):
        with pytest.raises(UserError, match="no predictions are kept"):
            ask()


def test_unknown_columns_and_columns_of_other_tables_are_refused(bench):
    assert "unknown column 'flip': did you mean flips" in bench("table", "--columns", "flip").err
    assert "--halving has columns of its own" in bench("table", "--halving", "--columns", "NC").err
