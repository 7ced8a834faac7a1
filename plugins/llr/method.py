"""Last-layer retraining (Kirichenko et al., 2022b, as Lubana et al., 2023, App. A.2 run it)."""

from typing import Annotated

from pydantic import Field

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, linear_probe


class LastLayerRetraining:
    """Keep the backbone, in eval mode, and train a new random linear layer on the clean set."""

    class Config(BaseConfig):
        """Defaults are the paper's; the authors' code runs 200 epochs (EkdeepSLubana/MMC, mech_fine_tuning.py, `LLRT`).

        lr is searched from the rates of other linear probes (AnanyaKumar/transfer_learning,
        scripts/run_adaptation_experiments.py, `linear_probe`: up to 1) to above the paper's.
        """

        lr: Annotated[float, LogUniform(0.3, 100)] = Field(
            30.0, gt=0, description="initial learning rate of the linear layer"
        )
        epochs: int = Field(100, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the model with its new last layer."""
        return linear_probe(
            task.model, task.clean, generator=task.generator, progress=task.progress, **dict(self.config)
        )
