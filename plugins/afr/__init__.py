"""Automatic feature reweighting."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register automatic feature reweighting."""
    register(
        MethodSpec(
            name="afr",
            target=".method:AutomaticFeatureReweighting",
            summary="Automatic feature reweighting of the last layer (Qiu et al., 2023)",
        )
    )
