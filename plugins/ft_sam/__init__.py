"""Sharpness-aware fine-tuning on the clean set."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register FT-SAM."""
    register(
        MethodSpec(
            name="ft-sam",
            target=".method:SharpnessAwareFineTuning",
            summary="Sharpness-aware fine-tuning, adaptive to weights (Zhu et al., 2023)",
        )
    )
