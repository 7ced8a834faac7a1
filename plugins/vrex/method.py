"""Variance risk extrapolation (Krueger et al., 2021), with the penalty and defaults of DomainBed."""

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, environment_risks


class VREx:
    """Fit the cued and the clean set as two environments, and penalise the variance of their losses."""

    class Config(BaseConfig):
        """Weight and annealing are DomainBed's; the rest is as in all fine-tuning here.

        SGD's steps grow with the loss, those of DomainBed's Adam do not: much larger weights need `rescale`.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each environment")
        penalty_weight: float = Field(10.0, ge=0, description="weight of the variance, after annealing")
        annealing: float = Field(0.1, ge=0, le=1, description="share of steps with weight 1 (DomainBed: 500 of 5,001)")
        rescale: bool = Field(False, description="divide the loss by a weight above 1, as the authors' code does")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c, weight = self.config, 1.0
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        for (x_nc, y_nc), (x_c, y_c) in training.pairs(task.cued):
            if training.step == round(c.annealing * training.steps):
                weight = c.penalty_weight
                training.forget_momentum()
            # One forward pass: BatchNorm sees both environments together, as in DomainBed.
            risks = environment_risks(training.logits(torch.cat([x_c, x_nc])), y_c, y_nc)
            training.minimise(risks.mean() + weight * variance(risks), max(weight, 1.0) if c.rescale else 1.0)
        return task.model


def variance(risks: torch.Tensor) -> torch.Tensor:
    """Return the mean squared deviation from the mean of E environments' losses, of shape (E,)."""
    return (risks - risks.mean()).square().mean()
