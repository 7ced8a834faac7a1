"""Deep CORAL (Sun and Saenko, 2016), with the penalty and its weight of DomainBed."""

import torch
from pydantic import Field
from torch import nn

from mmc_bench import BaseConfig
from mmc_bench.training import Task, cosine, cross_entropy, full_precision, sgd


class CORAL:
    """Fit the cued and the clean set as two environments, and penalise what sets the means and the covariances
    of their features apart.
    """

    class Config(BaseConfig):
        """The weight is DomainBed's; the rest is as in all fine-tuning here."""

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each environment")
        penalty_weight: float = Field(1.0, ge=0, description="weight of the penalty")

    config: Config

    def fine_tune(self, task: Task) -> nn.Module:
        """Return the fine-tuned model."""
        c, model = self.config, task.model
        optimizer = sgd(model.parameters(), lr=c.lr)
        schedule = cosine(optimizer, c.epochs * task.clean.steps(c.batch_size))
        classifier: nn.Module = model.get_classifier()  # type: ignore[operator]
        cued = task.cued.stream(c.batch_size, task.generator)
        for _ in task.progress.epochs(c.epochs):
            for x_nc, y_nc in task.clean.shuffled(c.batch_size, task.generator):
                x_c, y_c = next(cued)
                # One forward pass: with statistics for each environment, BatchNorm would align them by itself.
                f = features(model, torch.cat([x_c, x_nc]))
                sizes = [len(y_c), len(y_nc)]
                risks = [cross_entropy(z, y) for z, y in zip(classifier(f).split(sizes), (y_c, y_nc))]
                loss = torch.stack(risks).mean() + c.penalty_weight * coral_penalty(*f.split(sizes))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                task.progress.step(loss, len(y_nc))
        return model


def features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the classifier sees, of shape (n, F), in float32 or better."""
    f = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
    return f.to(torch.promote_types(f.dtype, torch.float32))


def coral_penalty(f_c: torch.Tensor, f_nc: torch.Tensor) -> torch.Tensor:
    """‖μ_C - μ_NC‖²/F + ‖Σ_C - Σ_NC‖²/F² for features (n, F), n ≥ 2, with unbiased covariances Σ.

    The paper's eq. 1 has the second term alone, over 4F²; the first and the scale are DomainBed's.
    """
    mean_c, mean_nc = f_c.mean(0), f_nc.mean(0)
    gap = covariance(f_c - mean_c) - covariance(f_nc - mean_nc)
    return (mean_c - mean_nc).square().mean() + gap.square().mean()


def covariance(centred: torch.Tensor) -> torch.Tensor:
    """Return the unbiased covariance (F, F) of features (n, F) whose mean is 0."""
    with full_precision(centred.device):
        return centred.T @ centred / (len(centred) - 1)
