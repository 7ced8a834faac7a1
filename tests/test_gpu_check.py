"""The check on a GPU, as small as a CPU can run it."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from mmc_bench_benchmarks.gpu import __main__ as check
from mmc_bench_benchmarks.gpu import probe, repairs, steps
from mmc_bench_benchmarks.gpu.steps import Step
from mmc_bench_benchmarks.speed.place import current

from mmc_bench.training import Progress
from mmc_bench.training.graphs import SWITCH


@pytest.mark.slow
def test_every_step_runs_on_a_cpu(tmp_path):
    words = ["--device", "cpu", "--tiny", "--minutes", "30", "--out", str(tmp_path)]
    names = [step.name for step in check.steps_of("cpu", True, tmp_path, None)]
    words += ["--only", ",".join(name for name in names if name not in ("workers", "compiled"))]  # are as default here
    run = subprocess.run([sys.executable, "-m", "mmc_bench_benchmarks.gpu", *words], capture_output=True, text=True)
    logs = {file.stem: file.read_text()[-2000:] for file in tmp_path.glob("*.log")}
    found = json.loads((tmp_path / "check.json").read_text())["steps"]
    assert {one["step"]: one["state"] for one in found} == dict.fromkeys(logs, "ok"), (run.stderr, logs)
    assert run.returncode == 0 and len(found) == 12
    by_name = {one["step"]: one["found"] for one in found}
    assert by_name["step"]["eager, batch 2"]["images_per_second"] > 0
    assert len(by_name["speed"]["pretraining"]) == 2
    assert by_name["poisoned"] == {"exit code": 1, "cells": 2}
    assert by_name["deterministic"]["same numbers"] == 1 and by_name["machine"]["requirements"] == "met"
    assert all(one["seconds"] for one in by_name["default"].values())
    assert len(by_name["waits"]) > 25  # every method


@pytest.fixture
def states(monkeypatch):
    """Return a run of the command whose steps end as told: its result, and the state of each step."""

    def run(out, kinds, *words):
        known = [Step(name, "", 1.0, "none", ()) for name in kinds]
        monkeypatch.setattr(check, "steps_of", lambda *_: known)
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
    assert (result.exit_code, found) == (1, ["skipped"])  # a check of nothing is none


def test_a_step_that_is_run_again_replaces_its_result_alone(states, tmp_path):
    states(tmp_path, {"a": "failed", "b": "ok"})
    assert states(tmp_path, {"a": "ok", "b": "ok"}, "--only", "a")[1] == ["ok", "ok"]
    (tmp_path / "check.json").write_text('{"steps": [{"st')  # ended while it was written
    assert states(tmp_path, {"a": "ok", "b": "ok"}, "--only", "a")[1] == ["ok"]


@pytest.fixture
def worked(monkeypatch, tmp_path):
    """Return what runs a step whose process does as told; it returns the step's result."""

    def run(work, results=None):
        monkeypatch.setattr(
            steps,
            "PROCESSES",
            SimpleNamespace(
                Process=lambda target, args: SimpleNamespace(
                    start=work, join=lambda seconds: None, is_alive=lambda: False, exitcode=0
                )
            ),
        )
        return steps.done(Step("it", "", 9.0, "none", ("FILE",), results), tmp_path, 9.0)

    return run


def test_a_step_finds_nothing_of_an_earlier_check(worked, tmp_path):
    (tmp_path / "it.json").write_text("[1]")
    (tmp_path / "it-results" / "cells").mkdir(parents=True)
    assert worked(lambda: None)["found"] is None
    there = []
    worked(lambda: there.append((tmp_path / "it-results").exists()), tmp_path / "it-results")
    assert there == [False]


def test_what_a_step_was_still_writing_is_nothing_found(worked, tmp_path):
    assert worked(lambda: (tmp_path / "it.json").write_text("{"))["found"] is None


def test_a_run_tells_how_its_records_were_made(worked, tmp_path):
    cells = tmp_path / "it-results" / "cells"

    def write():
        cells.mkdir(parents=True)
        timing = {"seconds": {"connect": 2.0}, "compilation": {"compiled": True}}
        (cells / "0123456789.json").write_text(json.dumps({"timing": timing}))
        (cells / "9876543210.failure.json").write_text(json.dumps({"error": "no"}))

    assert worked(write, cells.parent)["found"] == {
        "cells/01234567": {"seconds": {"connect": 2.0}, "images_per_second": None, "compilation": {"compiled": True}},
        "cells/98765432": {"error": "no"},
    }


def test_numbers_that_two_deterministic_runs_do_not_share_are_a_failure(monkeypatch):
    accuracies = iter((0.5, 0.6))

    def run(folder, *_):
        cells = folder / "results" / "cells"
        cells.mkdir(parents=True)
        for method, accuracy in (("llr", 0.5), ("cbft", next(accuracies))):
            record = {"cell": {"method": {"name": method}}, "metrics": accuracy, "timing": accuracy}
            (cells / f"{method}.json").write_text(json.dumps(record))
        return 0

    monkeypatch.setattr(probe, "_run", run)
    told = {}
    probe.deterministic(torch.device("cpu"), True, told.__setitem__)
    assert told["exit code 2"] == 0 and told["same numbers"] == {"error": "not the same", "methods": ["cbft"]}


def test_the_runs_of_the_full_check_are_understood(bench, tmp_path):
    runs = {step.name: step.words for step in check.steps_of("cpu", False, tmp_path, None) if step.results}
    assert list(runs) == ["default", "workers", "compiled"]
    for words in runs.values():
        assert bench(*words, "--dry-run").code == 0


def test_waits_that_grow_with_the_steps_are_a_fault_but_where_they_are_meant(monkeypatch):
    grows = {"ft-small": 2, "dfr": 9, "llr": 1}  # as two epochs have two steps more
    monkeypatch.setattr(probe, "_waits_of", lambda bench, offer, n: 5 + (n > 12) * grows.get(offer.spec.name, 0))
    found = {}
    probe.waits(torch.device("cpu"), True, found.__setitem__)
    assert [name for name, one in found.items() if "error" in one] == ["ft-small"]


def test_an_operation_without_a_deterministic_form_is_named(monkeypatch):
    def run(folder, *_):
        (folder / "results" / "cells").mkdir(parents=True)
        failure = {"label": "digits · llr", "error": "cumsum has no deterministic form"}
        (folder / "results" / "cells" / "it.failure.json").write_text(json.dumps(failure))
        return 1

    monkeypatch.setattr(probe, "_run", run)
    told = {}
    probe.deterministic(torch.device("cpu"), True, told.__setitem__)
    assert told["exit code 1"]["failures"] == {"digits · llr": "cumsum has no deterministic form"}


def test_what_is_missing_or_too_old_is_a_failure(monkeypatch):
    wanted = ["click>=8", "numpy>=99", "no-such-package", "ray>=2.40; extra == 'ray'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    told = {}
    probe.machine(torch.device("cpu"), True, told.__setitem__)
    assert told["requirements"] == {"error": "missing or too old", "which": ["numpy>=99", "no-such-package"]}


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_measured_as_the_current_one_with_its_index(monkeypatch, device, index):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert current(device) == torch.device("cuda", index) and chosen == [torch.device("cuda", index)]


@pytest.mark.parametrize(("parts", "found"), [(1, "never ran out"), (2, "[2]")])
def test_memory_that_never_ran_out_on_a_gpu_is_a_failure(monkeypatch, parts, found):
    def run(folder, *_):
        (folder / "results" / "cells").mkdir(parents=True)
        (folder / "results" / "cells" / "it.json").write_text(json.dumps({"provenance": {"micro_batches": parts}}))
        return 0

    monkeypatch.setattr(probe, "_run", run)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8e9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: None)
    told = {}
    probe.memory(torch.device("cuda:0"), False, told.__setitem__)
    assert found in str(told["micro-batches"])


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
    done(Step("first", "", 99.0, "ends", ()), pathlib.Path.cwd(), 99.0)  # torch is loaded now
    print(json.dumps(done(Step("it", "", 99.0, "hangs", ("FILE",)), pathlib.Path.cwd(), 5.0)))
"""


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_and_keeps_what_it_found(tmp_path):
    for name, code in (("ends", ""), ("hangs", HANGS), ("ends_it", ENDS_IT)):
        (tmp_path / f"{name}.py").write_text(code)
    run = subprocess.run([sys.executable, "ends_it.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    result = json.loads(run.stdout)
    assert (result["state"], result["exit_code"], result["found"]) == ("too slow", None, [1])
    assert (tmp_path / "it.log").read_text() == "so far\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_it_starts(tmp_path):
    result = CliRunner().invoke(check.main, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "torch sees no CUDA GPU" in result.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("factor", "found"), [(1.0, None), (1.5, "replayed steps compute something else")])
def test_replayed_steps_that_compute_something_else_are_a_failure(factor, found):
    def case():
        scale = factor if os.environ.get(SWITCH) == "0" else 1.0
        return [scale * torch.ones(3)], Progress()

    bench = SimpleNamespace(device=torch.device("cpu"), precision="fp32")
    row = repairs._compared(bench, case, [torch.zeros(3)])
    assert row.get("error") == found and SWITCH not in os.environ
