"""A control: training on the clean set alone, without the pretrained weights."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register training from scratch."""
    register(
        MethodSpec(
            name="from-scratch",
            target=".method:FromScratch",
            summary="A control: a network with random weights, trained on the clean set alone",
        )
    )
