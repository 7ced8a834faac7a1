"""timm's models on small images."""

from typing import Any

import timm
from timm.models.densenet import DenseNet
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from torch import nn

from mmc_bench import UserError
from mmc_bench.errors import nearest


def check_model(model: str) -> None:
    """Refuse a name that is none of timm's architectures, and one with a tag, which means pretrained weights.

    Raises
    ------
    UserError
        Which names the architecture of a tag, or the nearest names that timm knows.
    """
    known = timm.list_models()
    architecture, dot, tag = model.partition(".")
    if dot and architecture in known:
        raise UserError(
            f"timm/{model} names the pretrained weights {tag!r}, and backbones start from random weights: "
            f"write timm/{architecture}"
        )
    if model not in known:
        raise UserError(f"timm has no model {model!r}: {nearest(model, known)}")


def build(num_classes: int, input_shape: tuple[int, ...], model: str, cifar_stem: bool = True) -> nn.Module:
    """Return a timm model with random weights.

    Parameters
    ----------
    model
        A name that timm knows.
    cifar_stem
        Let the stem keep the image's full resolution, in the families whose stem is a strided convolution
        and perhaps a pool: ResNet (with ResNeXt, SE-ResNet, …), RegNet, DenseNet, EfficientNet, MobileNetV3.
        Other families keep their own stem; those that are built for one image size are given this one.

    Raises
    ------
    UserError
        When timm has no such model, or cannot build it for images of this shape.
    """
    check_model(model)
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": input_shape[0]}
    try:
        if _is_sized(model):
            options["img_size"] = tuple(input_shape[1:])
        network = timm.create_model(model, pretrained=False, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"timm/{model} cannot be built for images of {input_shape}: {error}") from error
    if cifar_stem:
        keep_resolution(network)
    return network


def keep_resolution(network: Any) -> bool:
    """Take strides and pools out of the stem, in place; tell whether the family is one that allows it."""
    family = type(network)  # isinstance would narrow to timm's annotations, which do not foresee this
    if issubclass(family, ResNet):
        convolutions = [module for module in network.conv1.modules() if isinstance(module, nn.Conv2d)]
        if len(convolutions) == 1:
            network.conv1 = _three_by_three(convolutions[0])
        else:
            convolutions[0].stride = (1, 1)
        network.maxpool = nn.Identity()
    elif issubclass(family, DenseNet):
        network.features.conv0 = _three_by_three(network.features.conv0)
        network.features.pool0 = nn.Identity()
    elif issubclass(family, RegNet):
        network.stem.conv.stride = (1, 1)
    elif issubclass(family, (EfficientNet, MobileNetV3)):
        network.conv_stem.stride = (1, 1)
    else:
        return False
    return True


def _three_by_three(stem: nn.Conv2d) -> nn.Conv2d:
    conv = nn.Conv2d(stem.in_channels, stem.out_channels, kernel_size=3, padding=1, bias=stem.bias is not None)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _is_sized(model: str) -> bool:
    """Tell whether a model is built for one image size, as vision transformers are."""
    config = timm.models.get_pretrained_cfg(model)
    return bool(config and config.fixed_input_size)
