"""The check on a GPU, as small as a CPU can run it."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from mmc_bench_benchmarks.gpu import __main__ as check
from mmc_bench_benchmarks.gpu.steps import Step


@pytest.mark.slow
def test_every_step_runs_on_a_cpu(tmp_path):
    words = ["--device", "cpu", "--tiny", "--minutes", "30", "--out", str(tmp_path)]
    run = subprocess.run([sys.executable, "-m", "mmc_bench_benchmarks.gpu", *words], capture_output=True, text=True)
    logs = {file.stem: file.read_text()[-2000:] for file in tmp_path.glob("*.log")}
    found = json.loads((tmp_path / "check.json").read_text())["steps"]
    assert {one["step"]: one["state"] for one in found} == dict.fromkeys(logs, "ok"), (run.stderr, logs)
    assert run.returncode == 0 and len(found) == 10
    by_name = {one["step"]: one["found"] for one in found}
    assert by_name["step"]["eager, batch 2"]["images_per_second"] > 0
    assert len(by_name["speed"]["pretraining"]) == 2
    assert by_name["poisoned"] == {"exit code": 1, "cells": 2}
    assert by_name["waits"]["dfr"] == {"waits": [0, 0]}


@pytest.fixture
def states(monkeypatch):
    """Return a run of the command whose steps end as told: its result, and the state of each step."""

    def run(out, kinds, *words):
        steps = [Step(name, "", 1.0, "none", ()) for name in kinds]
        monkeypatch.setattr(check, "steps_of", lambda *_: steps)
        monkeypatch.setattr(
            check, "done", lambda step, *_: {"step": step.name, "what": "", "state": kinds[step.name], "seconds": 1}
        )
        result = CliRunner().invoke(check.main, ["--device", "cpu", "--out", str(out), *words])
        return result, [one["state"] for one in json.loads((out / "check.json").read_text())["steps"]]

    return run


def test_a_step_that_fails_stops_no_other_and_shows_in_the_exit_code(states, tmp_path):
    result, found = states(tmp_path, {"a": "failed", "b": "too slow", "c": "ok"})
    assert (result.exit_code, found) == (1, ["failed", "too slow", "ok"])
    assert [line.split("|")[1].strip() for line in result.output.splitlines()[-3:]] == ["a", "b", "c"]
    assert states(tmp_path, {"a": "failed", "c": "ok"}, "--only", "c")[0].exit_code == 0


def test_steps_for_which_no_time_is_left_are_skipped(states, tmp_path):
    result, found = states(tmp_path, {"a": "ok"}, "--minutes", "0.001")
    assert (result.exit_code, found) == (0, ["skipped"])


HANGS = """
import pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text("[1]")
print("so far", flush=True)
time.sleep(300)
"""
ENDS_IT = """
import json, pathlib
from mmc_bench_benchmarks.gpu.steps import Step, done
if __name__ == "__main__":
    print(json.dumps(done(Step("it", "", 99.0, "hangs", ("FILE",)), pathlib.Path.cwd(), 25.0)))
"""


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_and_keeps_what_it_found(tmp_path):
    for name, code in (("hangs", HANGS), ("ends_it", ENDS_IT)):
        (tmp_path / f"{name}.py").write_text(code)
    run = subprocess.run([sys.executable, "ends_it.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    result = json.loads(run.stdout)
    assert (result["state"], result["exit_code"], result["found"]) == ("too slow", None, [1])
    assert (tmp_path / "it.log").read_text() == "so far\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_it_starts(tmp_path):
    result = CliRunner().invoke(check.main, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "torch finds no GPU" in result.output and not (tmp_path / "out").exists()
