"""Controls: plain fine-tuning on the clean and the cued set together."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register pooled ERM."""
    register(
        MethodSpec(
            name="erm-pooled",
            target=".method:PooledERM",
            needs=frozenset({"cued"}),
            summary="A control: fine-tuning on clean and cued images, a batch of each a step",
        )
    )
