"""Group distributionally robust optimisation (Sagawa et al., ICLR 2020, algorithm 1 and eq. 5)."""

from collections.abc import Sequence

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, cross_entropy, full_precision


class GroupDRO:
    """Fit the clean and the cued set together, and weigh the groups (label, environment) by q, which grows
    exponentially with each group's loss. A group without images has no weight.

    No group pairs an image with another label's cue, so no group's loss tells that a cue must be ignored.
    """

    class Config(BaseConfig):
        """`group_step_size` and `adjustment` are the authors' code's defaults; so are images drawn with equal chances
        for all groups (their --reweight_groups), where algorithm 1 draws a group, then one image, for each step.

        Their sample commands' weight decay is 1e-4, as in all fine-tuning here; the stronger ones of the paper (.1
        and 1) go with steps 100 to 1,000 times smaller. lr, epochs and batch are as in all fine-tuning here:
        in so few steps q hardly leaves 1/G, and what counts is the equal chances.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set: as many batches as those would take")
        batch_size: int = Field(256, ge=2, description="images in a batch, of both sets together")
        group_step_size: float = Field(0.01, ge=0, description="η_q: q_g is multiplied by exp(η_q · loss of group g)")
        adjustment: float = Field(0.0, ge=0, description="C: C/√(images of the group) is added to a group's loss")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        pool = task.clean.joined(task.cued)
        groups = groups_of(pool.labels, task.environments, task.num_classes)
        counts = torch.bincount(groups, minlength=2 * task.num_classes)  # (G,)
        chances = 1 / counts[groups].double()  # (N,): each group that has images is drawn equally often
        margins = torch.where(counts > 0, c.adjustment / counts.clamp(min=1).sqrt(), 0.0)
        q = (counts > 0) / (counts > 0).sum()
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        drawn = training.steps_per_epoch * c.batch_size

        def epoch() -> Sequence[torch.Tensor]:
            rows = torch.multinomial(chances, drawn, replacement=True, generator=task.generator)
            batches: Sequence[torch.Tensor] = rows.split(c.batch_size)
            return batches

        for rows in training.each(epoch):
            x, y = pool.batch(rows)
            losses = group_losses(cross_entropy(training.logits(x), y, reduction="none"), groups[rows], len(counts))
            q = reweighted(q, losses.detach() + margins, c.group_step_size)
            training.minimise((q * (losses + margins)).sum())
        return task.model


def groups_of(labels: torch.Tensor, environments: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return each image's group, environment · K + label, of shape (N,).

    `labels` (N,) are of the clean images, then of the cued ones; `environments` are of the latter alone, since
    every clean image is of environment 0.
    """
    clean = environments.new_zeros(len(labels) - len(environments))
    return torch.cat([clean, environments]) * num_classes + labels


def group_losses(losses: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean loss (nats) of each of `count` groups in a batch, 0 for those not in it.

    Losses and groups of the images have shape (n,).
    """
    members = groups == torch.arange(count, device=groups.device)[:, None]  # (G, n)
    with full_precision(losses.device):
        return members.to(losses.dtype) @ losses / members.sum(1).clamp(min=1)


def reweighted(q: torch.Tensor, losses: torch.Tensor, step_size: float) -> torch.Tensor:
    """Return q_g · exp(η_q · loss_g), scaled to the sum 1; q and the losses have shape (G,)."""
    q = q * (step_size * losses).exp()
    return q / q.sum()
