"""Selective augmentation: mixup within a label or within a spurious attribute."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 3


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register LISA."""
    register(
        MethodSpec(
            name="lisa",
            target=".method:LISA",
            needs=frozenset({"cued", "environments"}),
            summary="Selective mixup, within a label or a spurious attribute (Yao et al., 2022)",
        )
    )
