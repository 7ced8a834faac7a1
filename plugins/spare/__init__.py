"""SPARE: clusters of a model's outputs stand for groups."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register SPARE."""
    register(
        MethodSpec(
            name="spare",
            target=".method:SPARE",
            needs=frozenset({"cued"}),
            summary="Clusters of the pretrained model's outputs, the small ones upsampled (Yang et al., 2024)",
        )
    )
