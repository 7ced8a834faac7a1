"""Empirical risk minimisation on the clean and the cued set together: what training on both gives by itself."""

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, environment_risks


class PooledERM:
    """Train all of θ on the mean of the two sets' cross-entropy, with a batch of each set a step.

    This is irm, vrex and coral at a penalty of 0 (DomainBed's ERM, `domainbed/algorithms.py`, also has a batch of
    each environment a step): what they add is what their penalties do. Each set has one half of the loss. At their
    natural proportions, the cued set is many times as large, and 20 passes over the clean images would take as many
    times the steps.
    """

    class Config(BaseConfig):
        """As in all fine-tuning here."""

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        training = task.training(**dict(self.config))
        for (x_nc, y_nc), (x_c, y_c) in training.pairs(task.cued):
            # One forward pass: BatchNorm sees both sets together.
            logits = training.logits(torch.cat([x_c, x_nc]))
            training.minimise(environment_risks(logits, y_c, y_nc).mean())
        return task.model
