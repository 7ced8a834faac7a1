"""Several GPUs in one machine: which are used, by how many workers each, and how much of its memory one may take."""

import multiprocessing
import os
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from conftest import PLUGINS

import mmc_bench
from mmc_bench.engines import Outcome, Settings, gpu_memory, local, store_of
from mmc_bench.engines.gpu_memory import fraction_for_tensors, keep_to_share, shares
from mmc_bench.engines.local import LocalEngine
from mmc_bench.errors import UserError
from mmc_bench.results.records import Failure
from mmc_bench.running import devices, launch
from mmc_bench.running.devices import device_words, resolve_device, resolve_devices
from mmc_bench.running.launch import share_cores
from mmc_bench.stages.provenance import device_name
from mmc_bench.system.process_state import Changes, ProcessState


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that lets torch see so many GPUs, each with 16 GB, or Apple's."""
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)

    def see(count, apples=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apples)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 << 30))

    return see


@pytest.mark.parametrize(
    ("count", "apples", "found"),
    [
        (0, False, ("cpu",)),
        (0, True, ("mps",)),
        (1, True, ("cuda",)),
        (3, False, ("cuda:0", "cuda:1", "cuda:2")),
    ],
)
def test_auto_is_every_gpu_that_is_there(gpus, count, apples, found):
    gpus(count, apples)
    assert resolve_devices("auto") == found
    assert resolve_device("auto") == found[0]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("cuda", ("cuda",)),
        ("cuda:2", ("cuda:2",)),
        ("cuda:2, cuda:0", ("cuda:2", "cuda:0")),
        ("cuda,cuda:1", ("cuda:0", "cuda:1")),
    ],
)
def test_gpus_are_named_by_their_index(gpus, wanted, found):
    gpus(3)
    assert resolve_devices(wanted) == found


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("cuda:3", r"device cuda:3 cannot be used \(torch sees cuda:0 to cuda:2\): use cpu or auto"),
        ("cuda:0,cuda:3", r"device cuda:3 cannot be used \(torch sees cuda:0 to cuda:2\)"),
        ("cuda:1,cuda:1", "device cuda:1,cuda:1: cuda:1 is there twice: name each GPU once"),
        ("cuda,cuda:0", "cuda:0 is there twice"),
        ("cpu,cuda:0", "device cpu,cuda:0: 'cpu' is no CUDA GPU: a list names these alone, as cuda:0,cuda:2"),
        ("auto,cuda:0", "'auto' is no CUDA GPU"),
        ("cuda:0,", "'' is no CUDA GPU"),
        ("cuda:0,1", "'1' is no CUDA GPU"),
        ("mps", r"device mps cannot be used \(torch sees no GPU of Apple's\): use cpu or auto"),
        ("warp", "device warp cannot be used: write auto, cpu, cuda, cuda:1, … or mps"),
        ("meta", "device meta cannot be used"),
    ],
)
def test_devices_that_cannot_be_meant_get_one_sentence(gpus, wanted, sentence):
    gpus(3)
    with pytest.raises(UserError, match=sentence):
        resolve_devices(wanted)


@pytest.mark.parametrize("device", [None, 0])
def test_what_is_no_name_of_a_device_gets_one_sentence(device):
    with pytest.raises(UserError, match=f"device {device} is neither a name, such as auto, cpu or cuda:1, nor a list"):
        device_words(device)


@pytest.mark.parametrize(("count", "there"), [(0, "no CUDA GPU"), (1, "cuda:0 alone")])
def test_the_sentence_says_which_gpus_torch_sees(gpus, count, there):
    gpus(count)
    with pytest.raises(UserError, match=f"torch sees {there}"):
        resolve_devices("cuda:1")


def test_each_gpu_gets_a_worker_by_default(gpus, monkeypatch):
    monkeypatch.setattr(launch, "available_cores", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert share_cores(("cuda:0", "cuda:1", "cuda:2"), None, None) == (3, 4)
    assert share_cores(("cuda:0", "cuda:1"), 4, None) == (4, 3)
    assert share_cores(("mps",), None, 2) == (1, 2)
    assert share_cores(("cpu",), None, 2) == (6, 2)


@pytest.mark.parametrize(
    ("said", "workers", "shared"),
    [
        ("3", None, (4, 3)),
        ("3", 2, (2, 3)),
        ("3", 6, (6, 2)),
        ("3", 0, (0, 3)),
        ("12", 4, (4, 3)),
        ("6,2", None, (2, 6)),
        ("0", None, (1, 12)),
        ("many", 3, (3, 4)),
    ],
)
def test_no_worker_has_more_threads_than_the_environment_says(monkeypatch, said, workers, shared):
    monkeypatch.setattr(launch, "available_cores", lambda: 12)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert share_cores(("cpu",), workers, None) == shared
    assert share_cores(("cpu",), None, 4) == (3, 4)  # which is an order


@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("12", 4)])
def test_nor_has_the_worker_of_a_gpu(monkeypatch, said, threads):
    monkeypatch.setattr(launch, "available_cores", lambda: 12)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert share_cores(("cuda:0", "cuda:1", "cuda:2"), None, None) == (3, threads)


class Threaded:
    def fine_tune(self, task):
        raise ValueError(f"{torch.get_num_threads()} in torch, {os.environ['OMP_NUM_THREADS']} elsewhere")


@pytest.mark.slow
def test_other_libraries_of_a_worker_have_its_number_of_threads(bench, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "12")
    given = {"plugins_dir": PLUGINS, "results": bench.folder / "results", "workers": 1, "progress": False}
    results = mmc_bench.run(bench.folder / "tiny.yaml", methods=[Threaded], seeds=0, **given)
    assert "ValueError: 1 in torch, 1 elsewhere" in results.failures[0].error


@pytest.fixture
def placed(bench, gpus, monkeypatch):
    """Return a function that calls ``run`` on three GPUs; it returns the engine, its settings and what is announced."""
    gpus(3)
    monkeypatch.setattr(launch, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    seen = []

    def run(self, jobs, settings, on_event, follow_up):
        seen.append((self, settings))
        yield from ()

    monkeypatch.setattr(LocalEngine, "run", run)
    monkeypatch.setattr(local.InProcessEngine, "run", run)

    def call(*words):
        result = bench("run", "--suite", "tiny.yaml", "--set", "threads=null", *words)
        return *seen.pop(), result.err

    return call


def test_a_run_says_on_which_gpus_its_workers_are(placed):
    engine, settings, announced = placed()
    assert (engine.workers, engine.devices, settings.device) == (3, ("cuda:0", "cuda:1", "cuda:2"), "cuda:0")
    assert "3 workers of 2 threads on 3 GPUs (cuda:0, cuda:1, cuda:2) in bf16" in announced


def test_no_more_gpus_are_used_than_there_are_workers(placed):
    engine, _, announced = placed("--device", "cuda:2,cuda:0", "--workers", 1)
    assert engine.devices == ("cuda:2",) and "on cuda:2 in bf16" in announced
    _, settings, announced = placed("--workers", 0)
    assert settings.device == "cuda:0" and "this process with 8 threads on cuda:0" in announced


def test_cuda_is_one_gpu_as_in_torch(placed):
    engine, _, announced = placed("--device", "cuda")
    assert (engine.workers, engine.devices) == (1, ("cuda",)) and "1 worker of 8 threads on cuda in bf16" in announced


def test_too_many_workers_for_a_gpus_memory_get_one_sentence_before_anything_runs(bench, gpus):
    gpus(1)
    result = bench("run", "--suite", "tiny.yaml", "--workers", 9)
    assert result.code == 4
    assert result.err.splitlines()[-1] == (
        "mmc-bench: cuda has 16.0 GB: a share of 0.11 leaves a worker less than 1 GB besides its CUDA context: "
        "let fewer workers share a GPU"
    )


def test_devices_may_be_a_list_in_python(gpus, tmp_path):
    gpus(1)
    with pytest.raises(UserError, match=r"device cuda:1 cannot be used \(torch sees cuda:0 alone\)"):
        mmc_bench.run("quick", device=["cuda:0", "cuda:1"], results=tmp_path, progress=False)


def test_workers_are_spread_evenly_and_share_the_memory_of_their_gpu():
    assert shares(("cuda:0", "cuda:1"), 2) == {"cuda:0": 1, "cuda:1": 1}
    assert shares(("cuda:0", "cuda:1"), 3) == {"cuda:0": 1 / 2, "cuda:1": 1}
    assert shares(("cuda:0", "cuda:1", "cuda:2"), 2) == {"cuda:0": 1, "cuda:1": 1}
    assert shares(("cuda",), 0) == {}


def test_a_new_worker_goes_to_the_gpu_with_the_fewest(monkeypatch):
    engine, settings = LocalEngine(5, devices=("cuda:0", "cuda:2")), Settings(results="")
    team = []
    for _ in range(5):
        team.append(engine._placed(settings, team))
    assert [own.device for own in team] == ["cuda:0", "cuda:2", "cuda:0", "cuda:2", "cuda:0"]
    assert [own.gpu_share for own in team] == [1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3]
    for lost in range(5):
        others = team[:lost] + team[lost + 1 :]
        assert engine._placed(settings, others) == team[lost]


class OneJobWorker:
    """A worker that has to be replaced after its first job, which fails."""

    made: ClassVar[list[str]] = []

    def __init__(self, settings, start):
        self.device, self.job, self.last_pretraining, self.fit_for_more = settings.device, None, None, True
        self.connection, self.other_end = multiprocessing.Pipe()
        self.made.append(self.device)

    def give(self, job):
        self.job = job
        self.other_end.send("ended")

    def receive(self, on_event):
        self.connection.recv()
        job, self.job, self.fit_for_more = self.job, None, False
        return Outcome(job, failure=Failure.of(job, "it fails"))

    def enforce(self, limits):
        pass

    def kill(self):
        pass


def test_a_worker_that_is_replaced_leaves_the_others_on_their_gpus(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "Process", OneJobWorker)
    OneJobWorker.made.clear()
    jobs = [cell.with_changes(method=cell.method.with_changes(name=name)) for name in "abcdef"]
    engine, settings = LocalEngine(3, devices=("cuda:0", "cuda:1", "cuda:2")), Settings(results=str(tmp_path))
    store_of(settings).check_writable()
    assert len(list(engine.run(jobs, settings, lambda job, event: None))) == 6
    assert sorted(OneJobWorker.made) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:2", "cuda:2"]


def test_without_other_devices_workers_are_on_that_of_their_settings():
    own = LocalEngine(4)._placed(Settings(results="", device="cuda:1"), [])
    assert (own.device, own.gpu_share) == ("cuda:1", 1 / 4)


@pytest.fixture
def asked(monkeypatch):
    """Return what is asked of CUDA."""
    found = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8 << 30))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: found.append(str(device)))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    return found


def test_a_worker_takes_its_share_less_a_context_and_no_other_gpu_is_the_current_one(asked):
    keep_to_share("cuda:1", 0.5)
    assert asked == ["cuda:1", 3 / 8]
    asked.clear()
    keep_to_share("cuda", 1.0)
    assert asked == []  # the first GPU, all of it


def test_a_share_too_small_for_a_worker_gets_one_sentence(asked):
    assert fraction_for_tensors("cuda:0", 1 / 4) == 1 / 8
    with pytest.raises(UserError, match=r"cuda:0 has 8\.0 GB: a share of 0\.2 leaves a worker less than 1 GB"):
        fraction_for_tensors("cuda:0", 1 / 5)
    assert gpu_memory.LEAST == gpu_memory.CONTEXT == 1 << 30


def test_that_a_job_is_the_first_to_use_cuda_is_no_change_of_its_process(monkeypatch):
    current = [0]
    before = ProcessState.now().but_for_chance()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    assert before.put_back() == Changes()
    current[0] = 1  # as after torch.cuda.set_device(1)
    assert "the GPU in use to 1" in before.put_back().lasting  # nothing puts it back here


def test_a_processor_is_named_with_the_instructions_that_torch_uses():
    """Processors of one name differ in them, and the same training then takes another course."""
    name = device_name(torch.device("cpu"))
    assert name.startswith("cpu (") and name.endswith(f"{torch.backends.cpu.get_cpu_capability()})")
