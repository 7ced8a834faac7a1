"""The interface of a network, and its two outputs: logits, and the features that its last layer sees."""

import torch
from torch import nn

from mmc_bench.training.precision import at_least_float32


class Backbone(nn.Module):
    """A network with timm's interface. A network need not derive from it.

    A subclass sets `num_classes`, `num_features` and `head`, its last linear layer, and defines the two halves of
    the forward pass.
    """

    num_classes: int
    num_features: int
    head: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, K) of images (n, …)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature maps (n, …)."""
        raise NotImplementedError

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the logits (n, K) of feature maps; with `pre_logits` the features (n, F) before the last layer."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Linear:
        """Return the last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last linear layer by a new random one, and set `num_classes`."""
        weight = self.head.weight
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype)


def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the logits (n, K) of images, in float32 or better."""
    return at_least_float32(model(x))


def features(model: Backbone, x: torch.Tensor) -> torch.Tensor:
    """Return what the last linear layer sees of images, in float32 or better, of shape (n, F).

    F is ``model.get_classifier().in_features``; in some of timm's models it is not ``num_features``.
    """
    return at_least_float32(model.forward_head(model.forward_features(x), pre_logits=True))
