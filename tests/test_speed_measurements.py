"""The speed measurements themselves: what they count, and that they say what they measured."""

import copy
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from mmc_bench_benchmarks.speed import __main__ as speed
from mmc_bench_benchmarks.speed import cases
from mmc_bench_benchmarks.speed.__main__ import measured, ratio
from mmc_bench_benchmarks.speed.cases import (
    Bench,
    Case,
    cbft_step,
    cued_images,
    last_layer,
    parity,
    path,
    pretraining_step,
)
from mmc_bench_benchmarks.speed.plain import evaluate_path as evaluate_path_plainly
from mmc_bench_benchmarks.speed.scaling import WAYS, Way, work
from mmc_bench_benchmarks.speed.scaling import throughput as jobs_per_second
from mmc_bench_benchmarks.speed.starting import compared
from mmc_bench_benchmarks.speed.throughput import throughput

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.landscape.paths import evaluate_path, linear_path
from mmc_bench.results.metrics import Score
from mmc_bench.stages.hardware import matrix_product_peak, training_flop
from mmc_bench.system.process_state import as_if_fresh
from mmc_bench.system.torch_state import float32_precision
from mmc_bench.training import Training
from mmc_bench.training.compiled import WORTHWHILE_STEPS
from mmc_bench.training.precision import allow_tf32


@pytest.fixture(scope="module")
def bench():
    return Bench(torch.device("cpu"), "fp32")


@pytest.mark.slow
def test_the_operations_of_a_training_image_are_those_of_the_cost_model(bench):
    """SCIENCE's cost model: 3.33 GFLOP a training image for ResNet-18, .69 for VGG-13."""
    for backbone, gflop in (("resnet18", 3.33), ("vgg13", 0.69)):
        x, y = bench.images(2)[0].batch(slice(None))
        assert training_flop(bench.ours(bench.network(backbone)), x, y) / 2e9 == pytest.approx(gflop, rel=0.02)


def test_counting_operations_leaves_a_model_as_it_was(bench):
    model = bench.ours(bench.network("resnet8")).train()
    model.bn1.eval()  # as a frozen part is
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_flop(model, *bench.images(2)[0].batch(slice(None)))
    assert model.training and not model.bn1.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_pretrainings_share_of_the_peak_is_its_operations_over_those_of_a_matrix_product(bench, monkeypatch):
    peak = matrix_product_peak(bench.device, 0.01)
    monkeypatch.setattr("mmc_bench_benchmarks.speed.throughput.matrix_product_peak", lambda *_: peak)
    use = throughput(bench, "resnet8", batch_size=16, steps=2, epochs=3)
    assert use["tflops"] == pytest.approx(use["images_per_second"]["median"] * use["gflop_per_image"] / 1e3)
    assert use["share"] == pytest.approx(use["tflops"] / use["peak_tflops"])
    assert 0 < use["share"] < 1.5 and use["images_per_second"]["min"] <= use["images_per_second"]["max"]


def test_ours_and_the_plain_loops_compute_the_same(bench):
    checks = parity(bench, "resnet8", batch_size=32)
    assert checks["fp32_output"] < 1e-5


@pytest.mark.slow
def test_in_fp32_nothing_computes_in_bf16_which_the_processor_may_have_to_emulate(bench):
    half = Bench(torch.device("cpu"), "bf16")
    assert list(pretraining_step(bench, 1, 2).runs) == ["ours", "R1"]
    assert list(pretraining_step(half, 1, 2).runs) == ["ours", "R1", "R2"]
    assert list(parity(bench, "resnet8", batch_size=8)) == ["fp32_output"]
    assert list(parity(half, "resnet8", batch_size=8)) == ["fp32_output", "bf16_loss"]


def test_parity_sees_a_difference(bench, monkeypatch):
    def redder(self, rows):
        x, y = batch(self, rows)
        return x + 0.1, y

    batch = CuedImages.batch
    monkeypatch.setattr(CuedImages, "batch", redder)
    assert parity(bench, "resnet8", batch_size=32)["fp32_output"] > 1e-4


@pytest.mark.slow
def test_rounding_to_bf16_is_no_difference_of_parity():
    checks = parity(Bench(torch.device("cpu"), "bf16"), batch_size=8)
    assert 0 < checks["bf16_loss"] < cases.BF16_LOSS


def test_a_difference_in_bf16_is_told_and_ends_no_measurement(bench, monkeypatch):
    monkeypatch.setattr(speed, "parity", lambda bench: {"fp32_output": 0.0, "bf16_loss": 0.5})
    monkeypatch.setattr(speed, "CASES", {"C0": lambda bench: Case("C0", "nothing", {"ours": lambda: None})})
    found = dict(speed.measurements(bench, ["C0"], 1))
    assert found["parity"]["bf16_loss"] == 0.5 and found["cases"]["case"] == "C0"


def test_a_case_that_fails_ends_no_other_and_shows_in_the_exit_code(monkeypatch, tmp_path):
    def failing(bench):
        raise RuntimeError("different assignments")

    working = Case("C0", "nothing", {"ours": lambda: None})
    monkeypatch.setattr(speed, "parity", lambda bench: {"fp32_output": 0.0})
    monkeypatch.setattr(speed, "CASES", {"C4": failing, "C0": lambda bench: working})
    done = CliRunner().invoke(speed.main, ["--rounds", "1", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert done.exit_code == 1 and [one["case"] for one in found["cases"]] == ["C0"]
    assert found["failed"] == [{"case": "C4", "error": "RuntimeError: different assignments"}]


@pytest.mark.slow
def test_both_ways_to_match_units_compute_in_float32(bench, monkeypatch):
    seen = []

    def looks(*_):
        seen.append(float32_precision()["cudnn"])
        return SimpleNamespace(correlation=None)

    monkeypatch.setattr(cases, "Observer", lambda *_: SimpleNamespace(groups=None))
    monkeypatch.setattr(cases, "joint_moments", looks)
    monkeypatch.setattr(cases, "match_activations", lambda *_: {})
    monkeypatch.setattr(cases.plain_matching, "match", lambda *_: looks() and [])
    with as_if_fresh():
        allow_tf32(True)  # as in bf16 on a GPU
        for run in cases.matching(bench, n=2).runs.values():
            run()
    assert seen == [False, False]


def test_a_failed_compilation_is_told_and_its_seconds_are_those_of_the_warm_up(bench, monkeypatch):
    def fit(training):
        training._progress.is_uncompiled("no compiler")
        training._progress.compiler.seconds += 40
        return fit_(training)

    fit_ = Training.fit
    monkeypatch.setattr(Training, "fit", fit)
    monkeypatch.setattr("mmc_bench_benchmarks.speed.throughput.matrix_product_peak", lambda *_: 1e9)
    use = throughput(bench, "resnet8", batch_size=8, steps=1, epochs=3)
    assert use["warm_up_seconds"] > 40 > use["seconds"]
    assert use["compilation"] == {"compiled": False, "seconds": 40.0, "why_not": "no compiler"}
    spoken = speed.describe_throughput({**use, "compiled_graphs": 0})
    assert "not compiled (no compiler)" in spoken


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        lambda bench: last_layer(bench, n=20, epochs=1),
        lambda bench: path(bench, bn_images=20, test_images=10, points=3),
        lambda bench: cued_images(bench, n=40, batch_size=10),
        lambda bench: cbft_step(bench, batch_size=4, num_classes=10),
    ],
)
def test_every_candidate_of_a_case_runs(bench, case):
    for run in case(bench).runs.values():
        run()


@pytest.mark.slow
def test_ours_and_the_plain_path_see_the_same_accuracy(bench):
    network, other = bench.network("resnet8"), bench.network("resnet8")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    (bn, bn_plain), (test, test_plain) = bench.images(50, seed=1), bench.images(40, seed=2)
    score = Score(accuracy=0.0, loss=0.0)
    models = bench.ours(network), bench.ours(other)
    along = evaluate_path(linear_path(*models), models[1], {"NC": test}, bn, 3, ({"NC": score}, {"NC": score}))[1]
    plainly = evaluate_path_plainly(network, other, bn_plain, {"NC": test_plain}, [0.5], bench.r1)
    assert along["NC"][1].accuracy == pytest.approx(plainly["NC"][0], abs=0.03)


def test_throughput_comes_first_and_is_written_before_a_case_fails(monkeypatch, tmp_path):
    use = {
        "backbone": "resnet18",
        "batch_size": 256,
        "images_per_second": {"median": 1000.0},
        "tflops": 3.3,
        "peak_tflops": 6.6,
        "share": 0.5,
        "seconds": 2.5,
        "warm_up_seconds": 31.0,
        "compilation": {"compiled": True, "seconds": 30.0, "why_not": None},
        "compiled_graphs": 2,
        "cuda_graph_skips": 1,
    }
    monkeypatch.setattr(speed, "throughput", lambda bench, backbone: {**use, "backbone": backbone})
    monkeypatch.setattr(speed, "parity", lambda bench: {"fp32_output": 0.5})
    words = ["--only", "C6,throughput", "--json", str(tmp_path / "found.json")]
    done = CliRunner().invoke(speed.main, words)
    assert done.exit_code == 1 and "do not compute the same" in done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["backbone"] for one in found["pretraining"]] == list(speed.BACKBONES)
    line = "resnet18  1,000 images/s, 50% of a matrix product, over 2.5 s after 31.0 s of warm-up"
    assert f"{line}; 2 graphs compiled, 1 not replayed as CUDA graphs" in done.output


@pytest.mark.slow
def test_on_a_gpu_a_step_of_pretraining_is_one_of_a_training_long_enough_to_be_compiled(bench, monkeypatch):
    assert pretraining_step(bench, 1, 2).notes() == {}
    on_gpu = copy.copy(bench)
    on_gpu.device = SimpleNamespace(type="cuda")
    monkeypatch.setattr(on_gpu, "ours", bench.ours)  # the network and the images lie on the CPU
    monkeypatch.setattr(on_gpu, "images", bench.images)
    trainings = []

    def training(*arguments):
        trainings.append(bench.training(*arguments))
        return trainings[-1]

    monkeypatch.setattr(on_gpu, "training", training)
    monkeypatch.setattr(cases, "arithmetic", lambda *_: nullcontext())
    case = pretraining_step(on_gpu, 2, 2)
    for _ in range(2):
        case.runs["ours"]()
    assert case.what.endswith("2 steps of 2 images")
    assert case.notes()["compilation"]["compiled"] is False  # what it says is what was seen
    trainings[0]._progress.is_uncompiled("no compiler")
    assert case.notes()["compilation"]["why_not"] == "no compiler"
    assert [one.step for one in trainings] == [3]  # the fourth ends when the next is asked for
    assert trainings[0].steps > WORTHWHILE_STEPS


def test_the_warm_up_is_told_apart():
    taken = measured(Case("C0", "nothing", {"ours": lambda: None, "R1": lambda: None}), 2, torch.device("cpu"))
    assert set(taken["warm_up_seconds"]) == {"ours", "R1"}


def test_a_ratio_is_that_of_the_medians_with_the_range_of_the_rounds():
    assert ratio([4.0, 9.0, 5.0], [1.0, 3.0, 2.0]) == {"min": 2.5, "median": 2.5, "max": 4.0}


@pytest.mark.slow
def test_aligning_two_resnet18s_takes_less_than_a_gigabyte_beyond_the_networks():
    # In chunks of 128 images: more of them take no more.
    words = [sys.executable, "-m", "mmc_bench_benchmarks.speed.memory", "--images", "128", "--json", "/dev/stdout"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["verified"] and 0 < found["extra_mb"] < 1000


def test_jobs_a_second_are_counted_while_all_workers_work():
    alone = [(0.0, 5.0), (10.0, 12.0), (13.0, 15.0), (16.0, 18.0)]  # the first job loads torch
    assert jobs_per_second(alone, 1) == pytest.approx(3 / 8)
    late = [(11.0, 14.5), (14.5, 16.5), (16.5, 20.0)]  # of a second worker, which goes on when the first has no more
    assert jobs_per_second(alone + late, 2) == pytest.approx(2 / 2)
    with pytest.raises(ValueError, match="too seldom in progress together"):
        jobs_per_second(alone, 2)


@pytest.mark.slow
def test_two_runs_on_one_folder_do_every_job_of_the_measurement_once():
    assert {way.workers for way in WAYS.values()} == {1, 2}
    jobs = work(Way(2, 2, ("--workers", "0", "--methods", "ft-small")), seeds=1)
    assert len(jobs) == 2 and all(start < end for start, end in jobs)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked under Linux alone")
def test_both_ways_to_start_workers_are_timed():
    found = compared(2, 1, ("json",))
    assert found["workers"] == 2 and min(found.values()) > 0
    for what in ("seconds", "processor_seconds"):
        assert found[f"{what}_ratio"] == found[f"forked_{what}"] / found[f"spawned_{what}"]
