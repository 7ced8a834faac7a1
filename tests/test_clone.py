"""A clone has the very bytes of the repository, whatever git is told of line ends: digests and checksums hold."""

import os
import shutil
import subprocess
from itertools import groupby, islice
from pathlib import Path

import pytest
from helpers.leaderboard import TestBoard, cell

ROOT = Path(__file__).parents[1]


def git(*words, folder=ROOT):
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture
def known():
    """Return the files of the checkout that git tracks or would track, by name."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0")
    return sorted({name for name in names if (ROOT / name).is_file()})


@pytest.mark.slow
def test_a_clone_has_the_bytes_of_the_repository(known, tmp_path):
    folders = groupby(sorted(known, key=lambda name: (os.path.dirname(name), name)), os.path.dirname)
    # Of the thousands of records, the first twenty of each folder.
    names = [
        name for folder, files in folders for name in islice(files, 20 if "leaderboard/results/" in folder else None)
    ]
    repository = tmp_path / "repository"
    for name in names:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, repository / name)
    git("init", "-q", folder=repository)
    git("add", "--all", folder=repository)
    git("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "-qm", "All", folder=repository)
    for option in ("core.autocrlf=true", "core.eol=crlf", "core.autocrlf=input"):
        clone = tmp_path / option
        git("clone", "-q", "-c", option, str(repository), str(clone), folder=tmp_path)
        cloned = git("ls-files", "-z", folder=clone).decode().split("\0")[:-1]
        assert sorted(cloned) == sorted(names), option
        assert [name for name in names if (clone / name).read_bytes() != (ROOT / name).read_bytes()] == [], option


@pytest.mark.slow
def test_a_clone_has_all_files_of_the_leaderboard(known):
    """No rule of .gitignore keeps one out of git, so a clone's leaderboard passes where that of the checkout does."""
    files = (path for path in (ROOT / "leaderboard").rglob("*") if path.is_file())
    names = [path.relative_to(ROOT).as_posix() for path in files]
    assert len(names) > 5 and sorted(names) == [name for name in known if name.startswith("leaderboard/")]


def test_line_ends_that_git_changed_are_told_apart_from_results_that_were(tmp_path):
    board = TestBoard(tmp_path / "board")
    board.send_in(cell(0, "tune"))
    board.build()
    file = "results/2026-01-02-ann/submission.yaml"
    (board.root / file).write_bytes((board.root / file).read_bytes().replace(b"\n", b"\r\n"))
    (problem,) = board.problems()
    assert problem.startswith(f"{file}: has other line ends than it was sent in with: write `* -text`")
