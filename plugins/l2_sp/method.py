"""Fine-tuning that stays near its start: L²-SP (Li et al., 2018)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, cross_entropy, full_precision


class L2SP:
    """Train all of θ on the clean set with (α/2)‖w_S - w⁰_S‖² + (β/2)‖w_S̄‖² (their eq. 3) instead of weight decay.

    w_S is what the network shares with the pretrained one, w_S̄ what is new; w⁰ is the start, θ_C. As in the authors'
    code, w_S̄ is the last layer. Theirs is new and random; ours has the pretrained one's labels and starts from its
    weights, but is pulled towards 0 all the same, and not towards the layer that reads the cue. The penalties are on
    weights alone, of convolutions and linear layers: biases and BatchNorm's parameters go free, as in their code.
    """

    class Config(BaseConfig):
        """α, β, lr and momentum are the paper's and its code's (holyseven/TransferLearningClassification,
        run_classification/train.sh, --weight_decay_rate and --weight_decay_rate2; the penalty is mode 1 of
        `Network._decay` in model/network_base.py). Epochs, batch and cosine are as in all fine-tuning here.

        α is searched where AnanyaKumar/transfer_learning did (scripts/run_adaptation_experiments.py,
        `fine_tuning_experiments`).
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        alpha: Annotated[float, LogUniform(1e-4, 1.0)] = Field(
            0.1, ge=0, description="α: pull of all weights but the last layer's towards θ_C's"
        )
        beta: float = Field(0.01, ge=0, description="β: pull of the last layer's weights towards 0")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size, weight_decay=0.0)
        shared, head = shared_and_head(task.model)
        start = [weight.detach().clone() for weight in shared]
        for x, y in training.batches():
            loss = cross_entropy(training.logits(x), y)
            with full_precision(task.device):
                loss = loss + penalty(shared, start, head, c.alpha, c.beta)
            training.minimise(loss)
        return task.model


def shared_and_head(model: Backbone) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the weights (parameters of two axes or more) before the last layer, and the last layer's."""
    head = [weight for weight in model.get_classifier().parameters() if weight.ndim > 1]
    known = {id(weight) for weight in head}
    return [weight for weight in model.parameters() if weight.ndim > 1 and id(weight) not in known], head


def penalty(
    shared: list[nn.Parameter], start: list[torch.Tensor], head: list[nn.Parameter], alpha: float, beta: float
) -> torch.Tensor:
    """Return (α/2) Σ (w - w⁰)² over the shared weights + (β/2) Σ w² over the last layer's."""
    moved = torch.stack([(weight - before).square().sum() for weight, before in zip(shared, start)]).sum()
    return alpha / 2 * moved + beta / 2 * torch.stack([weight.square().sum() for weight in head]).sum()
