"""Naive fine-tuning (Lubana et al., 2023, App. A.2)."""

from pydantic import Field
from torch import nn

from mmc_bench import BaseConfig
from mmc_bench.training import Task, cosine, fit, sgd


class FineTuning:
    """Train all of θ on the clean set with cross-entropy: SGD, cosine to 0."""

    class Config(BaseConfig):
        """Defaults are the paper's."""

        lr: float = Field(0.01, gt=0, description="initial learning rate")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")

    config: Config

    def fine_tune(self, task: Task) -> nn.Module:
        """Return the fine-tuned model."""
        c = self.config
        optimizer = sgd(task.model.parameters(), lr=c.lr)
        return fit(
            task.model,
            task.clean,
            epochs=c.epochs,
            batch_size=c.batch_size,
            optimizer=optimizer,
            schedule=cosine(optimizer, c.epochs * task.clean.steps(c.batch_size)),
            generator=task.generator,
            progress=task.progress,
        )
