"""The engine `ray` without a cluster: what a node has room for, what the options say, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from mmc_bench.engines import Outcome, Settings
from mmc_bench.engines.worker import open_resources


@pytest.mark.parametrize(
    ("share", "node", "room"),
    [
        ((1, 0), {"CPU": 8.0}, 8),
        ((3, 0), {"CPU": 8.0}, 2),
        ((0.1, 0), {"CPU": 1.0}, 10),
        ((1, 0.25), {"CPU": 8.0, "GPU": 1.0}, 4),
        ((1, 0.4), {"CPU": 8.0, "GPU": 2.0}, 4),  # a worker's share lies on one GPU
        ((4, 0.25), {"CPU": 8.0, "GPU": 1.0}, 2),
        ((1, 1), {"CPU": 8.0}, 0),
        ((1, 0), {}, 0),
    ],
)
def test_a_node_has_room_for_whole_shares_alone(share, node, room):
    engine = pytest.importorskip("mmc_bench.engines.ray")
    assert engine.Share(*share).room(node) == room


def test_a_worker_takes_no_more_than_its_share_of_the_gpu_memory(tmp_path, monkeypatch):
    fractions = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 << 30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    monkeypatch.setattr("mmc_bench.training.precision.prepare_device", lambda *given: None)
    open_resources(Settings(results=str(tmp_path), device="cuda", gpu_share=1.0))
    assert fractions == []
    open_resources(Settings(results=str(tmp_path), device="cuda", gpu_share=0.25))
    assert fractions == [3 / 16]  # one gigabyte of the four is for the CUDA context


@pytest.mark.parametrize(
    ("words", "share", "settings"),
    [
        ([], (1, 0), ("cpu", 1, 1.0)),
        (["--set", "threads=null", "--cpus-per-cell", 2], (2, 0), ("cpu", 2, 1.0)),
        (["--threads", 3], (3, 0), ("cpu", 3, 1.0)),
        (["--cpus-per-cell", 0.5, "--gpus-per-cell", 0.25], (0.5, 0.25), ("cuda", 1, 0.25)),
    ],
)
def test_options_say_what_a_worker_takes_and_gets(bench, monkeypatch, words, share, settings):
    engine = pytest.importorskip("mmc_bench.engines.ray")
    seen = []

    def run(self, jobs, settings, listener, follow_up):
        seen.append((self.share, (settings.device, settings.threads, settings.gpu_share), settings.precision))
        yield from (Outcome(job, failure=None) for job in ())

    monkeypatch.setattr(engine.RayEngine, "run", run)
    bench("run", "--suite", "tiny.yaml", "--engine", "ray", *words)
    assert seen == [(engine.Share(*share), settings, "auto")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--address", "auto"], "--address is about a Ray cluster: add --engine ray"),
        (["--gpus-per-cell", 0.5], "--gpus-per-cell is about a Ray cluster: add --engine ray"),
        (["--engine", "ray", "--workers", 0], "leave it out with --engine ray"),
        (["--engine", "ray", "--device", "cuda"], "that takes --gpus-per-cell 1, or less"),
        (["--engine", "ray", "--device", "mps"], "write cpu, cuda or auto"),
        (["--engine", "ray", "--address", "node"], "--address node: write host:port"),
        (["--engine", "ray", "--address", "ray://node:10001"], "--address ray://node:10001: write host:port"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nothing answers there"),
        (["--engine", "ray", "--gpus-per-cell", 2], "--gpus-per-cell"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(bench, words, sentence):
    pytest.importorskip("ray")
    result = bench("run", "--suite", "tiny.yaml", *words)
    assert result.code == 4
    assert sentence in result.err and len(result.err.splitlines()) == 1


def test_without_ray_one_sentence_says_what_to_install(bench, monkeypatch):
    monkeypatch.setattr("mmc_bench.running.cluster.find_spec", lambda name: None)
    result = bench("run", "--suite", "tiny.yaml", "--engine", "ray")
    assert result.code == 4
    assert result.err == "mmc-bench: --engine ray needs Ray: pip install 'mmc-bench[ray]'\n"
