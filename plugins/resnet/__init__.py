"""ResNets for small images."""

from collections.abc import Callable

from mmc_bench import BackboneSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    """Register ResNet-8, -20 and -18."""
    for depth, size in ((8, "78 k parameters"), (20, "272 k parameters")):
        register(
            BackboneSpec(
                name=f"resnet{depth}",
                target=".backbone:cifar_resnet",
                defaults={"blocks": (depth - 2) // 6},
                summary=f"He et al.'s CIFAR ResNet-{depth}, widths 16 32 64; {size}",
            )
        )
    register(
        BackboneSpec(
            name="resnet18",
            target=".backbone:resnet18",
            summary="ResNet-18 with a CIFAR stem (3x3, no max-pool); 11.2 M parameters",
        )
    )
