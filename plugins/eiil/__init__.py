"""Environment inference, then group distributionally robust optimisation."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register EIIL."""
    register(
        MethodSpec(
            name="eiil",
            target=".method:EIIL",
            needs=frozenset({"cued"}),
            summary="Environments inferred from the pretrained model, then group DRO (Creager et al., 2021)",
        )
    )
