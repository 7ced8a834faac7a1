"""`--deterministic`: it holds torch to algorithms that repeat themselves, whatever plugins do, and records say so."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from helpers.plugins import write_source
from mmc_bench_benchmarks.speed import deterministic as measuring
from mmc_bench_benchmarks.speed.cases import Case
from mmc_bench_benchmarks.speed.deterministic import price, switch
from torch._dynamo.utils import counters

from mmc_bench.engines import Settings, worker
from mmc_bench.engines.worker import open_resources
from mmc_bench.results.making import Provenance
from mmc_bench.stages import job, provenance
from mmc_bench.system.process_state import as_if_fresh
from mmc_bench.training import compiled
from mmc_bench.training.precision import prepare_device

PLUGIN = """
import os, torch
from mmc_bench import MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name="chancy", target=":Chancy", summary="changes how torch computes"))
    register(MethodSpec(name="refused", target=":Refused", summary="uses what has no deterministic form"))

class Chancy:
    def fine_tune(self, task):
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        return task.model

class Refused:
    def fine_tune(self, task):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        return task.model
"""


def flags():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


ON, OFF = (True, True, False, ":4096:8"), (False, False, False, None)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Whatever a test changes, others find nothing of it."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with as_if_fresh():
        yield


@pytest.mark.slow
def test_a_run_keeps_to_it_and_names_an_operation_that_has_no_deterministic_form(bench, monkeypatch):
    began, do_job = [], job.do_job
    monkeypatch.setattr(job, "do_job", lambda *given: began.append(flags()) or do_job(*given))
    plugins = write_source(bench.folder, "chancy.py", PLUGIN)
    words = ("--plugins-dir", plugins, "--seeds", 0)
    result = bench.tiny(*words, "--methods", "chancy,refused,tiny-ft", "--deterministic")
    assert result.code == 1 and began == [ON] * 4 and flags() == OFF
    sentence = "put_ has no deterministic form: run without --deterministic (chancy.py, line 19)"
    assert f"refused: {sentence}" in result.err and "deterministically" in result.err
    made = [json.loads(path.read_text())["provenance"] for path in bench.folder.glob("results/*/*.json")
            if ".failure" not in path.name]  # fmt: skip
    assert len(made) == 3 and all(one["deterministic"] for one in made)

    result = bench.tiny(*words, "--methods", "refused,tiny-ft")  # what is there stays, and the rest is done without
    assert result.code == 0 and began[4:] == [OFF]
    result = bench.tiny(*words, "--methods", "refused,tiny-ft", "--deterministic")
    assert result.code == 0 and len(began) == 5
    assert "1 cached cells were computed without --deterministic; another results folder" in result.err


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_the_option_reaches_the_workers_of_every_engine(bench, monkeypatch, engine):
    module = pytest.importorskip(f"mmc_bench.engines.{engine}")
    seen = []

    def run(self, jobs, settings, listener, follow_up):
        seen.append(settings.deterministic)
        yield from ()

    monkeypatch.setattr(getattr(module, f"{engine.capitalize()}Engine"), "run", run)
    for words in ((), ("--deterministic",)):
        bench("run", "--suite", "tiny.yaml", "--engine", engine, *words)
    assert seen == [False, True]


def test_a_worker_sets_it_before_anything_touches_the_gpu(tmp_path, monkeypatch):
    found = []

    def keep_to_share(device, share):
        found.append(flags())
        raise StopIteration

    monkeypatch.setattr(worker, "keep_to_share", keep_to_share)
    with pytest.raises(StopIteration):
        open_resources(Settings(results=str(tmp_path), device="cuda", gpu_share=0.5, deterministic=True))
    assert found == [ON]


@pytest.mark.parametrize(("given", "kept"), [(":16:8", ":16:8"), (":0:0", ":4096:8")])
def test_workspaces_that_repeat_themselves_are_left_as_the_user_chose_them(tmp_path, monkeypatch, given, kept):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    open_resources(Settings(results=str(tmp_path), deterministic=True))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == kept


def test_cudnn_measures_its_algorithms_unless_they_must_repeat_themselves():
    prepare_device("fp32", "cuda")
    assert torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    prepare_device("fp32", "cuda")
    assert not torch.backends.cudnn.benchmark


def test_compiling_measures_no_kernels_then(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options))
    monkeypatch.setattr(compiled, "_compiled", compiled._compiled.__wrapped__)
    for wanted in (False, True):
        torch.use_deterministic_algorithms(wanted)
        compiled.compiled(print)
    assert asked[0] == {"mode": "reduce-overhead", "dynamic": False}
    assert asked[1] == {"options": {"triton.cudagraphs": True, "deterministic": True}, "dynamic": False}
    assert torch._inductor.list_mode_options("reduce-overhead", False) == {"triton.cudagraphs": True}


def made_on(device, cell, monkeypatch):
    """Return the provenance of a cell on a device, whose name alone is invented."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    offer = SimpleNamespace(digest=None)
    resources = SimpleNamespace(
        device=torch.device(device), precision="bf16", threads=1, offer=lambda kind, plugin: offer
    )
    return provenance.provenance_of(cell, resources, {})


MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12.3\n"
OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root)\n"


@pytest.mark.parametrize(("text", "driver"), [(MODULE, "535.104.05"), (OPEN_MODULE, "580.95.05"), ("", None)])
def test_a_record_of_a_gpu_says_what_decides_its_numbers(cell, tmp_path, monkeypatch, text, driver):
    monkeypatch.setattr(provenance, "DRIVER", tmp_path / "version")
    if text:
        (tmp_path / "version").write_text(text)
    monkeypatch.setattr(provenance, "_driver", provenance._driver.__wrapped__)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    prepare_device("bf16", "cuda")
    made = made_on("cuda:7", cell, monkeypatch)
    assert made.device == "NVIDIA H100 80GB HBM3" and not made.deterministic
    assert made.cuda.model_dump() == {
        "runtime": torch.version.cuda,
        "driver": driver,
        "cudnn": None if torch.backends.cudnn.version() is None else str(torch.backends.cudnn.version()),
        "matmul_tf32": True,
        "cudnn_tf32": True,
        "cudnn_benchmark": True,
        "cudnn_deterministic": False,
        "compiling": False,
        "graphs": False,
    }
    assert Provenance.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("skips", [0, 1])
def test_a_record_says_whether_what_is_compiled_is_replayed_as_graphs(cell, monkeypatch, skips):
    monkeypatch.setitem(counters["inductor"], "cudagraph_skips", skips)
    made = made_on("cuda:7", cell, monkeypatch)
    assert made.cuda.compiling and made.cuda.graphs is (skips == 0)


def test_a_record_of_a_cpu_mentions_neither_unless_it_was_asked_for(cell, monkeypatch):
    plain = json.loads(made_on("cpu", cell, monkeypatch).model_dump_json())
    assert not {"cuda", "deterministic"} & plain.keys()
    torch.use_deterministic_algorithms(True)
    assert json.loads(made_on("cpu", cell, monkeypatch).model_dump_json()) == {**plain, "deterministic": True}


def test_its_price_is_written_as_it_is_found(monkeypatch, tmp_path):
    prices = [{"ratio": {"min": 1.0, "median": 1.0, "max": 1.0}}]  # the second fails
    for name in ("pretraining_step", "cbft_step", "path"):
        monkeypatch.setattr(measuring, name, lambda *_, **settings: Case("C0", "nothing", {}))
    monkeypatch.setattr(measuring, "price", lambda *_: prices.pop())
    words = ["--threads", str(torch.get_num_threads()), "--json", str(tmp_path / "found.json")]
    assert isinstance(CliRunner().invoke(measuring.main, words).exception, IndexError)
    assert len(json.loads((tmp_path / "found.json").read_text())["cases"]) == 1


def test_its_price_is_that_of_the_same_case_with_and_without_each_first_in_turn():
    ran = []
    case = Case("C", "some steps", {"ours": lambda: ran.append(flags()[0])})
    found = price(case, 2, torch.device("cpu"), "fp32")
    assert ran == [True, False, False, True, True, False]
    assert found["seconds"].keys() == {"without", "deterministic"} and found["ratio"]["median"] > 0


@pytest.mark.parametrize("wanted", [True, False])
def test_its_price_is_measured_as_workers_compute(wanted):
    switch(not wanted, torch.device("cuda"), "bf16")
    switch(wanted, torch.device("cuda"), "bf16")
    assert flags()[:3] == (wanted, wanted, not wanted)
