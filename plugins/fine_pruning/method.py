"""Fine-pruning (Liu et al., 2018): prune what clean images leave idle, then fine-tune."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, frozen_features, full_precision, in_float64


class FinePruning:
    """Prune channels of the last convolution in the order of their mean activation on clean images, the least active
    first, until validation accuracy has fallen by more than a share of it; take that last one back; then fine-tune.

    A channel of the last convolution is a feature that the last layer sees, its mean over the image. It is pruned by
    setting its column of the last layer's weights to 0: nothing else reads it, the architecture stays as it is,
    and any backbone has such columns (where a hidden layer stands between, its units are pruned). Where blocks end in a
    sum with a shortcut, both go. The columns are set to 0 again after every step of fine-tuning. Activation is the
    mean of |feature|, the paper's mean where features come from a ReLU.
    """

    class Config(BaseConfig):
        """The tolerance is that of BackdoorBench (SCLBD/BackdoorBench, config/defense/fp/cifar10.yaml, `acc_ratio`, and
        defense/fp.py, `FinePrune.defense`), since the paper leaves it to the defender; so are lr, momentum and batch.

        Epochs (theirs: 100) and weight decay (5e-4) are as in all fine-tuning here. They measure on test images,
        prune 1 % of the channels at a time, and keep the step that went too far.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        # Between a tenth and five times BackdoorBench's: no published sweep was found.
        tolerance: Annotated[float, LogUniform(0.01, 0.5)] = Field(
            0.1, ge=0, le=1, description="share of the pretrained model's validation accuracy that may be lost"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the pruned and fine-tuned model."""
        c = self.config
        weight = task.model.get_classifier().weight
        keep = self.kept(task)  # (F,)

        @torch.no_grad()
        def prune(*step: object) -> None:
            weight.mul_(keep)

        prune()
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        training.optimizer.register_step_post_hook(prune)
        return training.fit()

    def kept(self, task: Task) -> torch.Tensor:
        """Return 1 for each feature to keep and 0 for each to prune, (F,)."""
        layer = task.model.get_classifier()
        order = frozen_features(task.model, task.clean).abs().mean(0).argsort(stable=True)
        accuracies = pruned_accuracies(
            layer, frozen_features(task.model, task.validation), task.validation.labels, order
        )
        floor = accuracies[0] * (1 - self.config.tolerance)
        pruned = next((n - 1 for n, accuracy in enumerate(accuracies) if accuracy < floor), len(order) - 1)
        return torch.ones_like(layer.weight[0]).index_fill(0, order[:pruned], 0.0).detach()


@torch.no_grad()
def pruned_accuracies(layer: nn.Linear, inputs: torch.Tensor, labels: torch.Tensor, order: torch.Tensor) -> list[float]:
    """Return the accuracies on features (N, F) without the first 0, 1, …, F - 1 of `order`, which has shape (F,)."""
    with full_precision(inputs.device):
        inputs, weight = in_float64(inputs[:, order]), in_float64(layer.weight[:, order])
        outputs = inputs @ weight.T + (0.0 if layer.bias is None else in_float64(layer.bias))
        labels = labels.to(outputs.device)
        correct = []
        for values, column in zip(inputs.T, weight.T):
            correct.append((outputs.argmax(1) == labels).double().mean())
            outputs = outputs - values[:, None] * column
    return torch.stack(correct).tolist()
