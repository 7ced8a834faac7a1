"""A control: last-layer retraining on the clean and the cued set together."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register last-layer retraining on pooled data."""
    register(
        MethodSpec(
            name="llr-pooled",
            target=".method:PooledLastLayerRetraining",
            needs=frozenset({"cued"}),
            summary="A control: last-layer retraining on clean and cued images, a batch of each a step",
        )
    )
