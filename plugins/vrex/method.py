"""Variance risk extrapolation (Krueger et al., 2021), with the penalty and defaults of DomainBed."""

import torch
from pydantic import Field
from torch import nn

from mmc_bench import BaseConfig
from mmc_bench.training import Task, cosine, cross_entropy, sgd


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
        annealing: float = Field(
            0.1, ge=0, le=1, description="share of all steps with a weight of 1 (DomainBed: 500 of 5,001 steps)"
        )
        rescale: bool = Field(False, description="divide the loss by a weight above 1, as the authors' code does")

    config: Config

    def fine_tune(self, task: Task) -> nn.Module:
        """Return the fine-tuned model."""
        c, model = self.config, task.model
        steps = c.epochs * task.clean.steps(c.batch_size)
        optimizer = sgd(model.parameters(), lr=c.lr)
        schedule = cosine(optimizer, steps)
        cued = task.cued.stream(c.batch_size, task.generator)
        weight, step = 1.0, 0
        for _ in task.progress.epochs(c.epochs):
            for x_nc, y_nc in task.clean.shuffled(c.batch_size, task.generator):
                x_c, y_c = next(cued)
                if step == round(c.annealing * steps):
                    weight = c.penalty_weight
                    optimizer.state.clear()  # momentum of another objective; the schedule goes on
                # One forward pass: BatchNorm sees both environments together, as in DomainBed.
                logits = model(torch.cat([x_c, x_nc]))
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).split([len(y_c), len(y_nc)])
                risks = torch.stack([cross_entropy(z, y) for z, y in zip(logits, (y_c, y_nc))])
                loss = risks.mean() + weight * variance(risks)
                optimizer.zero_grad(set_to_none=True)
                (loss / max(weight, 1.0) if c.rescale else loss).backward()
                optimizer.step()
                schedule.step()
                step += 1
                task.progress.step(loss, len(y_nc))
        return model


def variance(risks: torch.Tensor) -> torch.Tensor:
    """Return the mean squared deviation from the mean of E environments' losses, of shape (E,)."""
    return (risks - risks.mean()).square().mean()
