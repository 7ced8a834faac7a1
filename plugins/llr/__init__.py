"""Last-layer retraining."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register last-layer retraining."""
    register(
        MethodSpec(
            name="llr",
            target=".method:LastLayerRetraining",
            summary="Last-layer retraining (Kirichenko et al., 2022b)",
        )
    )
