"""Just train twice: the second training weighs what the pretrained model gets wrong."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register JTT."""
    register(
        MethodSpec(
            name="jtt",
            target=".method:JTT",
            needs=frozenset({"cued"}),
            summary="Just train twice: upsample the pretrained model's errors (Liu et al., 2021)",
        )
    )
