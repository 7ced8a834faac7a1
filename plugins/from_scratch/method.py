"""Training on the clean set from random weights: what the clean set gives by itself."""

from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, stepped


class FromScratch:
    """Train a new network of the same architecture on the clean set with cross-entropy.

    A repair that scores no higher owes nothing to the pretrained weights. The network never saw a cue.
    """

    class Config(BaseConfig):
        """The recipe that θ_C is pretrained with (Lubana et al., 2023, App. A.1): learning rate, steps, 100 epochs.

        20 passes, the budget of fine-tuning here, would show a network that is not trained yet.
        """

        lr: float = Field(0.1, gt=0, description="initial learning rate, ×.1 after 40 % and 80 % of the epochs")
        epochs: int = Field(100, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the new network."""
        return task.training(**dict(self.config), schedule=stepped((0.4, 0.8), 0.1), model=task.untrained()).fit()
