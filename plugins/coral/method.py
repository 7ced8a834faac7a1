"""Deep CORAL (Sun and Saenko, 2016), with the penalty and its weight of DomainBed."""

from typing import Annotated

import torch
from pydantic import Field

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, environment_risks, full_precision


class CORAL:
    """Fit the cued and the clean set as two environments, and draw the moments of their features together."""

    class Config(BaseConfig):
        """The weight and its range are DomainBed's `mmd_gamma` (facebookresearch/DomainBed, in
        domainbed/hparams_registry.py); the rest is as in all fine-tuning here: the paper, too, trains with SGD, and the
        range of the weight does not call for Adam.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each environment")
        penalty_weight: Annotated[float, LogUniform(0.1, 10)] = Field(1.0, ge=0, description="weight of the penalty")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c, classifier = self.config, task.model.get_classifier()
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        for (x_nc, y_nc), (x_c, y_c) in training.pairs(task.cued):
            f = training.features(torch.cat([x_c, x_nc]))  # one pass: two would let BatchNorm align the environments
            penalty = coral_penalty(*f.split([len(y_c), len(y_nc)]))
            training.minimise(environment_risks(classifier(f), y_c, y_nc).mean() + c.penalty_weight * penalty)
        return task.model


def coral_penalty(f_c: torch.Tensor, f_nc: torch.Tensor) -> torch.Tensor:
    """‖μ_C - μ_NC‖²/F + ‖Σ_C - Σ_NC‖²/F² of features (n, F), n ≥ 2, as in DomainBed's algorithms.py, `AbstractMMD.mmd`;
    the paper's eq. 1 is the second term over 4F².
    """
    mean_c, mean_nc = f_c.mean(0), f_nc.mean(0)
    gap = covariance(f_c - mean_c) - covariance(f_nc - mean_nc)
    return (mean_c - mean_nc).square().mean() + gap.square().mean()


def covariance(centred: torch.Tensor) -> torch.Tensor:
    """Return the unbiased covariance (F, F) of features (n, F) whose mean is 0."""
    with full_precision(centred.device):
        return centred.T @ centred / (len(centred) - 1)
