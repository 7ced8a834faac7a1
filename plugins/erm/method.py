"""Empirical risk minimisation on the clean and the cued set together: what training on both gives by itself."""

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, cross_entropy, environment_risks, equal_chances


class PooledERM:
    """Train all of θ on the mean of the two sets' cross-entropy, with a batch of each set a step.

    Each set has one half of the loss, as in DomainBed (facebookresearch/DomainBed, domainbed/algorithms.py, `ERM`), and
    as in coral at a penalty of 0. At natural proportions, a step would see few clean images where the cued set is many
    times as large, and 20 passes over them would take as many times the steps.
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


class ClassBalancedERM(PooledERM):
    """Pooled ERM in which all classes count alike (Idrissi et al., 2022, their RWY): the mean over the classes in a
    batch of each class's mean loss.

    A step takes a batch of the clean set, which is passed over once an epoch, and as many cued images, drawn with equal
    chances for their classes. The authors draw all images so (facebookresearch/BalancingGroups, datasets.py,
    `get_loaders`), which would show the clean ones less often than other methods do; the objective is the same.
    """

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        pool = task.clean.joined(task.cued)
        groups = self.groups(pool.labels, task)
        cued = groups[len(task.clean) :]
        training = task.training(**dict(self.config))
        for rows in training.paired_rows(equal_chances(cued)):
            x, y = pool.batch(rows)
            losses = cross_entropy(training.logits(x), y, reduction="none")
            training.minimise(mean_of_groups(losses, groups[rows]))
        return task.model

    def groups(self, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the group (N,) of each image, clean ones first, whose labels are (N,): its class."""
        return labels


class GroupBalancedERM(ClassBalancedERM):
    """The same with groups (label, environment) in place of classes: their RWG, and groupdro with fixed weights."""

    def groups(self, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return environment · K + label (N,)."""
        return task.pool_environments * task.num_classes + labels


def mean_of_groups(losses: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the mean over the groups in a batch of each group's mean loss; losses and groups have shape (n,)."""
    weights = 1 / (groups[:, None] == groups).sum(1)  # (n,)
    return (weights * losses).sum() / weights.sum()
