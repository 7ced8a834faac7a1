"""Variance risk extrapolation (Krueger et al., 2021), with the penalty and defaults of DomainBed."""

from typing import Annotated

import torch
from pydantic import Field

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, adam, environment_risks


class VREx:
    """Fit the cued and the clean set as two environments, and penalise the variance of their losses."""

    class Config(BaseConfig):
        """Adam, its learning rate, weight and annealing are DomainBed's for small images (facebookresearch/DomainBed,
        domainbed/hparams_registry.py, `_hparams`), and so are the search spaces; 500 of its 5,001 steps are annealed.

        The weights of this space, up to 1e5, are meant for Adam, whose steps do not grow with the loss. Epochs and
        batch are as in all fine-tuning here, the cosine too, where DomainBed's rate is constant.
        """

        lr: Annotated[float, LogUniform(3.16e-5, 3.16e-3)] = Field(
            0.001, gt=0, description="initial learning rate of Adam, cosine to 0"
        )
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each environment")
        penalty_weight: Annotated[float, LogUniform(0.1, 1e5)] = Field(
            10.0, ge=0, description="weight of the variance, after annealing"
        )
        annealing: Annotated[float, LogUniform(2e-4, 1.0)] = Field(
            0.1, ge=0, le=1, description="share of steps with weight 1"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c, weight = self.config, 1.0
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size, weight_decay=0.0, optimizer=adam)
        for (x_nc, y_nc), (x_c, y_c) in training.pairs(task.cued):
            if training.step == round(c.annealing * training.steps):
                weight = c.penalty_weight
                training.forget_momentum()  # as DomainBed's `VREx.update` does
            # One forward pass: BatchNorm sees both environments together, as in DomainBed.
            risks = environment_risks(training.logits(torch.cat([x_c, x_nc])), y_c, y_nc)
            training.minimise(risks.mean() + weight * variance(risks))
        return task.model


def variance(risks: torch.Tensor) -> torch.Tensor:
    """Return the mean squared deviation from the mean of E environments' losses, of shape (E,)."""
    return (risks - risks.mean()).square().mean()
