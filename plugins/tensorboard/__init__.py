"""A run in TensorBoard."""

from collections.abc import Callable

from mmc_bench import ObserverSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_observers(register: Callable[[ObserverSpec], None]) -> None:
    """Register the observer."""
    register(
        ObserverSpec(
            name="tensorboard",
            target=".observer:TensorBoard",
            summary="Losses of every epoch, accuracies, barriers, for TensorBoard, in RESULTS/tensorboard/",
            packages={"tensorboard": "mmc-bench[tensorboard]"},
        )
    )
