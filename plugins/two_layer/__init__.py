"""The two-layer network of the paper's theory."""

from collections.abc import Callable

from mmc_bench import BackboneSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    """Register the two-layer network with a trained read-out, and the one that the paper writes down."""
    register(
        BackboneSpec(
            name="two-layer",
            target=".backbone:TwoLayer",
            summary="Linear, ReLU, Linear with biases; 512 hidden neurons",
        )
    )
    register(
        BackboneSpec(
            name="two-layer-mean",
            target=".backbone:MeanOfNeurons",
            summary="f(x) = mean of ReLU(Wx) as in Lubana et al. (2023), App. F.3; convex in x, two classes",
        )
    )
