"""Linear probing, then fine-tuning (Kumar et al., 2022, as Lubana et al., 2023, App. A.2 run it)."""

import copy
from typing import Annotated

from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, evaluate, linear_probe


class LPFT:
    """Train a new last layer, then all parameters at several learning rates; keep the best on validation."""

    class Config(BaseConfig):
        """Defaults are the paper's."""

        probe_lr: float = Field(30.0, gt=0, description="initial learning rate of the linear layer")
        probe_epochs: int = Field(100, ge=1, description="passes over the clean set for the linear layer")
        lrs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
            (0.01, 0.001, 0.0001), min_length=1, description="learning rates to try"
        )
        epochs: int = Field(20, ge=1, description="passes over the clean set for all parameters")
        batch_size: int = Field(256, ge=2, description="images in a batch")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model with the highest validation accuracy; the first of equals."""
        c = self.config
        probed = linear_probe(
            task.model,
            task.clean,
            epochs=c.probe_epochs,
            lr=c.probe_lr,
            batch_size=c.batch_size,
            generator=task.generator,
            progress=task.progress,
        )
        candidates = []
        for lr in c.lrs:
            model = copy.deepcopy(probed)
            task.training(lr=lr, epochs=c.epochs, batch_size=c.batch_size, model=model).fit()
            candidates.append(model)
        return max(candidates, key=lambda model: evaluate(model, task.validation).accuracy)
