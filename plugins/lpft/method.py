"""Linear probing, then fine-tuning (Kumar et al., 2022, as Lubana et al., 2023, App. A.2 run it)."""

import copy
from typing import Annotated

from pydantic import Field

from mmc_bench import BaseConfig, Choice, LogUniform
from mmc_bench.training import Backbone, Task, evaluate, linear_probe


class LPFT:
    """Train a new last layer, then all parameters at several learning rates; keep the best on validation."""

    class Config(BaseConfig):
        """Defaults are the paper's (App. A.2); the authors' code probes for 200 epochs, then fine-tunes at .01 alone
        (EkdeepSLubana/MMC, mech_fine_tuning.py).

        A search tries one rate at a time, and thus leaves the choice to its own rule: from 3e-4, as Kumar et al. do
        (AnanyaKumar/transfer_learning, scripts/run_adaptation_experiments.py, `SWEEP_LRS`: 3e-5 to .01), to the highest
        of the standard space, which all other methods are searched in.
        """

        probe_lr: Annotated[float, LogUniform(0.3, 100)] = Field(
            30.0, gt=0, description="initial learning rate of the linear layer"
        )
        probe_epochs: int = Field(100, ge=1, description="passes over the clean set for the linear layer")
        lrs: Annotated[
            tuple[Annotated[float, Field(gt=0)], ...],
            Choice([0.0003], [0.001], [0.003], [0.01], [0.03], [0.1], [0.3]),
        ] = Field((0.01, 0.001, 0.0001), min_length=1, description="learning rates to try")
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
