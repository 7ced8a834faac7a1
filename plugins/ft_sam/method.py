"""FT-SAM: sharpness-aware fine-tuning (Zhu et al., ICCV 2023, section 3.3)."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch.func import functional_call

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, cross_entropy


class SharpnessAwareFineTuning:
    """Train θ on the clean set with the loss at θ + ε, the worst of a neighbourhood in which a weight may move in
    proportion to its size: min over θ of max over ‖T⁻¹ε‖ ≤ ρ of L(θ + ε), T = diag(|θ|).
    """

    class Config(BaseConfig):
        """ρ is the authors' for CIFAR-10, as are SGD's learning rate, momentum, cosine and batch (SCLBD/BackdoorBench,
        config/defense/ft-sam/cifar10.yaml, `rho_max`). It is searched from a quarter of it up to their 8 for GTSRB
        (gtsrb.yaml).

        Epochs and weight decay are as in all fine-tuning here (theirs: 100, or 50 for GTSRB, and 5e-4). The label
        smoothing (.1) of their CIFAR-10 settings is no part of the method and is left out, as in those for GTSRB.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        rho: Annotated[float, LogUniform(0.5, 8)] = Field(
            2.0, ge=0, description="ρ: radius of the neighbourhood, in units of the weights' sizes"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c, model = self.config, task.model
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        theta = dict(model.named_parameters())

        def step(x: torch.Tensor, y: torch.Tensor) -> None:
            loss = cross_entropy(training.logits(x), y)
            worst = worst_neighbour(theta, gradients_of(loss, theta), c.rho)
            # The second pass, too, normalises by the batch, but running statistics are of θ, not of θ + ε.
            scratch = {name: buffer.clone() for name, buffer in model.named_buffers()}
            worst_loss = cross_entropy(functional_call(model, {**worst, **scratch}, (x,)), y)
            for parameter, gradient in zip(theta.values(), gradients_of(worst_loss, worst)):
                parameter.grad = gradient
            training.update(loss)

        for x, y in training.batches():
            training.take(step, x, y)
        return model


def gradients_of(loss: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the loss's gradient in each of the weights, 0 in those that it does not depend on."""
    return torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)


@torch.no_grad()
def worst_neighbour(
    theta: Mapping[str, torch.Tensor], gradients: tuple[torch.Tensor, ...], rho: float
) -> dict[str, torch.Tensor]:
    """Return θ + ε, ε = ρ T²∇L / ‖T∇L‖, which maximises the linearised loss; as leaves to differentiate by.

    The norm is over all parameters together, BatchNorm's and biases included, as in the authors' code.
    """
    pairs = list(zip(theta.values(), gradients))
    norm = torch.stack([(weight.abs() * gradient).norm() for weight, gradient in pairs]).norm()
    scale = rho / (norm + 1e-12)
    moved = [weight + scale * weight.square() * gradient for weight, gradient in pairs]
    return {name: weight.requires_grad_() for name, weight in zip(theta, moved)}
