"""VGG-13 as Lubana et al. (2023) train it; timm's VGGs have max-pools and three linear layers instead."""

import torch
from torch import nn

from mmc_bench.training import Backbone

# width, stride of the ten 3x3 convolutions
LAYERS = ((64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2), (512, 1), (512, 1))


class VGG13(Backbone):
    """Ten 3x3 convolutions with BatchNorm and ReLU, a global average pool, a linear layer."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for width, stride in LAYERS:
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.num_features = channels
        self.num_classes = num_classes
        self.layers = nn.Sequential(*layers)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.head = nn.Linear(channels, num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature maps, (n, 512, h, w)."""
        maps: torch.Tensor = self.layers(x)
        return maps

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (n, K), or the pooled features (n, 512) before them."""
        x = self.pool(x)
        return x if pre_logits else self.head(x)
