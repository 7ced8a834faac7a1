"""WiSE-FT: the average of a model's weights before and after fine-tuning (Wortsman et al., CVPR 2022, eq. 1)."""

from typing import Annotated

import torch
from pydantic import Field
from torch.optim.swa_utils import update_bn

from mmc_bench import BaseConfig, Uniform
from mmc_bench.training import Backbone, Task


class WiSEFT:
    """Fine-tune θ on the clean set, and return (1-α)θ_C + αθ: a point on the straight path that barriers are on.

    The authors' networks (CLIP) have no BatchNorm, and their code (mlfoundations/wise-ft, src/wise_ft.py, `wise_ft`)
    averages all that a state_dict holds. Averages of running statistics are not the averaged network's, so these are
    estimated anew on the clean images, as in stochastic weight averaging (Izmailov et al., 2018).
    """

    class Config(BaseConfig):
        """α is what the authors recommend where nothing tells which is best; the rest is as in all fine-tuning here."""

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        alpha: Annotated[float, Uniform(0.0, 1.0)] = Field(
            0.5, ge=0, le=1, description="α: weight of the fine-tuned model"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the averaged model."""
        c = self.config
        model = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size).fit()
        average(model, task.pretrained, c.alpha)
        update_bn(task.clean.shuffled(c.batch_size, task.generator), model)
        return model


@torch.no_grad()
def average(model: torch.nn.Module, pretrained: torch.nn.Module, alpha: float) -> None:
    """Replace each weight θ of a model by (1-α)θ_C + αθ, in place."""
    for weight, start in zip(model.parameters(), pretrained.parameters(), strict=True):
        weight.lerp_(start, 1 - alpha)
