"""Last-layer retraining (Kirichenko et al., 2022b, as Lubana et al., 2023, App. A.2 run it)."""

from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, linear_probe


class LastLayerRetraining:
    """Keep the backbone, in eval mode, and train a new random linear layer on the clean set."""

    class Config(BaseConfig):
        """Defaults are the paper's; the authors' code runs 200 epochs."""

        lr: float = Field(30.0, gt=0, description="initial learning rate of the linear layer")
        epochs: int = Field(100, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the model with its new last layer."""
        return linear_probe(
            task.model, task.clean, generator=task.generator, progress=task.progress, **dict(self.config)
        )
