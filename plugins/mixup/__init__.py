"""Fine-tuning on mixtures of clean images."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register mixup."""
    register(
        MethodSpec(
            name="mixup",
            target=".method:Mixup",
            summary="Fine-tuning on mixtures of pairs of clean images (Zhang et al., 2018)",
        )
    )
