"""Files of verifications: each must follow from its numbers and from the records that it is about."""

import hashlib
import json

import pytest
from helpers.leaderboard import TestBoard, of_seeds

from mmc_bench.leaderboard.schemas import Verification, as_yaml


@pytest.fixture
def board(tmp_path):
    """Return a leaderboard with two methods of two seeds."""
    board = TestBoard(tmp_path / "board")
    board.send_in(*of_seeds("tune", (0.7, 0.8)), *of_seeds("base", (0.5, 0.4)))
    board.build()
    return board


def verification(board, **changed):
    file = board.files("results/*/cells/*.json")[0]
    content = (board.root / file).read_bytes()
    record = json.loads(content)
    reported = {split: record["metrics"][split]["accuracy"] for split in ("NC", "C", "RC", "RI")}
    one = {
        "record": file,
        "sha256": hashlib.sha256(content).hexdigest(),
        "reported": reported,
        "found": {**reported, "NC": reported["NC"] - 0.02},
        "same_versions": True,
        "tolerance": 0.02,
        "agrees": True,
        **changed,
    }
    return Verification(
        by="Bob", date="2026-01-03", sample=1, seed=5, provenance=record["provenance"], seconds=1, cells=[one]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, None),
        ({"sha256": "0" * 64}, "about another content"),
        ({"record": "results/none/cells/x.json"}, "which is not there"),
        ({"agrees": False}, "a verdict"),
        ({"found": {"NC": 0.9, "C": 0.9, "RC": 0.1, "RI": 0.2}}, "a verdict"),
        ({"found": {"NC": 0.9}}, "lacks an accuracy"),
        ({"tolerance": 0.5}, "more than the leaderboard's"),
        ({"reported": {"NC": 0.5, "C": 0.9, "RC": 0.7, "RI": 0.2}}, "says other accuracies"),
    ],
)
def test_a_verification_must_follow_from_its_numbers(board, changed, says):
    (board.root / "verifications").mkdir()
    (board.root / "verifications" / "one.yaml").write_bytes(as_yaml(verification(board, **changed)))
    if says is None:
        board.build()
        assert board.problems() == []
    else:
        assert any(says in problem for problem in board.problems())
