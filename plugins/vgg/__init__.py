"""VGG-13 for small images."""

from collections.abc import Callable

from mmc_bench import BackboneSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    """Register VGG-13."""
    register(
        BackboneSpec(
            name="vgg13",
            target=".backbone:VGG13",
            summary="VGG-13 with BatchNorm, strided convolutions and a global pool; 9.4 M parameters",
        )
    )
