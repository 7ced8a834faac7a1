"""The workflow for submissions: what it may do, and which pull requests it refuses."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from mmc_bench.leaderboard.submissions import GENERATED

OTHER = "leaderboard/results/other/cells/b.json"
WORKFLOWS = Path(__file__).parents[1] / ".github" / "workflows"


def workflow(name):
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["leaderboard.yml", "ci.yml"])
def test_a_pull_request_s_code_runs_with_nothing_to_lose(name):
    text, content = (WORKFLOWS / name).read_text(encoding="utf-8"), workflow(name)
    triggers = content[True]  # YAML 1.1 reads `on` so
    assert set(triggers) <= {"pull_request", "push"}
    assert content["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    assert not any("${{" in step.get("run", "") for step in steps)  # what a stranger wrote becomes no command
    assert all(step["with"]["persist-credentials"] is False for step in steps if "checkout" in step.get("uses", ""))


@pytest.fixture
def repository(tmp_path):
    """Return a function that runs git in a repository of its own."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*words):
        command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    git("init", "--initial-branch", "main")
    _write(tmp_path, "code.py", "leaderboard/README.md", OTHER)
    git("add", "-A")
    git("commit", "-m", "Start")
    return git


def _write(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(f"new {len(list(root.rglob('*')))}")


@pytest.mark.parametrize(
    ("files", "passes"),
    [
        (["leaderboard/results/x/cells/a.json", "leaderboard/versions.yaml", "leaderboard/README.md"], True),
        (["code.py", "leaderboard/README.md"], True),
        (["leaderboard/results/x/cells/a.json", "code.py"], False),
        (["leaderboard/results/x/cells/a.json", ".github/workflows/leaderboard.yml"], False),
        (["leaderboard/results/x/cells/a.json", "leaderboards/odd"], False),
        (["leaderboard/results/x/cells/a.json", "line\nbreak"], False),
        (["leaderboard/results/x/cells/a.json", "leaderboard/leaderboard.yaml"], False),
        (["leaderboard/results/x/cells/a.json", "leaderboard/other.txt"], False),
        (["leaderboard/results/x/cells/a.json", OTHER], False),
        (["leaderboard/results/x/cells/a.json", "leaderboard/verifications/a.yaml"], False),
        (["leaderboard/verifications/a.yaml", *(f"leaderboard/{name}" for name in GENERATED)], True),
        (["leaderboard/verifications/a.yaml", "code.py"], False),
        (["leaderboard/leaderboard.yaml"], True),
    ],
)
def test_results_come_alone(repository, tmp_path, files, passes):
    repository("switch", "-c", "sent")
    _write(tmp_path, *files)
    result = _check(repository, tmp_path)
    assert (result.returncode == 0) is passes, result.stdout + result.stderr


def test_nobody_deletes_or_moves_what_others_sent_in(repository, tmp_path):
    repository("switch", "-c", "sent")
    (tmp_path / "leaderboard/results/new").mkdir()
    (tmp_path / OTHER).rename(tmp_path / "leaderboard/results/new/b.json")
    result = _check(repository, tmp_path)
    assert result.returncode == 1 and OTHER in result.stdout


def _check(repository, tmp_path):
    """Commit what there is, and return how the workflow's first look at it ends."""
    (step,) = (
        step for step in workflow("leaderboard.yml")["jobs"]["check"]["steps"] if "alone" in step.get("name", "")
    )
    base = repository("rev-parse", "main").strip()
    repository("add", "-A")
    repository("commit", "-m", "Send")
    command = ["bash", "-e", "-c", step["run"]]
    return subprocess.run(command, cwd=tmp_path, env={**os.environ, "BASE": base}, capture_output=True, text=True)
