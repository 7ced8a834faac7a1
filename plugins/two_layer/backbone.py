"""Two-layer networks for vectors (Lubana et al., 2023, App. F.3)."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mmc_bench import UserError
from mmc_bench.training import Backbone

HIDDEN = 512

Neurons = Annotated[int, Field(ge=1, description="N, the number of hidden neurons")]


class TwoLayer(Backbone):
    """Linear, ReLU, Linear, with biases and torch's own initialisation.

    The paper writes f(x; W) = mean of ReLU(Wᵀx), which is convex in x and cannot represent an attribute of
    complexity 4, whose classes alternate along a line; its experiments must have had biases and a trained
    read-out, as this network has. `MeanOfNeurons` is f as written.

    Parameters
    ----------
    num_classes
        K.
    input_shape
        Shape of one input; inputs of more than one axis are flattened.
    hidden
        N, the number of hidden neurons.
    """

    def __init__(self, num_classes: int, input_shape: tuple[int, ...], hidden: Neurons = HIDDEN) -> None:
        super().__init__()
        self.num_features = hidden
        self.num_classes = num_classes
        self.hidden = nn.Linear(math.prod(input_shape), hidden)
        self.activation = nn.ReLU()
        self.head = nn.Linear(hidden, num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the hidden neurons put out, (n, N)."""
        outputs: torch.Tensor = self.activation(self.hidden(x.flatten(1)))
        return outputs

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (n, K), or the hidden neurons' outputs (n, N) as they are."""
        return x if pre_logits else self.head(x)


class MeanOfNeurons(TwoLayer):
    """f(x; W) = (1/N) 1ᵀ ReLU(Wᵀx) as the paper writes it: no biases, and a read-out that is not trained.

    f is meant to equal the label, 0 or 1, so the logits are (1/2, f): class 1 where f is above one half.
    """

    def __init__(self, num_classes: int, input_shape: tuple[int, ...], hidden: Neurons = HIDDEN) -> None:
        if num_classes != 2:
            raise UserError(f"f(x) = mean of ReLU(Wx) tells two classes apart, not {num_classes}: use another backbone")
        super().__init__(num_classes, input_shape, hidden)
        self.hidden = nn.Linear(self.hidden.in_features, hidden, bias=False)
        self.head.requires_grad_(False)
        nn.init.zeros_(self.head.weight[0])
        nn.init.constant_(self.head.weight[1], 1 / hidden)
        self.head.bias.copy_(torch.tensor([0.5, 0.0]))
