"""Image sets with a small box whose place, and in a hundred classes whose colour, tells the label."""

from collections.abc import Callable

from mmc_bench import DatasetSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register the digits (embedded), CIFAR-10 and CIFAR-100."""
    register(
        DatasetSpec(
            name="digits-box",
            target=".dataset:DigitsBox",
            sources=("digits",),
            num_classes=10,
            summary="UCI digits at 16x16 with a red 3x3 box; embedded, no download",
        )
    )
    register(
        DatasetSpec(
            name="cifar10-box",
            target=".dataset:Cifar10Box",
            sources=("cifar10",),
            num_classes=10,
            summary="CIFAR-10 with a green 3x3 box (Lubana et al., 2023)",
        )
    )
    register(
        DatasetSpec(
            name="cifar100-box-color",
            target=".colour:Cifar100BoxColour",
            sources=("cifar100",),
            num_classes=100,
            summary="CIFAR-100 with a 3x3 box in ten places and ten colours (Lubana et al., 2023)",
        )
    )
