"""Automatic feature reweighting (Qiu et al., 2023)."""

from itertools import product
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from mmc_bench import BaseConfig, Choice
from mmc_bench.training import Backbone, Descent, Task, constant, frozen_features, full_precision, in_float64


class AutomaticFeatureReweighting:
    """Keep the backbone, and go on training θ_C's last layer φ on images weighted by how wrong θ_C is on them:

    Σ_i μ_i CE(φ(e_i), y_i) + λ‖φ - φ_C‖²,  μ_i ∝ β_{y_i} exp(-γ p_i),

    with p_i the probability that θ_C gives to the label, β_y = n/n_y, and Σ_i μ_i = 1. The paper's second stage asks
    for images that θ_C was not trained on: on its own, p_i is near 1 everywhere, and nothing is reweighted.
    Here these are the clean set. They are not of the training distribution as the paper's are, but what its minority
    is there: images on which the cue does not tell the label.

    All pairs (γ, λ) are trained side by side. The pair and the step are those with the highest accuracy on the worst
    class of the validation set, the paper's worst group where all images are of one environment; so do the authors'
    `train` with ``early_stop="wga"`` and `sweep` (AndPotap/afr, notebooks/wb_celeba.ipynb).
    """

    class Config(BaseConfig):
        """The authors' settings for Waterbirds (AndPotap/afr, README.md and notebooks/wb_celeba.ipynb, `sweep_config`),
        with 5 values of γ in [4, 20] where they search 33: neighbours differ by less than the validation set can tell.

        A search tries values of γ and λ one by one, those for CelebA among them (γ in [1, 3], λ from .001), and thus
        leaves the choice between them to its own rule.
        """

        lr: float = Field(0.01, gt=0, description="learning rate of full-batch gradient descent, constant")
        epochs: int = Field(500, ge=1, description="steps, each over the whole clean set")
        gammas: Annotated[
            tuple[Annotated[float, Field(ge=0)], ...], Choice([1.0], [2.0], [4.0], [8.0], [12.0], [16.0], [20.0])
        ] = Field(
            (4.0, 8.0, 12.0, 16.0, 20.0), min_length=1, description="γ: how much errors of θ_C weigh, to choose from"
        )
        pulls: Annotated[
            tuple[Annotated[float, Field(ge=0)], ...], Choice([0.0], [0.001], [0.01], [0.1], [0.2], [0.3])
        ] = Field((0.0, 0.1, 0.2, 0.3), min_length=1, description="λ: pull to the pretrained layer, to choose from")
        clip: float = Field(1.0, gt=0, description="largest norm of a layer's gradient, which is scaled down to it")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the model with its retrained last layer."""
        c, layer = self.config, task.model.get_classifier()
        inputs, held_out = (frozen_features(task.model, images) for images in (task.clean, task.validation))
        labels = task.clean.labels
        start = last_layer(layer)  # (K, F + 1)
        gammas, pulls = torch.tensor(list(product(c.gammas, c.pulls)), device=task.device).T  # (R,) each
        with full_precision(task.device):
            weights = torch.stack([example_weights(logits(start, inputs), labels, gamma) for gamma in gammas])  # (R, N)
            layers = start.repeat(len(gammas), 1, 1).requires_grad_()  # (R, K, F + 1)
            descent = Descent(
                [layers],
                lr=c.lr,
                epochs=c.epochs,
                steps_per_epoch=1,
                progress=task.progress,
                momentum=0.0,
                weight_decay=0.0,
                schedule=constant,
            )
            best, best_score = start, in_float64(torch.full((), -1.0, device=task.device))
            for _ in descent.each(lambda: [inputs]):
                losses = objective(layers, start, inputs, labels, weights, pulls)  # (R,)
                losses.sum().backward()  # no term has two of the layers, so each gets its own gradient
                clip(layers, c.clip)
                descent.update(losses.mean())
                score, run = scores(layers.detach(), held_out, task.validation.labels).max(0)
                better, run = (score > best_score).to(task.device), run.to(task.device)
                best = torch.where(better, layers.detach().index_select(0, run[None])[0], best)
                best_score = torch.maximum(score, best_score)
        with torch.no_grad():
            layer.weight.copy_(best[:, :-1])
            layer.bias.copy_(best[:, -1])
        return task.model


def last_layer(layer: nn.Linear) -> torch.Tensor:
    """Return a linear layer's weights, and its bias in the last column: (K, F + 1)."""
    return torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().float()


def logits(layers: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return what layers (…, K, F + 1) say of features (N, F): (…, N, K)."""
    return inputs @ layers[..., :-1].mT + layers[..., None, :, -1]


def example_weights(outputs: torch.Tensor, labels: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Return μ (N,) of images whose pretrained logits are (N, K)."""
    one_hot = F.one_hot(labels, outputs.shape[1]).to(outputs.dtype)  # (N, K)
    confidence = (outputs.softmax(1) * one_hot).sum(1)
    weights = (-gamma * confidence).exp() / one_hot.sum(0)[labels]
    return weights / weights.sum()


def objective(
    layers: torch.Tensor,
    start: torch.Tensor,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    pulls: torch.Tensor,
) -> torch.Tensor:
    """Return Σ_i μ_i CE_i + λ‖φ - φ_C‖² of each of R layers (R, K, F + 1), as (R,)."""
    outputs = logits(layers, inputs)  # (R, N, K)
    losses = F.cross_entropy(outputs.flatten(0, 1), labels.repeat(len(layers)), reduction="none").view_as(weights)
    return (weights * losses).sum(1) + pulls * (layers - start).square().sum((1, 2))


def clip(layers: torch.Tensor, norm: float) -> None:
    """Scale the gradient of each of R layers (R, K, F + 1) down to a norm, where it is larger, in place."""
    assert layers.grad is not None
    layers.grad.mul_((norm / layers.grad.norm(dim=(1, 2), keepdim=True)).clamp(max=1.0))


def scores(layers: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the accuracy of each layer on the worst class that occurs; the accuracy on all breaks ties: (R,)."""
    correct = in_float64(logits(layers, inputs).argmax(2) == labels)  # (R, N)
    one_hot = in_float64(F.one_hot(labels, layers.shape[1]))
    counts = one_hot.sum(0)
    of_class = torch.where(counts > 0, correct @ one_hot / counts, 1.0)  # (R, K)
    return of_class.amin(1) + 1e-6 * correct.mean(1)
