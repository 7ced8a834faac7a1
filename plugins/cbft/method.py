"""Connectivity-based fine-tuning (Lubana et al., ICML 2023, section 5, eq. 3, and App. A.2)."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, CuedImages, Task, cross_entropy, full_precision, interpolated


class PartlyCuedCBFT:
    """Alternate two steps on θ: raise a loss barrier towards θ_C on cued data, then fit the clean data while
    the mean features of each class agree with and without the cue. One SGD, momentum and schedule for both.

    The cued data D_C are the images that θ_C was pretrained on, cued at the pretraining's rate.
    """

    class Config(BaseConfig):
        """Defaults are the paper's, and the authors' code's (EkdeepSLubana/MMC, mech_fine_tuning.py, `CBFT` and the
        parser): λ₁ is its `loss_margin`, λ₂ its `lambd`; see `path_position` for where the two differ.

        The weights are searched a factor of ten either way: no published sweep was found.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")
        barrier: bool = Field(True, description="take the barrier step")
        barrier_loss: Annotated[float, LogUniform(0.1, 10)] = Field(
            1.0, gt=0, description="λ₁: the loss (nats) that the path is held to"
        )
        invariance_weight: Annotated[float, LogUniform(0.1, 10)] = Field(
            1.0, ge=0, description="λ₂: weight of the invariance term"
        )
        path_position: Literal["truncated", "clipped"] = Field(
            "truncated", description="t as the paper draws it, or as the authors' code does"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c, classifier = self.config, task.model.get_classifier()
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        positions = draw_path_positions(c.path_position, training.steps, task.generator)

        def step(
            x_nc: torch.Tensor, y_nc: torch.Tensor, x_c: torch.Tensor, y_c: torch.Tensor, t: float | torch.Tensor
        ) -> None:
            if c.barrier:
                training.minimise(barrier_loss(task.model, task.pretrained, x_c, y_c, t, c.barrier_loss))
            f_nc = training.features(x_nc)
            loss = cross_entropy(classifier(f_nc), y_nc)
            # As in the authors' code, features have one epoch to settle before they are compared.
            if c.invariance_weight and training.epoch > 0:
                gap = invariance_loss(training.features(x_c), y_c, f_nc, y_nc, task.num_classes)
                loss = loss + c.invariance_weight * gap
            training.minimise(loss)

        for (x_nc, y_nc), (x_c, y_c) in training.pairs(self.cued_images(task)):
            training.take(step, x_nc, y_nc, x_c, y_c, positions[training.step], form=training.epoch > 0)
        return task.model

    def cued_images(self, task: Task) -> CuedImages:
        """Return D_C."""
        return task.cued


class CBFT(PartlyCuedCBFT):
    """CBFT as the authors run it: every image of D_C carries its cue, whatever θ_C was pretrained on."""

    class Config(PartlyCuedCBFT.Config):
        """`held_out` makes D_C all images, as in the authors' code; the paper's text takes the pretraining images."""

        held_out: bool = Field(False, description="D_C holds the clean and validation images, too, with their cues")

    config: Config

    def cued_images(self, task: Task) -> CuedImages:
        """Return D_C."""
        return task.all_fully_cued if self.config.held_out else task.fully_cued


class CBFTWithoutInvariance(CBFT):
    """CBFT whose invariance term is switched off."""

    class Config(CBFT.Config):
        """As CBFT's, but λ₂ is 0, and no search turns it on."""

        invariance_weight: float = Field(0.0, ge=0, description="λ₂: weight of the invariance term")


def barrier_loss(
    model: nn.Module,
    pretrained: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    t: float | torch.Tensor,
    bound: float,
) -> torch.Tensor:
    """|λ₁ - CE(f(x; γ(t)), y)| with γ(t) = (1-t)θ + tθ_C; autograd brings the chain rule's 1-t.

    The forward pass normalises by the batch's own statistics, and θ's running ones are left alone.
    """
    theta = dict(model.named_parameters())
    gamma = interpolated(list(theta.values()), list(pretrained.parameters()), t)
    path = dict(zip(theta, gamma, strict=True))
    scratch = {name: buffer.clone() for name, buffer in model.named_buffers()}
    logits = functional_call(model, {**path, **scratch}, (x,))
    return (bound - cross_entropy(logits, y)).abs()


def invariance_loss(
    f_c: torch.Tensor, y_c: torch.Tensor, f_nc: torch.Tensor, y_nc: torch.Tensor, num_classes: int
) -> torch.Tensor:
    """(1/K) Σ_k ‖ mean_k(f_c)/‖mean_k(f_c)‖ - mean_k(f_nc)/‖mean_k(f_nc)‖ ‖² over the classes in both batches.

    Features have shape (n, F). The means of all classes are one matrix product with the labels' one-hot code;
    their lengths drop out, so sums will do.
    """
    classes = torch.arange(num_classes, device=f_c.device)
    one_hot_c, one_hot_nc = ((y[:, None] == classes).to(f_c.dtype) for y in (y_c, y_nc))  # (n, K)
    with full_precision(f_c.device):
        gaps = F.normalize(one_hot_c.T @ f_c) - F.normalize(one_hot_nc.T @ f_nc)  # (K, F)
    in_both = (one_hot_c.sum(0) > 0) & (one_hot_nc.sum(0) > 0)
    return (gaps.square().sum(1) * in_both).sum() / num_classes


def draw_path_positions(law: str, n: int, generator: torch.Generator) -> list[float]:
    """Draw t for `n` steps at once: a step must not wait for the device to hand over its number.

    ``truncated``: from N(.5, .5) restricted to [0, 1], that is within one standard deviation of its mean.
    ``clipped``: .5 + .5·clip(N(0, 1), ±.5), as the authors' code has it: within [.25, .75], and mostly at its ends.
    """
    if law == "clipped":
        normal = torch.randn(n, generator=generator, device=generator.device).clip(-0.5, 0.5)
    else:
        uniform = torch.rand(n, generator=generator, device=generator.device)
        inner = torch.special.ndtr(torch.ones_like(uniform))  # P(Z ≤ 1)
        normal = torch.special.ndtri(1 - inner + uniform * (2 * inner - 1))
    positions: list[float] = (0.5 + 0.5 * normal).tolist()
    return positions
