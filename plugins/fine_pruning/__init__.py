"""Pruning, then fine-tuning."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register fine-pruning."""
    register(
        MethodSpec(
            name="fine-pruning",
            target=".method:FinePruning",
            summary="Prune the features least active on clean images, then fine-tune (Liu et al., 2018)",
        )
    )
