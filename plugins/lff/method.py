"""Learning from failure (Nam et al., NeurIPS 2020, algorithm 1)."""

import copy
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mmc_bench import BaseConfig, LogUniform, Uniform
from mmc_bench.training import Backbone, Task, Training, cross_entropy, widest_float


class LearningFromFailure:
    """Train two models on the clean and the cued set at once: f_B with the generalised cross-entropy, which trusts what
    it finds easy, and θ with each image's cross-entropy weighted by its relative difficulty,
    W = CE(f_B) / (CE(f_B) + CE(θ)).

    As in the authors' code (alinlab/LfF, train.py), the losses in W are moving averages over the times that an
    image was seen, each divided by the largest of its class. Both models start from θ_C, where the paper's start
    anew: θ_C is as biased as f_B is meant to become.
    """

    class Config(BaseConfig):
        """q and the average's memory are the authors' (module/loss.py, `GeneralizedCELoss`; train.py), as are Adam, its
        learning rate, no weight decay and the batch (config.py); epochs and the cosine are as in all fine-tuning here.
        """

        lr: Annotated[float, LogUniform(3e-5, 1e-2)] = Field(
            0.001, gt=0, description="initial learning rate of Adam, cosine to 0"
        )
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")
        q: Annotated[float, Uniform(0.1, 0.9)] = Field(
            0.7, gt=0, le=1, description="q: how much the biased model trusts what is easy"
        )
        memory: float = Field(0.7, ge=0, lt=1, description="share that a moving average keeps of its last value")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the debiased model."""
        c, debiased, biased = self.config, task.model, copy.deepcopy(task.model)
        pool = task.clean.joined(task.cued)
        both = nn.ModuleList([debiased, biased])
        averages = [MovingAverages(pool.labels, task.num_classes, c.memory) for _ in both]
        training = Training(
            both,
            task.clean,
            lr=c.lr,
            epochs=c.epochs,
            batch_size=c.batch_size,
            generator=task.generator,
            progress=task.progress,
            weight_decay=0.0,
            optimizer=torch.optim.Adam,
        )
        for rows in training.paired_rows(torch.ones(len(task.cued), device=task.device)):
            x, y = pool.batch(rows)
            losses = [cross_entropy(model(x), y, reduction="none") for model in both]  # (n,) each
            hard, hard_for_biased = (own.update(rows, loss.detach()) for own, loss in zip(averages, losses))
            weights = hard_for_biased / (hard_for_biased + hard + 1e-8)
            training.minimise((weights * losses[0]).mean() + generalised(losses[1], c.q).mean())
        return debiased


def generalised(losses: torch.Tensor, q: float) -> torch.Tensor:
    """Return the generalised cross-entropy (1 - p^q)/q of images whose cross-entropy -log p is (n,)."""
    return (1 - (-q * losses).exp()) / q


class MovingAverages:
    """Moving averages of the losses of N images, whose labels are (N,); an image's first loss is its first average."""

    def __init__(self, labels: torch.Tensor, num_classes: int, memory: float) -> None:
        self.labels, self.memory = labels, memory
        self.classes = torch.arange(num_classes, device=labels.device)
        self.values = torch.zeros(len(labels), dtype=widest_float(labels.device), device=labels.device)
        self.seen = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)

    def update(self, rows: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Take in the losses (n,) of rows (n,); return their averages, each over the largest of its class."""
        old, losses = self.values[rows], losses.to(self.values.dtype)
        self.values[rows] = torch.where(self.seen[rows], old.lerp(losses, 1 - self.memory), losses)
        self.seen[rows] = True
        members = self.labels == self.classes[:, None]  # (K, N)
        largest = torch.where(members, self.values, 0.0).amax(1).clamp(min=1e-30)
        return self.values[rows] / largest[self.labels[rows]]
