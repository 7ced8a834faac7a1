"""Deep feature reweighting."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register deep feature reweighting."""
    register(
        MethodSpec(
            name="dfr",
            target=".method:DeepFeatureReweighting",
            summary="Deep feature reweighting: L1 logistic regression on frozen features (Kirichenko et al., 2022b)",
        )
    )
