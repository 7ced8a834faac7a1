"""Correlation alignment of the features of the cued and the clean set."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register Deep CORAL."""
    register(
        MethodSpec(
            name="coral",
            target=".method:CORAL",
            needs=frozenset({"cued"}),
            summary="Deep CORAL: equal means and covariances of features (Sun and Saenko, 2016)",
        )
    )
