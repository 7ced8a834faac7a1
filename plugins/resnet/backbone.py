"""ResNets for images of about 32x32 pixels, from timm's own class."""

from typing import Annotated

from pydantic import Field
from timm.models.resnet import BasicBlock, ResNet
from torch import nn


def resnet18(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Return ResNet-18 with a CIFAR stem: a 3x3 convolution of stride 1 and no max-pool."""
    model = ResNet(
        BasicBlock,  # type: ignore[arg-type]  # timm's annotation means the class
        (2, 2, 2, 2),
        num_classes=num_classes,
        in_chans=input_shape[0],
        zero_init_last=False,
    )
    return with_cifar_stem(model, input_shape[0], width=64)


def cifar_resnet(num_classes: int, input_shape: tuple[int, ...], blocks: Annotated[int, Field(ge=1)]) -> nn.Module:
    """Return the CIFAR ResNet of He et al. (2016, section 4.2): three stages of widths 16, 32 and 64.

    Parameters
    ----------
    blocks
        Basic blocks in a stage; the depth is 6·blocks + 2. Shortcuts that change the width are 1x1
        convolutions (their option B).
    """
    model = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        (blocks,) * 3,
        num_classes=num_classes,
        in_chans=input_shape[0],
        channels=(16, 32, 64),
        stem_type="deep",  # lets the stem be 16 wide; the stem itself is replaced below
        stem_width=8,
        zero_init_last=False,
    )
    model.layer4 = nn.Identity()
    return with_cifar_stem(model, input_shape[0], width=16)


def with_cifar_stem(model: nn.Module, channels: int, width: int) -> nn.Module:
    """Give a ResNet a 3x3 stem of stride 1, no max-pool, and torch's own initialisation, as the authors do."""
    model.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return model
