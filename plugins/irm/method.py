"""Invariant risk minimisation (Arjovsky et al., 2019), IRMv1, with the penalty and defaults of DomainBed."""

from typing import Annotated

import torch
from pydantic import Field

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, adam, environment_risks


class IRM:
    """Fit the cued and the clean set as two environments, and penalise each environment in which rescaling the
    logits would lower the loss: there the last layer is not the best one.
    """

    class Config(BaseConfig):
        """Adam, its learning rate, weight and annealing are DomainBed's for small images (facebookresearch/DomainBed,
        domainbed/hparams_registry.py, `_hparams`), and so are the search spaces; 500 of its 5,001 steps are annealed.

        A weight of 100 is meant for Adam, whose steps do not grow with the loss. Epochs and batch are as in all
        fine-tuning here, the cosine too, where DomainBed's rate is constant.
        """

        lr: Annotated[float, LogUniform(3.16e-5, 3.16e-3)] = Field(
            0.001, gt=0, description="initial learning rate of Adam, cosine to 0"
        )
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each environment")
        penalty_weight: Annotated[float, LogUniform(0.1, 1e5)] = Field(
            100.0, ge=0, description="weight of the penalty, after annealing"
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
                training.forget_momentum()  # as DomainBed's `IRM.update` does
            # One forward pass: BatchNorm sees both environments together, as in DomainBed.
            logits = training.logits(torch.cat([x_c, x_nc]))
            z_c, z_nc = logits.split([len(y_c), len(y_nc)])
            penalty = torch.stack([irm_penalty(z_c, y_c), irm_penalty(z_nc, y_nc)]).mean()
            training.minimise(environment_risks(logits, y_c, y_nc).mean() + weight * penalty)
        return task.model


def irm_penalty(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Estimate ‖∂/∂s CE(s·z, y)‖² at s = 1 without bias: the product of the gradients on two halves of a batch.

    Logits z have shape (n, K), n ≥ 2; the halves are the images at even and at odd places (their App. D).
    """
    return scale_gradient(logits[::2], labels[::2]) * scale_gradient(logits[1::2], labels[1::2])


def scale_gradient(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """∂/∂s CE(s·z, y) at s = 1, in closed form: the mean over images of Σ_k softmax(z)_k z_k - z_y."""
    expected = (logits.softmax(1) * logits).sum(1)  # (n,)
    return (expected - logits.gather(1, labels[:, None])[:, 0]).mean()
