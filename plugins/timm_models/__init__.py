"""Any model of timm."""

from collections.abc import Callable

from mmc_bench import BackboneSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    """Register the family timm/*."""
    register(
        BackboneSpec(
            name="timm/*",
            target=".backbone:build",
            check_member=".pretrained:check_model",
            example="timm/test_resnet",
            weights=".pretrained:weights_of",
            summary="any timm model from random weights, e.g. timm/resnet10t, with a CIFAR stem for ResNet, RegNet, "
            "DenseNet, EfficientNet and MobileNetV3; or from pretrained ones, e.g. timm/resnet50.a1_in1k",
        )
    )
