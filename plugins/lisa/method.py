"""LISA, learning invariant predictors by selective augmentation (Yao et al., ICML 2022, algorithm 1)."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch.distributions import Beta

from mmc_bench import BaseConfig, Choice, LogUniform
from mmc_bench.training import Backbone, Task, cross_entropy, equal_chances, widest_float


class LISA:
    """Train on mixtures λx + (1-λ)x' of two images of the clean and the cued set, whose labels mix alike: for one
    batch images of one label from both environments, for another of one environment and two labels.

    The first images of a step are a batch of the clean set, which is passed over once an epoch, and as many cued ones,
    drawn with equal chances for their groups (label, environment). The authors' code, too, takes as much of each group
    as of the others, and its epoch ends with the smallest group (huaxiuyao/LISA, subpopulation_shifts/train.py,
    `run_epoch_mix_every_batch`); algorithm 1 draws from the whole set.

    An image whose partner would have to come from an empty group is its own partner. Unless the minority conflicts, no
    cue of a pair contradicts its label, so mixtures make the cue weaker evidence, never wrong.
    """

    class Config(BaseConfig):
        """`intra_label` and `mixing` are the authors' --mix_ratio and --mix_alpha (subpopulation_shifts/run_expt.py);
        theirs, too, are one strategy a batch and one λ an image (train.py, `mix_forward` and `mix_up`).

        p_sel is searched over each strategy alone and both, α in DomainBed's range for mixup
        (domainbed/hparams_registry.py). The rest is as in all fine-tuning here.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="mixtures in a batch, of each set's images with their partners")
        intra_label: Annotated[float, Choice(0.0, 0.5, 1.0)] = Field(
            0.5, ge=0, le=1, description="p_sel: chance that a batch mixes within labels"
        )
        mixing: Annotated[float, LogUniform(0.1, 10)] = Field(
            2.0, gt=0, description="α: mixtures' λ is drawn from Beta(α, α)"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        pool = task.clean.joined(task.cued)
        partners = Partners(pool.labels, task.pool_environments, task.num_classes)
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        cued = partners.groups[len(task.clean) :]
        within_label = torch.rand(training.steps, generator=task.generator, device=task.device) < c.intra_label
        alpha = torch.tensor(c.mixing, device=task.device)
        shares = Beta(alpha, alpha, validate_args=False)
        for rows in training.paired_rows(equal_chances(cued)):
            others = partners.draw(rows, within_label[training.step], task.generator)
            x, y = pool.batch(torch.cat([rows, others]))
            training.minimise(mixed_loss(training.logits, x, y, shares.sample(rows.shape)))
        return task.model


def mixed_loss(
    logits: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    """Return the mean of λ CE(f(x̃), y) + (1-λ) CE(f(x̃), y'), x̃ = λx + (1-λ)x', for λ = `share` (n,).

    `x` (2n, …) and `y` (2n,) hold the n images, then their n partners.
    """
    (x, x_other), (y, y_other) = x.chunk(2), y.chunk(2)
    mixed = x_other.lerp(x, share.to(x.dtype).view(-1, *[1] * (x.ndim - 1)))
    outputs = logits(mixed)
    own, other = (cross_entropy(outputs, labels, reduction="none") for labels in (y, y_other))
    return (share * own + (1 - share) * other).mean()


class Partners:
    """Who may be mixed with whom in a pool of clean images, then cued ones; all on the device.

    Parameters
    ----------
    labels, environments
        Of the whole pool, (N,).
    num_classes
        K.
    """

    def __init__(self, labels: torch.Tensor, environments: torch.Tensor, num_classes: int) -> None:
        self.num_classes = num_classes
        self.groups = environments * num_classes + labels  # (N,), environment by environment
        self.order = self.groups.argsort(stable=True)  # rows, group by group
        self.counts = torch.bincount(self.groups, minlength=2 * num_classes)  # (2K,)
        self.starts = self.counts.cumsum(0) - self.counts  # each group's first place in the order

    def draw(self, rows: torch.Tensor, within_label: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw a partner for each row (n,), uniformly among those it may have; the row itself where there is none.

        `within_label`, a scalar or (n,), tells which wants the other environment's images of its label; the others
        want the images of their environment with another label.
        """
        own = self.groups[rows]
        opposite = (own + self.num_classes) % (2 * self.num_classes)
        first_of_environment = own // self.num_classes * self.num_classes
        size = self.counts.view(2, -1).sum(1)[own // self.num_classes]  # of the environment
        start = torch.where(within_label, self.starts[opposite], self.starts[first_of_environment])
        count = torch.where(within_label, self.counts[opposite], size - self.counts[own])
        uniform = torch.rand(len(rows), dtype=widest_float(rows.device), generator=generator, device=rows.device)
        place = start + (uniform * count).long()
        # An environment's images lie side by side: skip those of the row's own label among them.
        place = torch.where(~within_label & (place >= self.starts[own]), place + self.counts[own], place)
        return torch.where(count > 0, self.order[place.clamp(max=len(self.order) - 1)], rows)
