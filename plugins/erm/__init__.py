"""Plain fine-tuning on the clean and the cued set together, and with classes or groups balanced."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register pooled ERM and its balanced variants."""
    register(
        MethodSpec(
            name="erm-pooled",
            target=".method:PooledERM",
            needs=frozenset({"cued"}),
            summary="A control: fine-tuning on clean and cued images, a batch of each a step",
        )
    )
    register(
        MethodSpec(
            name="erm-class-balanced",
            target=".method:ClassBalancedERM",
            needs=frozenset({"cued"}),
            summary="Fine-tuning on clean and cued images, all classes alike (Idrissi et al., 2022)",
        )
    )
    register(
        MethodSpec(
            name="erm-group-balanced",
            target=".method:GroupBalancedERM",
            needs=frozenset({"cued", "environments"}),
            summary="Fine-tuning on clean and cued images, all labels × environments alike (Idrissi et al., 2022)",
        )
    )
