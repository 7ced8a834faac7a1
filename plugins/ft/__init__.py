"""Naive fine-tuning of all parameters on the clean set, at three learning rates."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1

LEARNING_RATES = {"large": 0.1, "medium": 0.01, "small": 0.001}


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register one variant for each learning rate."""
    for size, lr in LEARNING_RATES.items():
        register(
            MethodSpec(
                name=f"ft-{size}",
                target=".method:FineTuning",
                defaults={"lr": lr},
                summary=f"Naive fine-tuning, learning rate {lr:g} (Lubana et al., 2023, App. A.2)",
            )
        )
