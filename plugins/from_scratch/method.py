"""Training on the clean set from random weights: what the clean set gives by itself."""

from typing import Annotated

from pydantic import Field

from mmc_bench import BaseConfig, Choice
from mmc_bench.training import Backbone, Task


class FromScratch:
    """Train a new network of the same architecture on the clean set with cross-entropy.

    It never saw a cue: this is what a repair has to beat.
    """

    class Config(BaseConfig):
        """The learning rate is that of pretraining (Lubana et al., 2023, App. A.1); the rest is as in all fine-tuning
        here. More passes than fine-tuning has are in the search space, since there is more to learn.
        """

        lr: float = Field(0.1, gt=0, description="initial learning rate, cosine to 0")
        epochs: Annotated[int, Choice(20, 40, 100)] = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the new network."""
        return task.training(**dict(self.config), model=task.untrained()).fit()
