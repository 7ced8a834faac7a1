"""Dominoes: CIFAR-10 images under Fashion-MNIST images of the same label."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register Dominoes."""
    register(
        DatasetSpec(
            name="dominoes",
            target=".dataset:Dominoes",
            sources=("cifar10", "fashion-mnist"),
            num_classes=10,
            summary="CIFAR-10 below a Fashion-MNIST image of the same label, 64x32 (Lubana et al., 2023)",
        )
    )
