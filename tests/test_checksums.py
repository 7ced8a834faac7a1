"""Checksums within records: damage of any kind is found, counts as no result, is told of, and is mended."""

import errno
import json
import os

import pytest
from helpers.records import cell_record, pair_record, pretrain_record

from mmc_bench.errors import UserError
from mmc_bench.results.codec import DamagedError, encoded, job_of, parsed, read_record, weights_in
from mmc_bench.results.records import CellRecord, Failure, PairRecord, PretrainRecord
from mmc_bench.results.scores import ScoreReader
from mmc_bench.results.store import Store, UnwritableError
from mmc_bench.system.files import is_intact

RECORDS = {"pretraining": pretrain_record(3), "cell": cell_record(3), "pair": pair_record()}
SCHEMAS = {"pretraining": PretrainRecord, "cell": CellRecord, "pair": PairRecord}


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def is_taken(content, kind="cell"):
    """Tell whether any way of reading takes a file's content for the record that was written."""
    record = RECORDS[kind]
    if weights_in(content, kind, record.key):
        return True
    try:
        parsed("file", content, SCHEMAS[kind], record.key)
    except DamagedError:
        return False
    return True


@pytest.mark.parametrize("kind", RECORDS)
def test_what_was_written_is_taken_and_the_checksum_is_no_part_of_the_record(kind):
    record, content = RECORDS[kind], encoded(RECORDS[kind])
    assert is_intact(content) and weights_in(content, kind, record.key)
    assert parsed("file", content, SCHEMAS[kind], record.key) == record
    plain, written = json.loads(record.model_dump_json()), json.loads(content)
    assert len(written["provenance"].pop("sha256")) == 64
    assert written == plain


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECORDS)
def test_one_flipped_bit_anywhere_is_found(kind):
    content = encoded(RECORDS[kind])
    end = content.index(b'"sha256"') + 80
    for place in range(len(content)):
        # Around the checksum, which covers everything else, every bit is tried, and every way to read.
        if end - 90 < place < end:
            assert not any(is_taken(flipped(content, place, bit), kind) for bit in range(8)), place
        else:
            assert is_intact(flipped(content, place, place % 8)) is False, place


def test_a_record_cut_off_anywhere_is_found():
    content = encoded(RECORDS["cell"])
    assert not any(is_taken(content[:length]) for length in [*range(0, len(content), 50), *range(-90, 0)])


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_a_record_that_was_edited_is_no_longer_what_its_checksum_says(indent):
    edited = json.loads(encoded(RECORDS["cell"]))
    edited["metrics"]["NC"]["accuracy"] = 1
    text = json.dumps(edited, indent=indent).encode() + b"\n"
    assert not is_taken(text)


def test_a_record_without_a_checksum_is_read_by_its_content(tmp_path):
    store, record = Store(tmp_path), RECORDS["cell"]
    store.check_writable()
    store.file_of(record.cell).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    assert store.find(record.cell) == record == read_record(store.file_of(record.cell))
    assert store.weights_behind(record.cell) == (record.pretrained_sha256,)
    (scores,) = store.cell_scores(ScoreReader())
    assert scores == record


def test_scores_read_alone_are_those_of_the_record(tmp_path):
    store, cell, model = Store(tmp_path), RECORDS["cell"], RECORDS["pretraining"]
    store.check_writable()
    store.save(cell)
    store.save(model)
    (found,), (trained,) = store.cell_scores(reader := ScoreReader()), store.model_scores(reader)
    assert (found.key, found.cell, found.pretrained_sha256) == (cell.key, cell.cell, cell.pretrained_sha256)
    assert (trained.key, trained.pretraining, trained.weights_sha256) == (model.key, model.pretraining, "0" * 64)
    assert {split: height.loss for split, height in found.paths["linear"].test.barriers.items()} == {
        split: barrier.loss for split, barrier in cell.paths["linear"].test.barriers.items()
    }
    for scores, record in ((found, cell), (trained, model)):
        assert (scores.num_classes, scores.timing.seconds) == (record.num_classes, record.timing.seconds)
        for split in ("NC", "C", "RC", "RI"):
            score = getattr(record.metrics, split)
            assert getattr(scores.metrics, split).accuracy == score.accuracy
            assert getattr(scores.metrics, split).loss == score.loss


# --- what a store makes of it


def damage(path, how, donor):
    content = path.read_bytes()
    if how == "flipped bit":
        path.write_bytes(flipped(content, len(content) // 2, 2))
    elif how == "truncated":
        path.write_bytes(content[:-100])
    elif how == "another schema":
        path.write_bytes(content.replace(b'"schema_version": 3', b'"schema_version": 4'))
    else:
        path.write_bytes(encoded(donor))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("flipped bit", "is no valid record"),
        ("truncated", "is no valid record: "),
        ("another schema", "is no valid record here: its schema version is 4, from another version of mmc-bench"),
        ("foreign", "it holds that of another key, "),
    ],
)
def test_a_damaged_record_is_named_and_counts_as_none(tmp_path, how, says):
    told = []
    store, record = Store(tmp_path, lambda error: told.append(str(error))), RECORDS["cell"]
    store.check_writable()
    store.save(record)
    path = store.file_of(record.cell)
    damage(path, how, cell_record(4))
    reader = ScoreReader()
    assert (
        store.find(record.cell) is store.weights_behind(record.cell) is store.find_scores(record.cell, reader) is None
    )
    assert list(store.cell_records()) == list(store.cell_scores(reader)) == []
    assert len(told) == 5 and len(set(told)) == 1
    assert told[0].startswith(str(path)) and says in told[0] and "\n" not in told[0]
    with pytest.raises(DamagedError, match="is no valid record"):
        list(Store(tmp_path).cell_records())
    store.save(record)
    assert store.find(record.cell) == record


def test_a_failure_that_is_damaged_says_nothing(tmp_path):
    store, job = Store(tmp_path), job_of(RECORDS["cell"])
    store.check_writable()
    failure = Failure(key=job.key, label="x", error="boom", traceback="", started="2026-01-01T00:00:00Z")
    store.save_failure(job, failure)
    assert store.find_failure(job) == failure and store.listing().failures == {job.key}
    (path,) = (tmp_path / "cells").iterdir()
    path.write_bytes(path.read_bytes().replace(b"boom", b"doom"))
    assert store.find_failure(job) is None and store.listing().failures == {job.key}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_takes_no_more_is_one_sentence(tmp_path, monkeypatch, number):
    store = Store(tmp_path)
    store.check_writable()

    def refused(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(UnwritableError) as caught:
        store.save(RECORDS["cell"])
    assert str(caught.value) == f"results folder {tmp_path} cannot be written ({os.strerror(number)})"
    assert isinstance(caught.value, UserError) and not store.listing().records


# --- what users see of it


@pytest.mark.slow
def test_every_command_names_a_damaged_record_once_and_run_makes_it_again(bench):
    words = ["--suite", "tiny.yaml", "--methods", "tiny-still"]
    assert bench("run", *words, "--workers", 0).code == 0
    before = bench.records()
    path = sorted((bench.folder / "results" / "cells").glob("*.json"))[0]
    path.write_bytes(flipped(path.read_bytes(), 3000, 0))
    for command in (["status"], ["run", "--dry-run"], ["table"], ["run", "--workers", 0]):
        result = bench(*command, *words)
        assert result.code == 0
        assert result.err.count("is no valid record") == 1 and f"results/cells/{path.name} " in result.err
        assert "it counts as missing" in result.err
    assert "2 cells: 1 computed, 1 cached" in result.err
    assert bench.records() == before
    assert "valid record" not in bench("status", *words).err


@pytest.mark.slow
def test_of_many_damaged_records_only_some_are_named(bench, monkeypatch):
    monkeypatch.setattr("mmc_bench.running.session.MOST_NAMED", 1)
    assert bench.tiny("--methods", "tiny-still").code == 0
    for path in (bench.folder / "results").rglob("*.json"):
        path.write_text("{}")
    told = bench("status", "--suite", "tiny.yaml").err.splitlines()
    assert len(told) == 2 and told[1] == "mmc-bench: and further files hold no valid record"
