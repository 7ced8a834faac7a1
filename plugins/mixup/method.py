"""Fine-tuning with mixup (Zhang et al., 2018)."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch.distributions import Beta

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, cross_entropy


class Mixup:
    """Train all of θ on mixtures of clean images: x̃ = λx + (1 - λ)x', ỹ = λy + (1 - λ)y', λ ~ Beta(α, α).

    As in the authors' code, there is one λ a batch, the partners x' are the batch in another order, and the loss is
    the same mixture of the cross-entropies with both labels, which equals that with ỹ.
    """

    class Config(BaseConfig):
        """α, momentum and weight decay are those of the authors' CIFAR-10 code (facebookresearch/mixup-cifar10,
        train.py). α is searched in DomainBed's range (domainbed/hparams_registry.py, `mixup_alpha`).

        The rest is as in all fine-tuning here: their 200 epochs at .1 are a training from scratch.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        alpha: Annotated[float, LogUniform(0.1, 10)] = Field(
            1.0, gt=0, description="α of Beta(α, α), of which the mixing weights are drawn"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        alpha = torch.full((), c.alpha, device=task.device)
        shares = Beta(alpha, alpha).sample((training.steps,))
        for x, y in training.batches():
            partners = torch.randperm(len(y), generator=task.generator, device=task.device)
            training.minimise(mixed_loss(training.logits, x, y, partners, shares[training.step]))
        return task.model


def mixed_loss(
    logits: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    partners: torch.Tensor,
    share: torch.Tensor,
) -> torch.Tensor:
    """Return λ CE(f(x̃), y) + (1 - λ) CE(f(x̃), y') of images x (n, …), each mixed with that in row `partners`."""
    outputs = logits(share * x + (1 - share) * x[partners])
    return share * cross_entropy(outputs, y) + (1 - share) * cross_entropy(outputs, y[partners])
