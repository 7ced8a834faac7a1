"""Re-running cells: real ones of a tiny suite, honest and falsified."""

import json
from itertools import product

import pytest
from conftest import PLUGINS
from helpers.leaderboard import TestBoard, cell, of_seeds
from PIL import Image

from mmc_bench.errors import UserError
from mmc_bench.leaderboard.schemas import Tolerances, Verification, read_model
from mmc_bench.leaderboard.submissions import cell_of, read_entries
from mmc_bench.leaderboard.verify import check_writable, compared, sample_cells
from mmc_bench.results.outages import PatientStore

SETTINGS = """
title: Tiny
baseline: tiny:tiny-ft
verifiers: [Bob]
tolerances: {same_machine: 0.0, same_code: 0.02, other: 0.1}
"""


@pytest.fixture
def board(bench, monkeypatch):
    """Return a leaderboard with four cells of the tiny suite."""
    return _sent_in(bench, monkeypatch)


def _sent_in(bench, monkeypatch, *words):
    """Run cells of the tiny suite, and take them in, through the command line."""
    monkeypatch.setenv("TINY_MOOD", "good")
    (bench.folder / "board").mkdir()
    (bench.folder / "board" / "leaderboard.yaml").write_text(SETTINGS)
    assert bench.tiny(*words).code == 0
    result = bench("leaderboard", "add", "results", "--by", "Ann", "--board", "board")
    assert result.code == 0, result.err
    return TestBoard(bench.folder / "board")


def verify(bench, *words, sample=4):
    return bench(
        "leaderboard",
        "verify",
        "--sample",
        sample,
        "--by",
        "Bob",
        "--board",
        "board",
        "--workers",
        0,
        "--device",
        "cpu",
        *words,
    )


@pytest.mark.slow
def test_honest_records_agree_to_the_bit_and_are_verified(bench, board):
    result = verify(bench, "--seed", 3)
    assert result.code == 0, result.out + result.err
    assert result.out.count("agrees") == 4 and "at most 0 apart" in result.out
    (file,) = board.files("verifications/*.yaml")
    kept = read_model(board.root / file, Verification, "verification")
    assert (kept.by, kept.sample, kept.seed, len(kept.cells)) == ("Bob", 4, 3, 4)
    assert all(one.agrees and one.same_versions and one.difference == 0 for one in kept.cells)
    assert b"verified by Bob (2 of 2 cells); reported by Ann" in board.build()["README.md"]
    assert board.problems() == []
    assert sorted(path.name for path in bench.folder.iterdir()) == ["board", "results", "tiny.yaml"]


@pytest.mark.slow
def test_a_falsified_record_is_caught(bench, board):
    """All numbers follow from each other, and the checksums fit: only running it again tells."""
    names = {
        json.loads((board.root / file).read_text())["cell"]["method"]["name"]: file
        for file in board.files("results/*/cells/*")
    }
    board.edit(names["tiny-ft"], _flatter)
    assert not [problem for problem in board.problems() if "differs from what" not in problem]
    result = verify(bench)
    assert result.code == 1
    (line,) = (line for line in result.out.splitlines() if line.startswith("DISAGREES"))
    assert names["tiny-ft"] in line
    (file,) = board.files("verifications/*.yaml")
    kept = read_model(board.root / file, Verification, "verification")
    assert [one.agrees for one in kept.cells].count(False) == 1
    assert b"disputed by Bob (1 of 2 cells); reported by Ann" in board.build()["README.md"]


def _flatter(content):
    for split in ("NC", "C", "RC"):
        accuracy = min(1.0, content["metrics"][split]["accuracy"] + 0.3)
        content["metrics"][split]["accuracy"] = accuracy
        path = content["paths"]["linear"]["test"]["splits"][split]["accuracy"]
        path[-1] = accuracy
        ts, first = content["paths"]["linear"]["test"]["t"], path[0]
        height = max(0.0, *((1 - t) * first + t * accuracy - a for t, a in list(zip(ts, path, strict=True))[1:-1]))
        content["paths"]["linear"]["test"]["barriers"][split]["accuracy"] = height
    with_cue = content["metrics"]["C"]["accuracy"]
    for effect in content["effects"].values():
        effect["accuracy_changes"][1] = content["metrics"][effect["split"]]["accuracy"] - with_cue
    for one in content["invariance"].values():
        one["accuracy_change"] = content["metrics"][one["split"]]["accuracy"] - with_cue


@pytest.mark.slow
def test_a_cell_that_fails_verifies_nothing(bench, monkeypatch):
    board = _sent_in(bench, monkeypatch, "--methods", "tiny-moody", "--seeds", "0")
    monkeypatch.delenv("TINY_MOOD")
    result = verify(bench)
    assert result.code == 1
    assert result.out.startswith("FAILED ") and "in a bad mood" in result.err
    assert not board.files("verifications/*")


@pytest.mark.slow
def test_cells_of_other_threads_start_from_a_pretraining_of_their_own(bench, monkeypatch):
    """The two cells share their pretraining's key, which does not name the threads."""
    board = _sent_in(bench, monkeypatch, "--methods", "tiny-ft", "--seeds", "0")
    others = ("--methods", "tiny-still", "--seeds", "0", "--threads", 2, "--results", "others")
    assert bench.tiny(*others).code == 0
    assert bench("leaderboard", "add", "others", "--by", "Ann", "--board", "board").code == 0
    assert len({path.rpartition("/")[2] for path in board.files("results/*/pretrained/*")}) == 1
    made = []
    save = PatientStore.save

    def watched(store, record, *arguments, **options):
        made.append((record.kind, record.provenance.threads))
        return save(store, record, *arguments, **options)

    monkeypatch.setattr(PatientStore, "save", watched)
    result = verify(bench)
    assert result.out.count("agrees") == 2, result.out + result.err
    assert made == [(kind, threads) for threads in (1, 2) for kind in ("pretraining", "cell")]


@pytest.mark.slow
def test_two_plugins_of_one_name_are_not_guessed_between(bench, board):
    twin = bench.folder / "again" / "tiny.py"
    twin.parent.mkdir()
    twin.write_bytes((PLUGINS / "tiny.py").read_bytes())
    result = verify(bench, "--plugins-dir", twin)
    assert result.code == 4 and "offered by 2 plugins" in result.err


@pytest.mark.slow
def test_images_that_no_drawn_cell_reads_may_be_given_and_unknown_ones_may_not(bench, board):
    for part, name in product(("train", "test"), range(10)):
        file = bench.folder / "images" / part / str(name) / "one.png"
        file.parent.mkdir(parents=True)
        Image.new("L", (8, 8)).save(file)
    result = verify(bench, "--data", "cifar10=images", "--seed", 3, sample=1)
    assert result.code == 0, result.out + result.err
    result = verify(bench, "--data", "cifar11=images", sample=1)
    assert (
        result.code == 4 and "--data cifar11=…: no selected dataset reads 'cifar11': did you mean cifar10" in result.err
    )


def test_an_empty_or_wrong_leaderboard_is_not_verified(bench):
    board = TestBoard(bench.folder / "board")
    assert "nothing to verify" in verify(bench).err
    board.send_in(cell(0, "tune"))
    (board.root / "results" / "stray.txt").write_text("")
    result = verify(bench)
    assert result.code == 4 and "stray.txt" in result.err
    (board.root / "results" / "stray.txt").unlink()
    result = verify(bench)
    assert result.code == 4 and "unknown dataset 'acme:digits'" in result.err


def test_a_leaderboard_that_cannot_be_written_is_told_of_before_cells_run(tmp_path):
    board = TestBoard(tmp_path / "board")
    (board.root / "verifications").write_text("a file")
    with pytest.raises(UserError, match="verifications cannot be written: File exists"):
        check_writable(board.opened())


# --- drawing and comparing


def test_the_draw_follows_from_its_seed(tmp_path):
    board = TestBoard(tmp_path / "board")
    board.send_in(*of_seeds("tune", [0.5] * 9))
    entries, _ = read_entries(board.opened())
    draws = {tuple(entry.file for entry in sample_cells(entries, 3, seed)) for seed in range(20)}
    assert len(draws) > 10
    assert sample_cells(entries, 3, 1) == sample_cells(entries[::-1], 3, 1)
    assert len(sample_cells(entries, 99, 0)) == 9
    assert len({entry.file for entry in sample_cells(entries, 9, 0)}) == 9


def with_provenance(record, **changes):
    return record.model_copy(update={"provenance": record.provenance.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("changed", "pretrain", "found", "tolerance", "agrees"),
    [
        ({}, "1", 0.90, 0.0, True),
        ({}, "1", 0.91, 0.0, False),
        ({"device": "cpu (other)"}, "1", 0.92, 0.02, True),
        ({"threads": 9}, "1", 0.93, 0.02, False),
        ({"packages": {"torch": "3"}}, "1", 0.88, 0.02, True),
        ({"packages": {"torch": "2", "pillow": "12"}}, "1", 0.91, 0.0, False),
        ({}, "2", 0.80, 0.1, True),
        ({}, "2", 0.79, 0.1, False),
    ],
)
def test_the_tolerance_is_that_of_what_differs(tmp_path, changed, pretrain, found, tolerance, agrees):
    board = TestBoard(tmp_path / "board")
    board.send_in(with_provenance(cell(0, "tune"), packages={"torch": "2"}))
    entries, _ = read_entries(board.opened())
    (entry,) = sample_cells(entries, 1, 0)
    again = cell(0, "tune", (found, 0.8, 0.7, 0.2), versions={"pretrain": pretrain, "score": "1"})
    again = with_provenance(again, **{"packages": {"torch": "2"}, **changed})
    result = compared(entry, again, Tolerances(same_machine=0.0, same_code=0.02, other=0.1))
    assert (result.tolerance, result.agrees) == (tolerance, agrees)
    assert result.reported["NC"] == cell_of(entry).metrics.NC.accuracy == 0.9


def test_a_gpu_is_not_asked_for_the_same_bits(tmp_path):
    board = TestBoard(tmp_path / "board")
    record = cell(0, "tune")
    gpu = with_provenance(record, device="NVIDIA")
    board.send_in(gpu)
    entries, _ = read_entries(board.opened())
    (entry,) = sample_cells(entries, 1, 0)
    assert compared(entry, gpu, Tolerances(same_machine=0.0, same_code=0.02, other=0.1)).tolerance == 0.02
