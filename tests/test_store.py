"""Records and weights on disk: whole or not at all, and checked when they are read."""

import json
import math
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch
from pydantic import ValidationError

from mmc_bench import UserError
from mmc_bench.landscape.barriers import connectivity
from mmc_bench.landscape.invariance import invariances
from mmc_bench.results.jobs import Cell
from mmc_bench.results.making import Provenance, Timing
from mmc_bench.results.metrics import SPLITS, Metrics, Score
from mmc_bench.results.records import CellRecord, Failure, PretrainRecord, WeightsOrigin
from mmc_bench.results.store import Store

SCORES = {name: Score(accuracy=0.5 + place / 10, loss=1.25 - place / 8) for place, name in enumerate(SPLITS)}
METRICS = Metrics(**SCORES, train=SCORES["NC"], validation=SCORES["C"])
TIMING = Timing(started=datetime(2026, 1, 2, tzinfo=UTC), seconds={"score": 0.1}, images_per_second=1000.5)
PROVENANCE = Provenance(
    mmc_bench="0.1.0",
    python="3.12.0",
    packages={"torch": "2.6.0"},
    plugins={"mmc-bench:ft": "1+123"},
    git_commit=None,
    git_dirty=None,
    platform="Linux x86_64",
    device="cpu",
    precision="fp32",
    threads=1,
    seeds={"experiment": 3},
)


def pretrain_record(cell, weights_sha256="0" * 64):
    return PretrainRecord(
        key=cell.pretraining.key,
        pretraining=cell.pretraining,
        num_classes=10,
        weights_sha256=weights_sha256,
        metrics=METRICS,
        invariance=invariances(SCORES),
        curve=[{"train_loss": 1 / 3, "train": 0.1, "NC": 0.2, "C": 0.9}],
        timing=TIMING,
        provenance=PROVENANCE,
    )


def cell_record(cell, **changed):
    content = {
        "key": cell.key,
        "cell": cell,
        "pretraining_key": cell.pretraining.key,
        "pretrained_sha256": "0" * 64,
        "num_classes": 10,
        "parameters": {"lr": 0.1, "lrs": [0.1, 0.2]},
        "metrics": METRICS,
        "paths": {"linear": {"test": connectivity([0, 0.5, 1], {name: [score] * 3 for name, score in SCORES.items()})}},
        "invariance": invariances(SCORES),
        "timing": TIMING,
        "provenance": PROVENANCE,
    }
    return CellRecord(**{**content, **changed})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.check_writable()
    return store


@pytest.fixture
def other(cell):
    """Return a cell that differs in its method alone."""
    return Cell(
        versions=cell.versions,
        pretraining=cell.pretraining,
        method=replace(cell.method, name="other"),
        connect=cell.connect,
    )


def files(store):
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


def record_path(store, cell):
    return store.root / "cells" / f"{cell.key}.json"


def weights():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 4, generator=generator)
    return {"a": matrix, "transposed": matrix.T, "count": torch.tensor(7), "half": matrix.half()}


def saved(store, cell, **changed):
    """Save the weights of a pretraining, and return their checksum."""
    origin = WeightsOrigin(key=cell.pretraining.weights_key, seconds={}, provenance=PROVENANCE)
    return store.save_weights(cell.pretraining, {**weights(), **changed}, origin)


# --- records


def test_a_cells_record_comes_back_as_it_was(store, cell):
    record = cell_record(cell)
    assert store.find(cell) is None
    store.save(record)
    assert store.find(cell) == record
    assert list(store.cell_records()) == [record]


def test_a_cells_record_has_its_linear_path(cell):
    with pytest.raises(ValidationError, match="a cell's record has its linear path"):
        cell_record(cell, paths={})


def test_a_pretrainings_record_comes_back_and_its_weights_are_told_apart(store, cell):
    record = pretrain_record(cell)
    store.save(record)
    assert store.find(cell.pretraining) == record
    assert not store.has_weights(cell.pretraining)
    record = pretrain_record(cell, saved(store, cell))
    store.save(record)
    assert store.has_weights(cell.pretraining)
    assert list(store.pretrain_records()) == [record]


def test_a_cell_made_from_other_weights_has_yet_to_be_made(store, cell):
    store.save(cell_record(cell, pretrained_sha256="1" * 64))
    assert store.find(cell) is not None  # nobody knows better
    store.save(pretrain_record(cell, "1" * 64))
    assert store.find(cell) is not None
    store.save(pretrain_record(cell, "2" * 64))
    assert store.find(cell) is None


def test_saving_twice_keeps_the_later_record(store, cell):
    store.save(cell_record(cell))
    store.save(cell_record(cell, num_classes=7))
    assert store.find(cell).num_classes == 7
    assert files(store) == [f"{cell.key}.json"]


def test_records_come_in_the_order_of_their_keys_without_failures_and_leftovers(store, cell, other):
    for job in (cell, other):
        store.save(cell_record(job))
    third = replace(cell, connect=replace(cell.connect, points=9))
    failure = Failure(key=third.key, label="x", error="y", traceback="z", started=datetime.now(UTC))
    store.save_failure(third, failure)
    (store.root / "cells" / f".{third.key}.json.12-ab.tmp").write_text("{", encoding="utf-8")
    assert [record.key for record in store.cell_records()] == sorted([cell.key, other.key])


def test_a_record_under_another_jobs_name_is_not_taken_for_it(store, cell, other):
    store.save(cell_record(cell))
    record_path(store, cell).rename(record_path(store, other))
    assert store.find(other) is None


@pytest.mark.parametrize("field", ["key", "pretraining_key"])
def test_a_record_with_a_wrong_key_is_refused(cell, field):
    with pytest.raises(ValidationError, match="key does not match"):
        cell_record(cell, **{field: "0" * 64})


def test_a_record_whose_content_was_edited_counts_as_missing(store, cell):
    store.save(cell_record(cell))
    path = record_path(store, cell)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cell"]["pretraining"]["seed"] += 1
    path.write_text(json.dumps(content), encoding="utf-8")
    assert store.find(cell) is None
    with pytest.raises(UserError, match=f"{cell.key}.json is no valid record: .*key does not match"):
        list(store.cell_records())


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_scores_that_are_no_proper_number_are_refused(value):
    with pytest.raises(ValidationError):
        Score(accuracy=value, loss=0.5)
    with pytest.raises(ValidationError):
        Score(accuracy=0.5, loss=value)


def test_an_accuracy_is_a_fraction():
    with pytest.raises(ValidationError):
        Score(accuracy=93.0, loss=0.5)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null"])
@pytest.mark.parametrize("place", ["metrics", "barriers"])
def test_a_record_file_with_nan_counts_as_missing(store, cell, place, value):
    store.save(cell_record(cell))
    path = record_path(store, cell)
    content = json.loads(path.read_text(encoding="utf-8"))
    target = content["metrics"]["RC"] if place == "metrics" else content["paths"]["linear"]["test"]["barriers"]["C"]
    target["loss"] = "PLACE"
    path.write_text(json.dumps(content).replace('"PLACE"', value), encoding="utf-8")
    assert store.find(cell) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"schema_version": 1}'])
def test_a_file_that_is_no_record_counts_as_missing_and_is_named_when_all_are_read(store, cell, content):
    record_path(store, cell).write_bytes(content)
    assert store.find(cell) is None
    with pytest.raises(UserError, match=f"{cell.key}.json is no valid record"):
        list(store.cell_records())
    store.save(cell_record(cell))
    assert store.find(cell) == cell_record(cell)


@pytest.mark.parametrize("change", [{"schema_version": 4}, {"surprise": 1}, {"kind": "pretraining"}])
def test_a_record_of_another_schema_counts_as_missing(store, cell, change):
    content = {**json.loads(cell_record(cell).model_dump_json()), **change}
    record_path(store, cell).write_text(json.dumps(content), encoding="utf-8")
    assert store.find(cell) is None


# --- writing


def interrupted(_):
    raise KeyboardInterrupt


def test_a_write_that_is_cut_off_leaves_no_file_behind(store, cell, monkeypatch):
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save(cell_record(cell))
    with pytest.raises(KeyboardInterrupt):
        saved(store, cell)
    assert files(store) == []
    assert store.find(cell) is None


def test_a_write_that_is_cut_off_leaves_the_earlier_record_whole(store, cell, monkeypatch):
    store.save(cell_record(cell))
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save(cell_record(cell, num_classes=7))
    assert store.find(cell) == cell_record(cell)
    assert files(store) == [f"{cell.key}.json"]


def test_a_file_has_its_name_only_after_its_content_is_on_the_disk(store, cell, monkeypatch):
    seen = []

    def fsync(descriptor):
        seen.append((record_path(store, cell).exists(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    store.save(cell_record(cell))
    assert seen == [(False, record_path(store, cell).stat().st_size)]


def test_a_results_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be written \(.+\): choose another with --results"):
        Store(tmp_path / "file" / "results").check_writable()


# --- failures


def test_a_failure_is_kept_beside_the_record_until_the_job_succeeds(store, cell):
    failure = Failure(
        key=cell.key, label=cell.label, error="E: x", traceback="…", started=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert store.find_failure(cell) is None
    store.save_failure(cell, failure)
    assert store.find_failure(cell) == failure and store.find(cell) is None
    store.save(cell_record(cell))
    assert store.find_failure(cell) is None
    assert files(store) == [f"{cell.key}.json"]


# --- weights


def test_weights_come_back_to_the_bit(store, cell):
    record = pretrain_record(cell, saved(store, cell))
    loaded = store.load_weights(record).tensors
    assert loaded.keys() == weights().keys()
    for name, tensor in weights().items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "other weights"])
def test_damaged_weights_are_refused_set_aside_and_made_anew(store, cell, damage):
    record = pretrain_record(cell, saved(store, cell))
    store.save(record)
    path = store.root / "pretrained" / f"{cell.pretraining.weights_key}.safetensors"
    content = path.read_bytes()
    if damage == "flipped bit":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncated":
        path.write_bytes(content[:-20])
    else:
        saved(store, cell, count=torch.tensor(8))
    damaged = path.read_bytes()
    with pytest.raises(UserError, match="does not match its record's checksum"):
        store.load_weights(record)
    assert path.with_suffix(".damaged").read_bytes() == damaged
    assert not store.has_weights(cell.pretraining)

    record = pretrain_record(cell, saved(store, cell))
    store.save(record)
    assert store.find(cell.pretraining) == record
    assert torch.equal(store.load_weights(record).tensors["a"], weights()["a"])
