"""timm's models: from random weights on small images, or from pretrained weights."""

from typing import Any, Literal

import timm
from timm.models.densenet import DenseNet
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from torch import nn

from mmc_bench import UserError

from .pretrained import check_model, of_channels, weights_of, with_own_input


def build(
    num_classes: int,
    input_shape: tuple[int, ...],
    model: str,
    cifar_stem: bool | None = None,
    init: Literal["named", "random"] = "named",
    weights: str | None = None,
) -> nn.Module:
    """Return a timm model.

    Parameters
    ----------
    model
        A name that timm knows; with a tag, as in ``resnet50.a1_in1k``, it names pretrained weights.
    cifar_stem
        Let the stem keep the image's full resolution, in the families whose stem is a strided convolution
        and perhaps a pool: ResNet (with ResNeXt, SE-ResNet, …), RegNet, DenseNet, EfficientNet, MobileNetV3.
        Other families keep their own stem; those that are built for one image size are given this one. By default,
        networks with random weights have it, and those with pretrained weights keep their own.
    init
        "random" leaves the weights that the name says out.
    weights
        A file with pretrained weights in timm's format, where they are not to be looked for.

    A network with pretrained weights resizes and normalises its input as it was trained; its last layer is new.

    Raises
    ------
    UserError
        When timm has no such model, cannot build it for images of this shape, or its weights are not there or of
        another network.
    """
    check_model(model)
    file = weights_of({"model": model, "init": init, "weights": weights})
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": input_shape[0]}
    if file is not None:
        # With all its classes: timm is strict about every weight only where it loads the last layer as well.
        options |= {"num_classes": None, "pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    try:
        if file is None and _is_sized(model):
            options["img_size"] = tuple(input_shape[1:])
        network = timm.create_model(model, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        loaded = f" from {file}" if file else ""
        problem = " ".join(str(error).split())[:300]
        raise UserError(f"timm/{model} cannot be built{loaded} for images of {input_shape}: {problem}") from error
    if cifar_stem if cifar_stem is not None else file is None:
        keep_resolution(network)
    if file is not None:
        known: Any = network.pretrained_cfg
        reset: Any = network.reset_classifier
        reset(num_classes)
        mean, std = (of_channels(known[name], input_shape[0]) for name in ("mean", "std"))
        with_own_input(network, tuple(known["input_size"][1:]), mean, std)
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
