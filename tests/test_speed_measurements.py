"""The speed measurements themselves: what they count, and that they say what they measured."""

import pytest
import torch
from mmc_bench_benchmarks.speed.cases import Bench
from mmc_bench_benchmarks.speed.throughput import throughput, training_flop


@pytest.fixture(scope="module")
def bench():
    return Bench(torch.device("cpu"), "fp32")


def test_the_operations_of_a_training_image_are_those_of_the_cost_model(bench):
    """SCIENCE's cost model: 3.33 GFLOP a training image for ResNet-18, .69 for VGG-13."""
    for backbone, gflop in (("resnet18", 3.33), ("vgg13", 0.69)):
        x, y = bench.images(2)[0].batch(slice(None))
        assert training_flop(bench.ours(bench.network(backbone)), x, y) / 2e9 == pytest.approx(gflop, rel=0.02)


def test_counting_operations_leaves_a_model_as_it_was(bench):
    model = bench.ours(bench.network("resnet8")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_flop(model, *bench.images(2)[0].batch(slice(None)))
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_pretrainings_share_of_the_peak_is_its_operations_over_those_of_a_matrix_product(bench):
    use = throughput(bench, "resnet8", batch_size=16, steps=2, epochs=3)
    assert use["tflops"] == pytest.approx(use["images_per_second"]["median"] * use["gflop_per_image"] / 1e3)
    assert use["share"] == pytest.approx(use["tflops"] / use["peak_tflops"])
    assert 0 < use["share"] < 1.5 and use["images_per_second"]["min"] <= use["images_per_second"]["max"]
