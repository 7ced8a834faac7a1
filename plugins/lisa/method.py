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
    batch images of one label from two domains, for another of one domain with two labels.

    The domain is the spurious attribute, as the background is in Waterbirds and the colour in CMNIST (train.py,
    `mix_forward`): the class of the cue that an image carries, or that it carries none; where images come in groups,
    the attribute that the dataset gives. Images of an attribute that one label alone has, as of each cue where the
    minority is uncued, have no other label to be mixed with. Among these the environment is the domain: those that
    carry their own cue are mixed with one another.

    The first images of a step are a batch of the clean set, which is passed over once an epoch, and as many cued ones,
    drawn with equal chances for their groups (label, environment). The authors' code, too, takes as much of each group
    as of the others, and its epoch ends with the smallest group (huaxiuyao/LISA, subpopulation_shifts/train.py,
    `run_epoch_mix_every_batch`); algorithm 1 draws from the whole set.

    An image that has no possible partner is its own. Unless the minority conflicts, no cue of a pair contradicts its
    label, so mixtures make the cue weaker evidence, never wrong.
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
        partners = Partners(pool.labels, task.pool_attributes, task.pool_environments)
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        cued = task.environments * task.num_classes + task.cued.labels
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


def domains_of(labels: torch.Tensor, attributes: torch.Tensor, environments: torch.Tensor) -> torch.Tensor:
    """Return within what each image of a pool is mixed across labels, (N,): its attribute, or its environment where one
    label alone has that.

    Attributes are whole numbers from -1 on, environments 0 or 1, whose domains are -3 and -2.
    """
    pairs = torch.stack([attributes, labels], dim=1).unique(dim=0)  # an attribute is in as many as it has labels
    found, labels_of_each = pairs[:, 0].unique(return_counts=True)
    several = torch.isin(attributes, found[labels_of_each > 1])
    return torch.where(several, attributes, environments - 3)


class Partners:
    """Who may be mixed with whom in a pool of images; all on the device.

    Parameters
    ----------
    labels, attributes, environments
        Of the whole pool, (N,), whole numbers.
    """

    def __init__(self, labels: torch.Tensor, attributes: torch.Tensor, environments: torch.Tensor) -> None:
        self.within = _Kin(labels, attributes), _Kin(domains_of(labels, attributes, environments), labels)

    def draw(self, rows: torch.Tensor, within_label: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw a partner for each row (n,), uniformly among those it may have; the row itself where there is none.

        `within_label`, a scalar or (n,), tells which want an image of their label with another attribute; the others
        want an image of their domain with another label.
        """
        uniform = torch.rand(len(rows), dtype=widest_float(rows.device), generator=generator, device=rows.device)
        of_label, of_domain = (kin.at(rows, uniform) for kin in self.within)
        return torch.where(within_label, of_label, of_domain)


class _Kin:
    """Images that share one value and differ in another."""

    def __init__(self, shared: torch.Tensor, differing: torch.Tensor) -> None:
        pairs, group = torch.stack([shared, differing], dim=1).unique(dim=0, return_inverse=True)
        family = pairs[:, 0].unique(return_inverse=True)[1][group]
        self.order = group.argsort(stable=True)  # rows, group by group, and the groups of a family side by side
        self.start, self.size = (values[group] for values in _places(group))
        self.family_start, self.family_size = (values[family] for values in _places(family))

    def at(self, rows: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Return for each row (n,) the relative of it that lies at a place in [0, 1); the row itself where none is."""
        start, size = self.start[rows], self.size[rows]
        count = self.family_size[rows] - size
        place = self.family_start[rows] + (uniform * count).long().minimum(count - 1)  # float32 may round up to it
        place = torch.where(place >= start, place + size, place)  # past the row's own group
        return torch.where(count > 0, self.order[place.clamp(max=len(self.order) - 1)], rows)


def _places(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each group begins when all rows are sorted by group, and how many rows it has."""
    counts = torch.bincount(groups)
    return counts.cumsum(0) - counts, counts
