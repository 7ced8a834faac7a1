"""A clone has the very bytes of the repository, whatever git is told of line ends: digests and checksums hold."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.leaderboard import TestBoard, cell

ROOT = Path(__file__).parents[1]


def git(*words, folder=ROOT):
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture
def repository(made_once):
    """Return a repository whose one commit has the files at hand that git tracks or would track."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")

    def make(made):
        git("init", "-q", folder=made)
        for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0"):
            if (ROOT / name).is_file():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, made / name)
        git("add", "--all", folder=made)
        # without gc: with this many files it would go on in the background, and move objects while they are cloned
        who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
        git("-c", "gc.auto=0", *who, "commit", "-qm", "All", folder=made)

    return made_once("repository", make)


@pytest.mark.slow
def test_a_clone_has_the_bytes_of_the_repository_and_all_of_its_leaderboard(repository, tmp_path):
    for option in ("core.autocrlf=true", "core.eol=crlf", "core.autocrlf=input"):
        clone = tmp_path / option
        git("clone", "-q", "-c", option, str(repository), str(clone), folder=tmp_path)
        names = git("ls-files", "-z", folder=clone).decode().split("\0")[:-1]
        assert len(names) > 500, option
        assert [name for name in names if (clone / name).read_bytes() != (ROOT / name).read_bytes()] == [], option
        here, there = (set(files_below(root / "leaderboard")) for root in (ROOT, clone))
        assert here == there, option  # so the clone's leaderboard passes where that of the repository does


def files_below(folder):
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_line_ends_that_git_changed_are_told_apart_from_results_that_were(tmp_path):
    board = TestBoard(tmp_path / "board")
    board.send_in(cell(0, "tune"))
    board.build()
    file = "results/2026-01-02-ann/submission.yaml"
    (board.root / file).write_bytes((board.root / file).read_bytes().replace(b"\n", b"\r\n"))
    (problem,) = board.problems()
    assert problem.startswith(f"{file}: has other line ends than it was sent in with: write `* -text`")
