"""A GPU that answers a process no longer: what failed there is handed in, and what is left goes on elsewhere."""

from types import SimpleNamespace

import pytest
import torch

from mmc_bench.engines import Outcome, Settings, StoppedError, local, store_of, worker
from mmc_bench.engines.local import InProcessEngine, Process
from mmc_bench.engines.worker import Worker, device_is_lost
from mmc_bench.results.records import Failure
from mmc_bench.training.memory import is_out_of_memory


@pytest.fixture
def dead(monkeypatch):
    """Let CUDA answer as after a device-side assert."""

    def synchronize(device=None):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)


def test_a_gpu_is_lost_when_it_does_not_answer(dead, monkeypatch):
    assert device_is_lost("cuda") and device_is_lost("cuda:1") and not device_is_lost("cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    assert not device_is_lost("cuda")


def failing(cell, tmp_path, monkeypatch, error):
    """Return the outcome of a job that fails with an error on a GPU."""

    def do_job(job, resources, report):
        raise error

    monkeypatch.setattr("mmc_bench.stages.job.do_job", do_job)
    monkeypatch.setattr(worker, "open_resources", opened)
    monkeypatch.setattr(worker, "make_room", lambda resources: None)
    return Worker(Settings(results=str(tmp_path), device="cuda")).attempt(cell, lambda job, event: None)


def opened(settings, registry):
    return SimpleNamespace(note=None, seed_everything=lambda *_: None, forget=lambda: None)


def test_the_outcome_says_that_the_gpu_is_lost(dead, cell, tmp_path, monkeypatch):
    outcome = failing(cell, tmp_path, monkeypatch, RuntimeError("CUDA error: device-side assert triggered"))
    assert outcome.lost_device and "device-side assert" in outcome.failure.error


def test_memory_that_ran_out_is_no_lost_gpu(cell, tmp_path, monkeypatch):
    outcome = failing(cell, tmp_path, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    assert not outcome.lost_device and outcome.failure


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    ],
)
def test_libraries_that_lack_memory_for_their_handles_ran_out_of_memory(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def lost(job):
    return Outcome(job, failure=Failure.of(job, "CUDA error"), lost_device=True)


def test_in_one_process_the_run_stops_with_one_sentence_and_the_failure_is_handed_in(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(local.Worker, "attempt", lambda self, job, on_event: lost(job))
    other = cell.with_changes(method=cell.method.with_changes(name="other"))
    settings = Settings(results=str(tmp_path))
    store_of(settings).check_writable()
    outcomes = InProcessEngine().run([cell, other], settings, lambda job, event: None)
    assert next(outcomes).failure.error == "CUDA error"
    with pytest.raises(StoppedError, match=r"the GPU answers this process no longer after .* failed: run the same"):
        next(outcomes)


def test_a_worker_process_is_replaced_before_its_next_job(cell):
    process = Process.__new__(Process)
    process.job, process._spoilt, process._first_size = cell, False, 1
    process._process = SimpleNamespace(is_alive=lambda: True, pid=0)
    process.connection = SimpleNamespace(recv=lambda: lost(cell))
    assert process.fit_for_more
    assert process.receive(lambda job, event: None).lost_device
    assert not process.fit_for_more


@pytest.mark.slow
def test_after_memory_ran_out_compiled_code_gives_its_memory_back(monkeypatch):
    called = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: called.append("empty"))
    monkeypatch.setattr(torch.compiler, "reset", lambda: called.append("reset"))
    worker.make_room(None)
    assert called == ["reset", "empty"]
