"""Fine-tuning that is pulled towards the pretrained weights."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register L2-SP."""
    register(
        MethodSpec(
            name="l2-sp",
            target=".method:L2SP",
            summary="Fine-tuning with an L2 penalty on the distance from the starting point (Li et al., 2018)",
        )
    )
