"""Naive fine-tuning (Lubana et al., 2023, App. A)."""

from typing import Literal

from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, cosine, stepped


class FineTuning:
    """Train all of θ on the clean set with cross-entropy: SGD, cosine to 0."""

    class Config(BaseConfig):
        """Defaults are those of the paper's Table 1 (App. A.2), and of the authors' parser (EkdeepSLubana/MMC,
        mech_fine_tuning.py); its Fig. 5 takes 100 epochs with steps (App. A.1).
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        schedule: Literal["cosine", "steps"] = Field(
            "cosine", description="cosine to 0, or ×.1 after 40 % and 80 % of the epochs"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        schedule = cosine if c.schedule == "cosine" else stepped((0.4, 0.8), 0.1)
        return task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size, schedule=schedule).fit()
