"""The leaderboard's checks: what is the same twice, and every way in which a submission can be wrong."""

import copy
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from helpers.leaderboard import TestBoard, cell, model, of_seeds, plugin

from mmc_bench.errors import UserError
from mmc_bench.leaderboard.build import generated_files, stale_files
from mmc_bench.leaderboard.checks import inspect
from mmc_bench.leaderboard.submissions import GENERATED, Board

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of a leaderboard with two methods of two seeds."""
    board = TestBoard(tmp_path_factory.mktemp("built") / "board")
    board.send_in(*of_seeds("tune", (0.7, 0.8)), *of_seeds("base", (0.5, 0.4)))
    board.build()
    return board.root


@pytest.fixture
def board(built, tmp_path):
    """Return a copy of that leaderboard, to spoil."""
    shutil.copytree(built, tmp_path / "board")
    return TestBoard(tmp_path / "board")


def first_cell(board):
    return board.files("results/*/cells/*.json")[0]


def test_what_was_sent_in_and_built_passes(board):
    assert board.problems() == []


@pytest.mark.slow
def test_the_committed_leaderboard_passes():
    board = Board.open(ROOT / "leaderboard")
    inspection = inspect(board)
    assert inspection.problems == ()
    assert stale_files(board, generated_files(board, inspection)) == []


@pytest.mark.slow
def test_a_build_gives_the_same_bytes_twice_and_wherever_it_lies(board, tmp_path):
    first = board.build()
    assert board.build() == first
    board.root = board.root.rename(tmp_path / "elsewhere")
    assert board.build() == first
    assert {name: (board.root / name).read_bytes() for name in first} == first


@pytest.mark.slow
def test_the_files_that_are_written_are_those_that_belong_there(board):
    settings = (board.root / "leaderboard.yaml").read_text()
    board.counting([0], letters=(0.9,))
    letters = {"dataset": plugin("letters"), "images": {"letters": "original"}}
    board.send_in(cell(0, "other"), *(cell(0, method, **letters) for method in ("tune", "other", "base")))
    assert set(board.build()) == set(GENERATED)
    (board.root / "leaderboard.yaml").write_text(settings)
    assert "critical-difference-dark.svg: differs from what the records say: run mmc-bench leaderboard build" in (
        board.problems()
    )
    assert "critical-difference-dark.svg" not in board.build()
    assert board.problems() == []


def test_an_empty_leaderboard_says_how_to_send_results(tmp_path):
    board = TestBoard(tmp_path / "board")
    files = board.build()
    assert b"No results are in yet" in files["README.md"]
    assert board.problems() == []


@pytest.mark.slow
def test_editing_any_one_digit_of_a_record_names_the_record(board):
    file = first_cell(board)
    path = board.root / file
    content = path.read_bytes()
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    for place in digits[:: len(digits) // 15]:
        digit = int(chr(content[place]))
        path.write_bytes(content[:place] + str((digit + 1) % 10).encode() + content[place + 1 :])
        problems = board.problems()
        assert any(problem.startswith(f"{file}: ") for problem in problems), content[place - 40 : place + 5]
    path.write_bytes(content)
    assert board.problems() == []


def test_checksums_are_as_sha256sum_writes_them(board):
    for folder in (board.root / "results").iterdir():
        lines = (folder / "checksums.sha256").read_text().splitlines()
        assert len(lines) == 1 + len(list(folder.glob("*/*.json")))
        for line in lines:
            digest, name = line.split("  ")
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


# --- numbers that cannot be, with checksums that fit


def _set(*path, value):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return change


LINEAR = ("paths", "linear", "test")


def _permuted_path_from_elsewhere(content):
    content["paths"]["permuted"] = copy.deepcopy(content["paths"]["linear"])
    content["paths"]["permuted"]["test"]["splits"]["C"]["loss"][0] = 0.75


def _effects(**values):
    def change(content):
        effect = {"loss_changes": [0, 0], "accuracy_changes": [0, 0], "flips": [0, 0], "flips_of_both": 0}
        content["effects"] = {"remove cue": {"split": "NC", **effect, **values}}

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("metrics", "NC", "accuracy", value=1.2), "less than or equal to 1"),
        (_set("metrics", "NC", "accuracy", value=0.905), "no number of 100 test images"),
        (_set("metrics", "NC", "accuracy", value=0.91), "invariance to 'remove cue' that does not follow"),
        (_set("metrics", "C", "loss", value=0.5), "invariance to 'remove cue' that does not follow"),
        (_set("metrics", "C", "loss", value=float("nan")), "NaN, which is no number"),
        (_set("metrics", "C", "loss", value=float("inf")), "Infinity, which is no number"),
        (_set("metrics", "C", "loss", value=1e300), "too large a number"),
        (_set("metrics", "C", "loss", value=10**300), "too large a number"),
        (_set("provenance", "device", value="\ud800"), "is no valid record"),
        (_set(*LINEAR, "barriers", "NC", "loss", value=0.25), "barrier on the linear path for NC that does not follow"),
        (_set(*LINEAR, "barriers", "RC", "accuracy", value=0.9), "barrier on the linear path for RC"),
        (_set(*LINEAR, "mode_connected", "C", value=True), "a verdict on the linear path for C"),
        (_set(*LINEAR, "mechanistically_connected", value=True), "a verdict on the linear path that does not follow"),
        (_set(*LINEAR, "t", value=[0, 0.6, 0.5]), "positions on the linear path"),
        (_set(*LINEAR, "splits", "NC", "accuracy", value=[0.5, 0.6]), "an accuracy and a loss for each t"),
        (_set(*LINEAR, "splits", "C", "accuracy", 0, value=0.8), "barrier on the linear path for C"),
        (_effects(loss_changes=[0.0, 3.0]), "an effect of 'remove cue' that does not follow from the scores"),
        (_effects(flips=[0.1, 0.2], flips_of_both=0.15), "more predictions that 'remove cue' flips in both models"),
        (_set(*LINEAR, "splits", "C", "accuracy", 1, value=0.123), "that is no number of 100 test images"),
        (_permuted_path_from_elsewhere, "a permuted path on C whose start is not that of the linear path"),
        (_set("timing", "seconds", "fine_tune", value=-1.0), "took -1.0 seconds"),
        (_set("timing", "seconds", value={}), "no seconds of its stage 'fine_tune'"),
        (_set("num_classes", value=7), "says 7 classes"),
        (_set("provenance", "plugins", value={}), "other plugins or versions"),
        (_set("provenance", "seeds", value={"experiment": 99}), "provenance of seed 99"),
        (_set("cell", "method", "name", value="elsewise"), "the key does not match the content"),
        (_set("pretrained_sha256", value="1" * 64), "other pretrained weights"),
        (_set("invariance", value={}), "has the interventions []"),
        (_set("surprise", value=1), "surprise = 1"),
        (_set("surprise", value="x" * 99_999), "x...x"),
        (_set("provenance", "threads", value=0), "threads = 0"),
        (_set("provenance", "precision", value="fp8"), "precision = 'fp8'"),
        (_set("provenance", "seeds", "fine-tuning", value=7), "a seed of 7 for 'fine-tuning', which does not follow"),
        (_set("timing", "images_per_second", value=-3), "images_per_second = -3"),
        (_set("timing", "started", value="0001-01-01T00:00:00Z"), "started in 1, before"),
    ],
)
def test_a_record_that_cannot_be_true_is_named(board, change, says):
    file = first_cell(board)
    board.edit(file, change)
    found = [problem for problem in board.problems() if problem.startswith(f"{file}: ")]
    assert any(says in problem for problem in found), found


def test_a_pretraining_that_cannot_be_true_is_named(board):
    file = board.files("results/*/pretrained/*.json")[0]
    board.edit(file, _set("curve", value=[]))
    assert f"{file}: has a learning curve of 0 epochs, and was trained for 2" in board.problems()


def test_parameters_in_force_are_those_that_were_given(board):
    board.send_in(cell(0, plugin("tune", lr=0.5)), models=[model()])
    (file,) = board.files("results/*-2/cells/*.json")
    board.edit(file, _set("parameters", value={"lr": 0.1}))
    assert f"{file}: was given lr = 0.5, and 0.1 was in force" in board.problems()


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"kind": "cell", "kind": "cell"}', b"1e999"]
)
def test_a_file_that_is_no_record_is_named(board, content):
    file = first_cell(board)
    (board.root / file).write_bytes(content)
    assert any(problem.startswith(f"{file}: ") for problem in board.problems())


def test_a_record_under_another_key_s_name_is_named(board):
    file = first_cell(board)
    other = (board.root / file).with_name("0" * 64 + ".json")
    (board.root / file).rename(other)
    board.renew(other.parent.parent)
    assert any("bears another key's name" in problem for problem in board.problems())


# --- what else can be wrong


def _copied(board):
    """Return a second submission's folder with the content of the first."""
    return shutil.copytree(board.root / "results" / "2026-01-02-ann", board.root / "results" / "2026-01-03-mal")


def test_one_key_twice_is_named_whatever_its_parameters_in_force(board):
    _copied(board)
    for file in board.files("results/2026-01-03-mal/cells/*.json"):
        board.edit(file, _set("parameters", "x", value={}))
    problems = board.problems()
    assert sum("is of the same key as results/2026-01-02-ann/cells/" in problem for problem in problems) == 4
    assert sum("other parameters in force than results/2026-01-02-ann" in problem for problem in problems) == 4


def test_one_version_makes_the_same_of_the_same_parameters(board):
    (file,) = (file for file in board.files("results/*/cells/*.json") if cell(1, "tune").key in file)
    board.edit(file, _set("parameters", value={"lr": 1}))
    (problem,) = board.problems()
    assert "has other parameters in force than results/2026-01-02-ann/cells/" in problem


@pytest.mark.slow
@pytest.mark.parametrize(("off", "passes"), [(0.02, True), (0.03, False)])
def test_one_pretraining_in_two_submissions_must_agree_within_the_tolerance(board, off, passes):
    start = (0.5, 0.9, 0.4 + off, 0.8)
    aside = TestBoard(board.root.parent / "aside")
    aside.send_in(cell(0, "other", start=start), models=[model(0, start)])
    (aside.root / "results" / "2026-01-02-ann").rename(board.root / "results" / "2026-01-03-mal")
    if passes:
        board.build()
        assert board.problems() == []
        return
    (problem,) = board.problems()
    file = f"pretrained/{model(0).key}.json"
    assert problem.startswith(f"results/2026-01-03-mal/{file}: ") and f"from results/2026-01-02-ann/{file}" in problem


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        "by: Ann\ndate: 2026-13-45\n",
        "by: Ann\ndate: !!timestamp x\n",
        "by: !!int ''\n",
        "by: !!bool x\n",
        f"by: {'9' * 5000}\n",
        f"by: 0x{'f' * 5000}\n",
        f"0x{'f' * 5000}: 1\n",
        "? [a]\n: 1\n",
        "[" * 5000,
        f"by: {'x' * 2**20}\n",
        f"by: {'x' * 9999}\n",
        "by: &a [*a]\n",
        "by: Ann\nx: [&a [1, 1], &b [*a, *a], &c [*b, *b]]\n",
        "\0",
        f"{'x' * 9999}: 1\n{'x' * 9999}: 1\n",
    ],
    ids=lambda content: content[:20],
)
def test_a_file_of_a_stranger_s_is_named_and_ends_no_check(board, content):
    file = "results/2026-01-02-ann/submission.yaml"
    (board.root / file).write_text(content)
    found = [problem for problem in board.problems() if problem.startswith(f"{file}: ")]
    assert len(found) == 2 and sum("was changed since" in problem for problem in found) == 1
    assert max(map(len, found)) < 1000


def test_the_same_cell_twice_is_named_whatever_its_version_and_submission(board):
    again = cell(0, plugin("tune", version="2+abc"), (0.9, 0.9, 0.99, 0.2))
    folder = board.root / "results" / "other"
    TestBoard(board.root.parent / "aside").send_in(again)
    (board.root.parent / "aside" / "results" / "2026-01-02-ann").rename(folder)
    (problem,) = board.problems()
    assert problem.startswith(
        f"results/other/cells/{again.key}.json: is the same cell as results/2026-01-02-ann/cells/"
    )


@pytest.mark.slow
def test_another_seed_or_parameter_is_another_cell(board):
    board.send_in(cell(2, "tune"), cell(0, plugin("tune", lr=0.5)), cell(0, "tune", cue_rate=0.5), by="Bob")
    board.build()
    assert board.problems() == []


@pytest.mark.parametrize("part", ["plugins", "stages"])
def test_an_unknown_version_is_named(board, part):
    versions = json.loads((board.root / "versions.yaml").read_text())
    versions["plugins"].pop("acme:method:tune") if part == "plugins" else versions["stages"].pop("pretrain")
    (board.root / "versions.yaml").write_text(json.dumps(versions))
    says = "acme:method:tune, 1+abc" if part == "plugins" else "pretrain, 1"
    assert any(f"unknown version of {says}" in problem for problem in board.problems())


def test_a_missing_pretraining_is_named(board):
    lost = board.files("results/*/pretrained/*.json")[0]
    (board.root / lost).unlink()
    problems = board.problems()
    assert f"{lost}: is listed in checksums.sha256 and is not there" in problems
    assert sum("lacks the record of its pretraining" in problem for problem in problems) == 2


def test_a_pretraining_without_a_cell_is_named(board):
    (folder,) = (board.root / "results").iterdir()
    record = model(7)
    (folder / "pretrained" / f"{record.key}.json").write_text(record.model_dump_json())
    board.renew(folder)
    assert any("pretraining of no cell" in problem for problem in board.problems())


@pytest.mark.parametrize(
    "name",
    [
        "results/2026-01-02-ann/cells/weights.safetensors",
        "results/2026-01-02-ann/pretrained/model.pt",
        "results/2026-01-02-ann/cells/notes.txt",
        "results/2026-01-02-ann/.hidden",
        "results/2026-01-02-ann/pairs/x.json",
        "results/stray.json",
        "results/Capital/submission.yaml",
        "notes.txt",
        "other/README.md",
        ".github/workflows/x.yml",
        ".gitkeep",
        "verifications/run.sh",
    ],
)
def test_weights_and_foreign_files_are_named(board, name):
    (board.root / name).parent.mkdir(exist_ok=True, parents=True)
    (board.root / name).write_bytes(b"x")
    what = "weights do not belong here" if name.endswith((".safetensors", ".pt")) else "does not belong here"
    assert any(problem.startswith(f"{name}: ") and what in problem for problem in board.problems())


def test_a_link_in_place_of_a_record_is_named(board, tmp_path):
    file = board.root / first_cell(board)
    file.rename(tmp_path / "moved.json")
    file.symlink_to(tmp_path / "moved.json")
    assert any(problem.startswith(first_cell(board)) and "belong" in problem for problem in board.problems())


@pytest.mark.parametrize(
    "line", ["by: ''\ndate: 2026-01-01\n", "by: Ann\n", "by: Ann\ndate: 2026-01-01\nrank: 1\n", "- Ann\n"]
)
def test_a_submission_that_does_not_say_who_and_when_is_named(board, line):
    (folder,) = (board.root / "results").iterdir()
    (folder / "submission.yaml").write_text(line)
    board.renew(folder)
    assert any(problem.startswith(f"results/{folder.name}/submission.yaml: ") for problem in board.problems())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "leaderboard.csv", "overall.csv", "index.html"])
def test_a_generated_file_that_was_edited_or_is_missing_is_named(board, name):
    path = board.root / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert board.problems() == [f"{name}: differs from what the records say: run mmc-bench leaderboard build"]
    path.unlink()
    assert len(board.problems()) == 1


def test_a_build_refuses_what_a_check_would_name(board):
    board.edit(first_cell(board), _set("metrics", "NC", "accuracy", value=0.91))
    with pytest.raises(UserError, match="an invariance to 'remove cue' that does not follow"):
        board.build()
