"""Linear probing, then fine-tuning."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register LP-FT."""
    register(
        MethodSpec(
            name="lpft",
            target=".method:LPFT",
            summary="Linear probing, then fine-tuning; learning rate chosen on validation (Kumar et al., 2022)",
        )
    )
