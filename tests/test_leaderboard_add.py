"""Taking results in: what is taken, what is refused, and that nothing is half done."""

import json
import os
import signal
from datetime import date

import pytest
from helpers.leaderboard import TestBoard, cell, model, of_seeds, plugin, tuning, write_results
from helpers.plugins import GOOD, registry_of, write_source

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.leaderboard import adding
from mmc_bench.leaderboard.schemas import Submission, read_model
from mmc_bench.system.files import temporary_name
from mmc_bench.system.processes import this_process

AT_HAND = {"pretrain": "1+0123456789ab", "score": "1"}


@pytest.fixture
def board(tmp_path):
    return TestBoard(tmp_path / "board")


def everything(board):
    """Return all files of a board with their contents."""
    return {
        path.relative_to(board.root).as_posix(): path.read_bytes() for path in board.root.rglob("*") if path.is_file()
    }


def refused(board, words, *cells, error=UserError, **options):
    """Send cells in, and check that they are refused with these words and leave nothing behind."""
    before = everything(board)
    with pytest.raises(error, match=words) as caught:
        board.send_in(*cells, **options)
    assert adding.NEW not in str(caught.value)
    assert everything(board) == before
    assert not list((board.root / "results").glob(".new*"))


def test_cells_and_their_pretrainings_are_taken_as_they_are(board):
    added = board.send_in(*of_seeds("tune", (0.7, 0.8)), note="two seeds")
    assert (added.cells, added.pretrainings, added.methods, added.already_there) == (2, 2, ("tune",), 0)
    results = board.root.parent / "board-results1"
    for part in ("cells", "pretrained"):
        sent = {path.name: path.read_bytes() for path in (results / part).iterdir()}
        assert {path.name: path.read_bytes() for path in (added.folder / part).iterdir()} == sent
    submission = read_model(added.folder / "submission.yaml", Submission, "submission")
    assert (submission.by, submission.date, submission.note) == ("Ann", date(2026, 1, 2), "two seeds")


@pytest.mark.slow
def test_weights_failures_pairs_and_idle_pretrainings_stay_behind(board):
    results = write_results(board.root.parent / "mine", [cell(0, "tune")], [model(0), model(1)])
    (results / "pretrained" / f"{model(0).key}.safetensors").write_bytes(b"weights")
    (results / "cells" / f"{'1' * 64}.failure.json").write_text("{}")
    (results / "pairs" / f"{'2' * 64}.json").write_text("{}")
    added = adding.add(board.opened(), results, registry_of(), "Ann", date(2026, 1, 2))
    assert sorted(path.name for path in added.folder.rglob("*.*")) == sorted(
        [f"{cell(0, 'tune').key}.json", f"{model(0).key}.json", "checksums.sha256", "submission.yaml"]
    )
    board.build()
    assert board.problems() == []


def test_submissions_of_one_day_and_person_get_folders_of_their_own(board):
    names = [board.send_in(cell(seed, "tune"), by="Ann O'Nym").folder.name for seed in range(2)]
    assert names == ["2026-01-02-ann-o-nym", "2026-01-02-ann-o-nym-2"]
    assert board.send_in(cell(7, "tune"), by="../Жук").folder.name == "2026-01-02-anonymous"


def test_only_the_methods_asked_for_are_taken(board):
    assert board.send_in(cell(0, "tune"), cell(0, "base"), methods=["t*"]).methods == ("tune",)
    refused(board, "no cell is selected", cell(0, "tune"), methods=["none"], error=NothingSelectedError)


def test_what_is_there_already_is_left_out_and_alone_is_refused(board):
    board.send_in(cell(0, "tune"))
    added = board.send_in(cell(0, "tune"), cell(1, "tune"))
    assert (added.cells, added.already_there) == (1, 1)
    refused(board, "all 2 cells are on the leaderboard already", cell(0, "tune"), cell(1, "tune"))


def test_a_cell_that_is_there_in_another_version_is_refused_with_what_to_delete(board):
    board.send_in(cell(0, "tune"))
    newer = cell(0, plugin("tune", version="2+abc"))
    refused(board, f"cells/{newer.key}.json .* delete the submission results/2026-01-02-ann first", newer)
    refused(board, "delete the submission", newer, cell(1, plugin("tune", version="2+abc")))


def test_what_contradicts_the_leaderboard_is_refused(board):
    board.send_in(cell(0, "tune"))
    start = (0.9, 0.9, 0.9, 0.1)
    refused(board, "which is the same pretraining", cell(0, "other", start=start), models=[model(0, start)])
    forged = cell(1, "tune").model_copy(update={"parameters": {"x": {}}})
    refused(board, "other parameters in force", forged)


def test_one_cell_in_two_versions_is_refused_with_what_to_do(board):
    older, newer = cell(0, "tune"), cell(0, plugin("tune", version="2+abc"))
    first, second = sorted((older, newer), key=lambda record: record.key)
    words = (
        f"cells/{second.key}.json is the same cell as cells/{first.key}.json: .* run what you send in into a --results"
    )
    refused(board, words, older, newer)


def test_what_would_make_an_earlier_record_wrong_is_refused(board):
    board.send_in(cell(7, "tune"))
    (earlier,) = board.files("results/*/cells/*.json")
    score = (0.9, 0.9, 0.9, 0.5)
    selection, *trials = tuning("base", ({}, score), ({"lr": 0.3}, score), seeds=(7,))
    words = f"{earlier} is a result of seed 7, on which selections/{selection.key}.json was tuned$"
    refused(board, words, selection, *trials, *of_seeds("base", (0.7, 0.8)))


def test_a_setting_has_as_many_classes_as_the_leaderboard_says(board):
    board.send_in(cell(0, "tune"))
    other = cell(1, "tune", num_classes=7)
    refused(board, "says 7 classes where results/2026-01-02-ann/", other, models=[model(1, num_classes=7)])


def test_an_invalid_record_is_refused_by_name_with_all_others(board):
    good, bad = cell(0, "tune"), cell(0, "base")
    bad = bad.model_copy(update={"metrics": bad.metrics.model_copy(update={"NC": bad.metrics.C})})
    refused(
        board, f"cells/{bad.key}.json has an invariance to 'remove cue' that does not follow from its scores", good, bad
    )


@pytest.mark.parametrize("content", ["{", '{"kind": "cell"}', "NaN"])
def test_a_file_that_is_no_record_is_refused_by_name(board, content):
    results = write_results(board.root.parent / "mine", [cell(0, "tune")])
    file = results / "cells" / f"{'a' * 64}.json"
    file.write_text(content)
    with pytest.raises(UserError, match=f"nothing of .* was taken in: cells/{'a' * 64}.json"):
        adding.add(board.opened(), results, registry_of(), "Ann", date(2026, 1, 2))
    file.rename(file.with_name("short.json"))
    with pytest.raises(UserError, match=r"cells/short.json is not named as a record is"):
        adding.add(board.opened(), results, registry_of(), "Ann", date(2026, 1, 2))


def test_a_record_that_was_changed_after_it_was_written_is_refused_by_name(board):
    results = write_results(board.root.parent / "mine", [cell(0, "tune")])
    (file,) = (results / "cells").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"device": "cpu"', b'"device": "gpu"'))
    with pytest.raises(UserError, match=f"cells/{file.name} does not match its own checksum"):
        adding.add(board.opened(), results, registry_of(), "Ann", date(2026, 1, 2))


def test_a_cell_without_its_pretraining_or_of_another_s_weights_is_refused(board):
    refused(board, "lacks the record of its pretraining", cell(0, "tune"), models=[])
    other = model(0).model_copy(update={"weights_sha256": "1" * 64})
    refused(board, "made from other pretrained weights", cell(0, "tune"), models=[other])


@pytest.mark.parametrize("by", ["", " Ann", "Ann\nrank: 1", "\u202enna", "x" * 81])
def test_who_sends_in_is_one_line_of_printable_text(board, by):
    refused(board, "submission's by", cell(0, "tune"), by=by)


def test_a_version_that_is_neither_known_nor_at_hand_is_refused(board):
    unknown = plugin("tune", version="9+abc")
    refused(board, r"acme:method:tune 9\+abc \(not installed\)", cell(0, unknown))
    refused(board, r"pretrain 99 \(installed is", cell(0, "tune", versions={"pretrain": "99", "score": "1"}))


@pytest.mark.slow
def test_the_version_at_hand_becomes_known_with_what_it_says_of_itself(board, tmp_path, monkeypatch):
    monkeypatch.setattr("mmc_bench.leaderboard.adding.version_of_stage", lambda stage: AT_HAND.get(stage, "1"))
    registry = registry_of(
        write_source(
            tmp_path, "good.py", GOOD.replace("name='good'", "name='good', needs={'cued'}, summary='does good'")
        )
    )
    offer = registry.get("method", "good")
    good = plugin("good", version=offer.version, distribution="good")
    refused(board, "not installed", cell(0, good, versions=AT_HAND))
    old = plugin("good", version="0+older", distribution="good")
    refused(board, f"installed is {offer.version.replace('+', '.')}", cell(0, old), registry=registry)
    added = board.send_in(cell(0, good, versions=AT_HAND), registry=registry)
    assert added.new_versions == (f"good:method:good {offer.version}", f"pretrain {AT_HAND['pretrain']}")
    known = board.opened().versions
    assert {AT_HAND["pretrain"], "1"} == {*known.stages["pretrain"]}
    assert known.find("method", good).model_dump() == {"summary": "does good", "needs": ("cued",)}
    board.build()
    assert board.problems() == []
    assert board.send_in(cell(1, good, versions=AT_HAND)).new_versions == ()


def test_a_folder_that_is_no_leaderboard_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no leaderboard"):
        TestBoard(tmp_path / "empty").opened()


def test_a_write_that_fails_leaves_nothing(board, monkeypatch):
    monkeypatch.setattr(
        adding, "manifest", lambda digests: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    refused(board, "No space left on device", cell(0, "tune"))


def test_a_leaderboard_that_cannot_be_written_is_told_of(board):
    (board.root / "results").write_text("a file")
    with pytest.raises(UserError, match="results cannot be written: File exists"):
        board.send_in(cell(0, "tune"))


# --- the command line


@pytest.mark.slow
def test_the_commands_take_in_build_and_check(bench):
    board = TestBoard(bench.folder / "board")
    write_results(bench.folder / "results", [cell(0, "tune"), cell(0, "base")])
    result = bench("leaderboard", "add", "results", "--by", "Ann", "--board", "board", "--methods", "tune")
    assert result.code == 0, result.err
    assert "1 cell (tune)" in result.out and "records of their 1 pretraining" in result.out
    assert bench("leaderboard", "check", "--board", "board").code == 1
    assert bench("leaderboard", "build", "--board", "board").code == 0
    assert bench("leaderboard", "check", "--board", "board").code == 0
    again = bench("leaderboard", "add", "results", "--by", "Ann", "--board", "board", "--methods", "tune")
    assert again.code == 5 and "on the leaderboard already" in again.err
    (record,) = board.files("results/*/cells/*.json")
    path = board.root / record
    content = json.loads(path.read_text())
    content["metrics"]["RC"]["loss"] = 1.1
    path.write_text(json.dumps(content))
    checked = bench("leaderboard", "check", "--board", "board")
    assert checked.code == 1 and record in checked.out and "Traceback" not in checked.err
    assert bench("leaderboard", "build", "--board", "board").code == 4


#: The command line, which is sent a signal, named by its number, while it writes a submission or a generated file.
CUT_OFF = """
import os, sys
from mmc_bench.cli.main import main
from mmc_bench.leaderboard import adding

number = int(sys.argv.pop(1))
adding.manifest = os.fsync = lambda *_: os.kill(os.getpid(), number)
main()
"""
ADD = ("leaderboard", "add", "results", "--by", "Ann", "--board", "board")
BUILD = ("leaderboard", "build", "--board", "board")


def cut_off(bench, number, words):
    """Let a command be ended while it writes, and return what it left."""
    board = TestBoard(bench.folder / "board")
    write_results(bench.folder / "results", [cell(0, "tune")])
    result = bench.apart(number, *words, executable_arguments=("-c", CUT_OFF))
    assert result.code == (2 if number == signal.SIGINT else -number), result.err
    (left,) = (path for path in board.root.rglob("*") if path.name.endswith(".tmp"))
    return left


@pytest.mark.slow
@pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live")
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, ADD), (signal.SIGINT, ADD), (signal.SIGKILL, BUILD)],
    ids=["killed-add", "interrupted-add", "killed-build"],
)
def test_what_a_command_left_that_was_cut_off_is_named_and_a_build_removes_it(bench, number, words):
    left = cut_off(bench, number, words)
    checked = bench("leaderboard", "check", "--board", "board")
    assert left.name in checked.out and "was left by a command that was killed" in checked.out
    assert left.exists()
    built = bench(*BUILD)
    assert built.code == 0, built.err
    assert not left.exists() and bench("leaderboard", "check", "--board", "board").code == 0


@pytest.mark.slow
@pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live")
def test_adding_anew_after_it_was_cut_off_removes_what_was_left(bench):
    left = cut_off(bench, signal.SIGKILL, ADD)
    assert bench(*ADD).code == 0
    assert not left.exists() and len(TestBoard(bench.folder / "board").files("results/*")) == 1


def test_what_another_command_is_writing_stays(bench):
    board = TestBoard(bench.folder / "board")
    folder, file = temporary_name(board.root / "results" / "new"), temporary_name(board.root / "README.md")
    folder.mkdir(parents=True)
    (folder / "submission.yaml").write_text("by: Ann")
    file.write_text("half")
    built = bench(*BUILD)
    assert built.code == 4 and "is being written by one that runs" in built.err
    write_results(bench.folder / "results", [cell(0, "tune")])
    assert bench(*ADD).code == 0
    assert file.read_text() == "half" and (folder / "submission.yaml").read_text() == "by: Ann"


LEFT = ".x+0a1b2c3d+m.12.b.tmp"


@pytest.mark.parametrize("name", [LEFT, f"results/{LEFT}", f"results/{LEFT}/a.json", f"verifications/{LEFT}"])
def test_what_was_left_is_told_from_foreign_files(board, name):
    (board.root / name).parent.mkdir(exist_ok=True, parents=True)
    (board.root / name).write_text("")
    assert any(problem.startswith(f"{name}: was left by") for problem in board.problems())


@pytest.mark.parametrize("name", ["results/x.tmp", ".tmp", ".2026.notes.tmp", "results/.a+b.1.c.tmp", ".cache.tmp/x"])
def test_other_hidden_files_are_foreign_and_stay_however_old(board, name):
    file = board.root / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text("mine")
    for path in (file, file.parent):
        os.utime(path, (0, 0))
    assert any(problem.startswith(f"{name}: a file that does not belong") for problem in board.problems())
    board.opened().sweep()
    assert file.read_text() == "mine"


def test_a_link_to_nowhere_that_was_left_is_removed(board):
    left = board.root / LEFT
    left.symlink_to("nowhere")
    os.utime(left, (0, 0), follow_symlinks=False)
    board.opened().sweep()
    assert not left.is_symlink()


def test_a_hostile_file_name_prints_on_one_line(bench):
    board = TestBoard(bench.folder / "board")
    (board.root / "results").mkdir()
    (board.root / "results" / "x\n::warning::y").write_text("")
    lines = bench("leaderboard", "check", "--board", "board").out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("results/x ::warning::y: ")
